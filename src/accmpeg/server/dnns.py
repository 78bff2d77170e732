"""The server DNNs that run, by the names that cameras ask for."""

import logging
from collections.abc import Callable
from pathlib import Path

from accmpeg.dnn.card import CARD_SUFFIX
from accmpeg.errors import UsageError
from accmpeg.protocol.wire import is_name
from accmpeg.server.batcher import Batcher
from accmpeg.server.lanes import Outcome
from accmpeg.server.models import LoadedDnn, load
from accmpeg.server.settings import ServerSettings
from accmpeg.server.threads import in_thread

__all__ = ["RunningDnns", "load_all"]

log = logging.getLogger(__name__)


def load_all(settings: ServerSettings) -> dict[str, LoadedDnn]:
    """The DNNs of the settings, in their copies, by name; may take seconds.

    Raises `UsageError`, `CardError`, `WeightsError`, …
    """
    found: dict[str, LoadedDnn] = {}
    for card in settings.dnns:
        loaded = load(settings, card)
        name = loaded.identity.card
        if not is_name(name):
            raise UsageError(f"{card}: the name '{name}' can't be asked for: use letters, digits, _ . -")
        if name in found:
            raise UsageError(f"two cards are named '{name}': cameras could not tell them apart")
        found[name] = loaded
        facts = loaded.identity.facts()
        log.info("dnn loaded", extra={"dnn": name, "copies": len(loaded.copies), **facts})
    return found


class RunningDnns(dict[str, Batcher]):
    """A batcher for each DNN; the first is for cameras that name none.

    `observe` gets the name of the DNN and one outcome of each batch.
    """

    def __init__(
        self,
        settings: ServerSettings,
        loaded: dict[str, LoadedDnn],
        observe: Callable[[str, Outcome], None],
    ) -> None:
        self._settings = settings
        self._observe = observe
        super().__init__({name: self._batcher(name, each) for name, each in loaded.items()})

    @property
    def first(self) -> Batcher:
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

    async def exchange(self, name: str, card: str) -> Batcher:
        """Loads a card of `dnn_folder` under a name, new or in place of the DNN that has it.

        Frames that wait are inferred by the new one. Raises `UsageError` for a card elsewhere or of another
        task, and what `load_dnn` raises; the old DNN then goes on.
        """
        path = self._card_path(card)
        if not is_name(name):
            raise UsageError(f"'{name}' is no name for a DNN: use letters, digits, _ . -")
        running = self.get(name)
        loaded = await in_thread(load, self._settings, path, None if running is None else running.copies)
        if running is not None:
            running.exchange(loaded)
        else:
            self[name] = self._batcher(name, loaded)
        log.info("dnn exchanged", extra={"dnn": name, **loaded.identity.facts()})
        return self[name]

    def _card_path(self, card: str) -> Path:
        folder = self._settings.dnn_folder
        if folder is None:
            raise UsageError("this server changes no DNN: start it with --dnn-folder FOLDER")
        try:
            path = (folder / card).resolve()
            inside = path.is_relative_to(folder.resolve())
        except (OSError, ValueError):  # a NUL in it, or a name that no file can have
            path, inside = folder, False
        if not inside or not path.name.endswith(CARD_SUFFIX):
            raise UsageError(f"{card!r} is no card of the server's --dnn-folder")
        return path

    def _batcher(self, name: str, loaded: LoadedDnn) -> Batcher:
        settings = self._settings
        return Batcher(
            name,
            loaded,
            max_batch=settings.max_batch,
            window_ms=settings.batch_window_ms,
            infer_timeout_s=settings.infer_timeout_s,
            observe=self._observe,
        )
