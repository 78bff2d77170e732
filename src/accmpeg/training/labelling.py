"""Making label sets: footage in, one label per sampled frame out, resumable and by several workers.

```
footage ─▶ decode, sample, cap size ─▶ H, L through libx264 ─▶ D(H) ─▶ AccGrad ─▶ NNNN/NNNNNN.npz ─▶ journal
           (this process, a node)      └──────── worker processes, nodes ────┘    └───── this process ─────┘
```

Labels are filed in the order of their frames, so however many workers there are, the files are the same.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accmpeg.dnn.card import DnnCard, read_card
from accmpeg.dnn.registry import get_adapter
from accmpeg.errors import AccmpegError, LabelError, UsageError
from accmpeg.files import write_whole
from accmpeg.media.footage import folder_pictures
from accmpeg.media.shared_files import is_shared_address
from accmpeg.media.source import Footage, find_footage
from accmpeg.training.labeller import Outcome, work_here
from accmpeg.training.labels import (
    JOURNAL_NAME,
    MANIFEST_NAME,
    Journal,
    label_file,
    read_manifest,
    write_manifest,
)
from accmpeg.training.reading import Passed, Reading, expected_frames, read_jobs
from accmpeg.training.settings import LabelSettings, Sampling
from accmpeg.workers import LocalWorkers, Workers

__all__ = ["LabelReport", "label_footage"]

Progress = Callable[[int, int | None], None]
"""Called with (frames done, frames in all if known)."""


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What one run did: labels made and found, frames or files skipped and why; `seconds` of wall time.

    `flat` of the new labels are the same for all macroblocks: the server DNN's result did not depend on them.
    """

    new: int
    kept: int
    skipped: int
    seconds: float
    reasons: tuple[str, ...] = ()
    flat: int = 0

    @property
    def ms_per_frame(self) -> float:
        """Wall milliseconds per new label; NaN if there were none."""
        return 1000 * self.seconds / self.new if self.new else float("nan")


def label_footage(
    footage: Sequence[str | Path],
    *,
    dnn: str | Path,
    out: str | Path,
    settings: LabelSettings | None = None,
    sampling: Sampling | None = None,
    workers: int | Workers | None = None,
    device: str = "cpu",
    restart: bool = False,
    progress: Progress | None = None,
) -> LabelReport:
    """Labels frames of footage with a server DNN's accuracy gradients, going on from what is already there.

    Footage or frames that can't be labelled are skipped, counted, and named in the manifest.

    Args:
        footage: Videos, pictures and folders of them.
        dnn: The server DNN's card, `NAME.card.toml`.
        out: The folder of the labels.
        settings: What a label means.
        sampling: Which frames are labelled.
        workers: Spawned processes with one thread each: as many as there are cores, on a GPU one. 1 means
            this process, with all threads; with more, a script needs a `__main__` guard. Or `Workers` of
            another kind, which `accmpeg cluster label` gives.
        device: Where the server DNN runs: `cpu` or `cuda`.
        restart: Deletes the labels in the folder first.
        progress: Called with the frames done, and those in all if known.

    Returns:
        How many labels were made, found and skipped, and why.

    Raises:
        LabelError: The folder holds labels of another DNN or other settings, nothing could be labelled, no
            label says anything, or the disk is full; what was finished stays.
        SourceError: There is no footage.
        UsageError: An option can't be meant.
    """
    folder, card_path = Path(out), Path(dnn).absolute()
    settings, sampling = settings or LabelSettings(), sampling or Sampling()
    if not isinstance(workers, Workers):
        workers = _local_workers(workers, device)
    # Alone on its machine, the one process may take all of it.
    threads = None if workers.is_this_process else 1
    started = time.monotonic()
    try:
        run = _Run(folder, read_card(card_path), settings, sampling, find_footage(footage), restart, progress)
        work = partial(work_here, card=card_path, settings=settings, threads=threads, device=device)
        workers.in_order(run.readings(), read_jobs, work, run.settle)
        run.finish()
    except BrokenProcessPool as error:
        raise LabelError(
            "a labelling process died, perhaps out of memory: use fewer --workers (finished labels are kept)"
        ) from error
    except OSError as error:
        # Footage and weights that can't be read are OSErrors too, and say more.
        if isinstance(error, AccmpegError):
            raise
        raise LabelError(
            f"can't write labels to {folder}: {error.strerror or error}; finished ones are kept"
        ) from error
    reasons = tuple(str(entry["reason"]) for entry in run.skipped)
    took_s = time.monotonic() - started
    report = LabelReport(run.new, run.kept, len(run.skipped), took_s, reasons, run.flat)
    if not run.journal.labels:
        raise LabelError(run.nothing_labelled())
    if report.new and not report.kept and report.flat == report.new:
        raise LabelError(
            f"no label in {folder} tells one macroblock from another: the result of {run.name} does not "
            "depend on these frames; see what it finds with `accmpeg models check CARD --image FRAME "
            "-o drawn.png`, correct the card, and label again with --restart"
        )
    return report


