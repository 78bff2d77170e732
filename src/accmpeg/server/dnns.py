"""The server DNNs that run, by the names that cameras ask for."""

import logging
from collections.abc import Callable
from pathlib import Path

from accmpeg.dnn.card import CARD_SUFFIX
from accmpeg.errors import UsageError
from accmpeg.protocol.wire import is_name
from accmpeg.server.batcher import Batcher
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.models import LoadedDnn, LoadedDnns, load
from accmpeg.server.settings import ServerSettings
from accmpeg.server.threads import in_thread

__all__ = ["RunningDnns", "load_all"]

log = logging.getLogger(__name__)


def load_all(settings: ServerSettings) -> LoadedDnns:
    """The DNNs of the settings, by name, for each worker; may take seconds.

    Raises `UsageError`, `CardError`, `WeightsError`, …
    """
    found: LoadedDnns = {}
    for card in settings.dnns:
        loaded = load(settings, card)
        name = next(iter(loaded.values())).identity.card
        if not is_name(name):
            raise UsageError(f"{card}: the name '{name}' can't be asked for: use letters, digits, _ . -")
        if name in found:
            raise UsageError(f"two cards are named '{name}': cameras could not tell them apart")
        found[name] = loaded
        for worker, each in loaded.items():
            facts = {"dnn": name, "worker": worker, "copies": len(each.copies), **each.identity.facts()}
            log.info("dnn loaded", extra=facts)
    return found


class RunningDnns(dict[str, DnnWorkers]):
    """The workers of each DNN; the first is for cameras that name none.

    `observe` gets the name of the DNN and the frames of each batch of any worker.
    """

    def __init__(
        self,
        settings: ServerSettings,
        loaded: LoadedDnns,
        observe: Callable[[str, int], None],
    ) -> None:
        self._settings = settings
        self._observe = observe
        super().__init__({name: self._workers(name, each) for name, each in loaded.items()})

    @property
    def first(self) -> DnnWorkers:
        return next(iter(self.values()))

    @property
    def problem(self) -> str:
        """Why none of them answers; empty where one does."""
        if not all(each.problem for each in self.values()):
            return ""
        return "; ".join(f"dnn {name}: {each.problem}" for name, each in self.items())

    def problem_of(self, name: str) -> str:
        """What is wrong with one; empty for a name that none has."""
        return self[name].problem if name in self else ""

    async def load(self, name: str, card: str) -> dict[str, LoadedDnn]:
        """A card of `dnn_folder`, to be put under a name, for each worker in as many copies as it has there.

        Raises `UsageError` for a card elsewhere, and what `load_dnn` raises.
        """
        path = self.file(card, CARD_SUFFIX)
        if not is_name(name):
            raise UsageError(f"'{name}' is no name for a DNN: use letters, digits, _ . -")
        running = self.get(name)
        return await in_thread(load, self._settings, path, None if running is None else running.copies)

    def put(self, name: str, loaded: dict[str, LoadedDnn]) -> DnnWorkers:
        """Puts a DNN under a name, new or in place of the one that has it: it infers the frames that wait.

        Raises `UsageError` for one of another task; the old DNN then goes on.
        """
        if name in self:
            self[name].exchange(loaded)
        else:
            self[name] = self._workers(name, loaded)
        log.info("dnn exchanged", extra={"dnn": name, **self[name].identity.facts()})
        return self[name]

    def file(self, name: str, suffix: str) -> Path:
        """A file in `dnn_folder`. Raises `UsageError` for what is not in there or has another suffix."""
        folder = self._settings.dnn_folder
        if folder is None:
            raise UsageError("this server changes no DNN: start it with --dnn-folder FOLDER")
        try:
            path = (folder / name).resolve()
            inside = path.is_relative_to(folder.resolve())
        except (OSError, ValueError):  # a NUL in it, or a name that no file can have
            path, inside = folder, False
        if not inside or not path.name.endswith(suffix):
            raise UsageError(f"{name!r} is no *{suffix} of the server's --dnn-folder")
        return path

    def _workers(self, name: str, loaded: dict[str, LoadedDnn]) -> DnnWorkers:
        settings = self._settings
        return DnnWorkers(
            {
                worker: Batcher(
                    name,
                    each,
                    max_batch=settings.max_batch,
                    window_ms=settings.batch_window_ms,
                    infer_timeout_s=settings.infer_timeout_s,
                    observe=self._observe,
                )
                for worker, each in loaded.items()
            }
        )