class _Run:
    """The state of one labelling run: what is asked for, what is on disk, what has been done."""

    def __init__(
        self,
        folder: Path,
        card: DnnCard,
        settings: LabelSettings,
        sampling: Sampling,
        footage: Sequence[Footage],
        restart: bool,
        progress: Progress | None,
    ) -> None:
        self._folder, self._settings, self._sampling, self._progress = folder, settings, sampling, progress
        self._footage = [
            Reading(
                item.location,
                item.kind,
                item.clip,
                item.source,
                sampling,
                settings.max_side_px,
            )
            for item in footage
        ]
        # As it is now: what is added while it is read may be missed.
        self._extents = {each.source: _extent(each) for each in self._footage}
        self._dnn = {"name": card.name, "task": card.task, "sha256": card.sha256}
        folder.mkdir(parents=True, exist_ok=True)
        if restart:
            _clear(folder)
        self._card = _decisive(card)
        self._manifest = read_manifest(folder) or {"dnn": self._dnn, "settings": asdict(settings)}
        self._check_same()
        self._manifest["card"] = self._card
        self._manifest["dnn"] = self._dnn | {"input": card.input.model_dump(mode="json")}
        write_manifest(folder, self._manifest)
        self.journal = Journal.read(folder)
        self._incomplete = self.journal.forget_missing()
        self.name = card.name
        self.new = self.kept = self.flat = 0
        self.skipped: list[dict[str, Any]] = []
        self._number = self.journal.next_number
        self.expected = sum(map(expected_frames, self._footage))

    @property
    def done(self) -> int:
        return self.new + self.kept + len(self.skipped)

    def _check_same(self) -> None:
        # Label sets of older versions say less about the card.
        card = self._manifest.get("card", self._card)
        found = {**self._manifest["dnn"], **self._manifest["settings"], **_flat(card)}
        asked = {**self._dnn, **asdict(self._settings), **_flat(self._card)}
        for name in (*asked, *_flat(card)):
            if found.get(name) != asked.get(name):
                raise LabelError(
                    f"{self._folder} holds labels made with {name} {found.get(name)}, not {asked.get(name)}: "
                    "give another folder, or --restart to delete them"
                )

    def readings(self) -> Iterator[Reading]:
        """Footage with frames still to label."""
        for reading in self._footage:
            labels = self.journal.labels.items()
            labelled = {
                index: entry.get("checksum") for (origin, index), entry in labels if origin == reading.source
            }
            if labelled and self._is_finished(reading.source):
                self.kept += len(labelled)
            else:
                yield replace(reading, labelled=labelled)

    def settle(self, made: Outcome | Passed) -> None:
        """Files what became of a frame; raises `LabelError` for a reason to stop, `OSError` (full disk)."""
        if isinstance(made, Passed):
            if made.fatal:
                raise LabelError(f"{made.reasons[0]}, or begin anew with --restart")
            self.kept += made.kept
            for reason in made.reasons:
                self._skip(made.source, made.clip, None, reason)
        else:
            self._file(made)
        if self._progress is not None:
            self._progress(self.done, self.expected or None)

    def _file(self, made: Outcome) -> None:
        if made.fatal:
            raise LabelError(f"{made.reason}; finished labels are kept")
        number, self._number = self._number, self._number + 1
        if made.reason is not None:
            self._skip(made.source, made.clip, made.frame_index, made.reason)
            return
        write_whole(label_file(self._folder, number), made.packed)
        file = label_file(Path(), number)
        self.journal.add(made.source, made.frame_index, made.clip, file, made.checksum)
        self.new += 1
        self.flat += made.flat

    def _skip(self, source: str, clip: str, frame_index: int | None, reason: str) -> None:
        self.skipped.append({"source": source, "clip": clip, "frame_index": frame_index, "reason": reason})

    def _is_finished(self, source: str) -> bool:
        """Whether an earlier run sampled this clip to its end in the same way, and it has not grown since."""
        before = None if source in self._incomplete else self._manifest.get("footage", {}).get(source)
        if before is None or before["sampling"] != asdict(self._sampling):
            return False
        # Label sets of older versions don't say how long it was.
        return before.get("extent") in (None, self._extents[source])

    def finish(self) -> None:
        """Completes the manifest: footage, counts, and what was skipped with its reasons."""
        unfinished = {entry["source"] for entry in self.skipped}
        finished = {
            each.source: {
                "clip": each.clip,
                "kind": each.kind,
                "sampling": asdict(self._sampling),
                "extent": self._extents[each.source],
            }
            for each in self._footage
            if each.source not in unfinished
        }
        self._manifest |= {
            "counts": {"labels": len(self.journal.labels), "skipped": len(self.skipped)},
            "footage": self._manifest.get("footage", {}) | finished,
            "skipped": self.skipped,
        }
        write_manifest(self._folder, self._manifest)

    def nothing_labelled(self) -> str:
        """Why there is no label at all, for an error message."""
        reason = self.skipped[0]["reason"] if self.skipped else "no footage was given"
        return f"nothing could be labelled: {reason}"


def _extent(reading: Reading) -> int | None:
    """A file's bytes or a folder's pictures, which a recorder may add to; None where it is elsewhere."""
    path = Path(reading.location)
    if is_shared_address(reading.location) or not path.exists():
        return None
    return len(folder_pictures(path)) if path.is_dir() else path.stat().st_size


def _decisive(card: DnnCard) -> dict[str, Any]:
    """Whatever of a card decides the answers, beside the weights: a corrected one means other labels."""
    unsaid = {"name", "task", "sha256", "classes", "source", "licence"}
    if card.sha256 is not None:
        unsaid.add("model")  # where the weights lie
    if not get_adapter(card.adapter).runs_here:
        unsaid.add("options")  # where the server is
    return card.model_dump(mode="json", exclude=unsaid)


def _flat(document: dict[str, Any], section: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{section}{key}.") if isinstance(value, dict) else {f"{section}{key}": value}
    return flat


def _local_workers(count: int | None, device: str) -> LocalWorkers:
    if count is None:
        count = 1 if device != "cpu" else min(os.cpu_count() or 1, 8)
    if count < 1:
        raise UsageError(f"--workers {count}: give 1 or more")
    if count > 1 and device != "cpu":
        raise UsageError(f"--workers {count} --device {device}: a GPU is used by one process")
    return LocalWorkers(count)


def _clear(folder: Path) -> None:
    """Deletes the labels, journal and manifest of a label set, and nothing else; raises `OSError`."""
    for numbered in folder.glob("[0-9][0-9][0-9][0-9]"):
        shutil.rmtree(numbered)
    for name in (JOURNAL_NAME, MANIFEST_NAME):
        (folder / name).unlink(missing_ok=True)
