"""Making label sets: footage in, one label per sampled frame out, resumable and on several processes.

```
footage ─▶ decode, sample, cap size ─▶ H, L through libx264 ─▶ D(H) ─▶ AccGrad ─▶ NNNN/NNNNNN.npz ─▶ journal
           (this process)              └───────────── worker processes ─────────────────────────┘
```
"""

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from av import VideoFrame
from av.video.reformatter import Interpolation

from accmpeg.dnn.card import DnnCard, read_card
from accmpeg.errors import AccmpegError, LabelError, MediaError, UsageError
from accmpeg.media.source import Footage, find_footage, open_source, read_still
from accmpeg.training.labels import (
    JOURNAL_NAME,
    MANIFEST_NAME,
    Journal,
    label_file,
    read_manifest,
    write_manifest,
)
from accmpeg.training.settings import LabelSettings, Sampling
from accmpeg.training.worker import Job, Labeller, Outcome, start_worker, work_here

__all__ = ["LabelReport", "label_footage"]

QUEUED_JOBS_PER_WORKER = 2

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
    workers: int | None = None,
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
            this process, with all threads; with more, a script needs a `__main__` guard.
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
    folder, card_path = Path(out), Path(dnn)
    settings, sampling = settings or LabelSettings(), sampling or Sampling()
    if workers is None:
        workers = 1 if device != "cpu" else min(os.cpu_count() or 1, 8)
    if workers < 1:
        raise UsageError(f"--workers {workers}: give 1 or more")
    if workers > 1 and device != "cpu":
        raise UsageError(f"--workers {workers} --device {device}: a GPU is used by one process")
    started = time.monotonic()
    try:
        run = _Run(folder, read_card(card_path), settings, sampling, find_footage(footage), restart)
        jobs = run.jobs()
        if workers == 1:
            labeller = Labeller(card_path, settings, device=device)
            outcomes = ((job, labeller.work(job, folder)) for job in jobs)
        else:
            outcomes = _outcomes_of_pool(card_path, settings, jobs, folder, workers)
        with closing(outcomes):
            _settle_all(run, outcomes, progress)
        run.finish()
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
    ) -> None:
        self._folder, self._settings, self._sampling, self._footage = folder, settings, sampling, footage
        self._dnn = {"name": card.name, "task": card.task, "sha256": card.sha256}
        folder.mkdir(parents=True, exist_ok=True)
        if restart:
            _clear(folder)
        self._manifest = read_manifest(folder) or {"dnn": self._dnn, "settings": asdict(settings)}
        self._check_same()
        self._manifest["dnn"] = self._dnn | {"input": card.input.model_dump(mode="json")}
        write_manifest(folder, self._manifest)
        self.journal = Journal.read(folder)
        self.name = card.name
        self.new = self.kept = self.flat = 0
        self.skipped: list[dict[str, Any]] = []
        self.expected = sum(_expected_frames(item, sampling) for item in footage)

    @property
    def done(self) -> int:
        return self.new + self.kept + len(self.skipped)

    def _check_same(self) -> None:
        found = {**self._manifest["dnn"], **self._manifest["settings"]}
        asked = {**self._dnn, **asdict(self._settings)}
        for name in sorted(asked):
            if found.get(name) != asked[name]:
                raise LabelError(
                    f"{self._folder} holds labels made with {name} {found.get(name)}, not {asked[name]}: "
                    "give another folder, or --restart to delete them"
                )

    def jobs(self) -> Iterator[Job]:
        """Frames still to label, decoded one after the other; unreadable footage is noted and passed over."""
        number = self.journal.next_number
        for item in self._footage:
            source = str(item.path.resolve())
            labelled = {index for origin, index in self.journal.labels if origin == source}
            if labelled and self._is_finished(source):
                self.kept += len(labelled)
                continue
            try:
                for index, frame in self._sampled_frames(item):
                    if index in labelled:
                        self.kept += 1
                        continue
                    yield Job.of(_capped(frame, self._settings.max_side_px), number, item.clip, source, index)
                    number += 1
            except MediaError as error:
                self._skip(source, item.clip, None, str(error))

    def _sampled_frames(self, item: Footage) -> Iterator[tuple[int, VideoFrame]]:
        """The sampled frames of one piece of footage with their indices; raises `MediaError`."""
        if item.kind == "still":
            yield 0, read_still(item.path)
            return
        taken = 0
        with open_source(item.path) as source:
            for index, frame in enumerate(source):
                if index % self._sampling.every == 0:
                    yield index, frame
                    taken += 1
                    if taken == self._sampling.limit:
                        break
            for reason in source.skipped_pictures:
                self._skip(str(item.path.resolve()), item.clip, None, reason)

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Notes in the journal what became of a job; raises `LabelError` for a reason to stop."""
        if outcome.fatal:
            raise LabelError(f"{outcome.reason}; finished labels are kept")
        if outcome.reason is not None:
            self._skip(job.source, job.clip, job.frame_index, outcome.reason)
            return
        self.journal.add(job.source, job.frame_index, job.clip, label_file(Path(), job.number))
        self.new += 1
        self.flat += outcome.flat

    def _skip(self, source: str, clip: str, frame_index: int | None, reason: str) -> None:
        self.skipped.append({"source": source, "clip": clip, "frame_index": frame_index, "reason": reason})

    def _is_finished(self, source: str) -> bool:
        """Whether an earlier run sampled this clip to its end in the same way."""
        before = self._manifest.get("footage", {}).get(source)
        return before is not None and before["sampling"] == asdict(self._sampling)

    def finish(self) -> None:
        """Completes the manifest: footage, counts, and what was skipped with its reasons."""
        unfinished = {entry["source"] for entry in self.skipped}
        finished = {
            source: {"clip": item.clip, "kind": item.kind, "sampling": asdict(self._sampling)}
            for item in self._footage
            if (source := str(item.path.resolve())) not in unfinished
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


def _settle_all(
    run: _Run, outcomes: Generator[tuple[Job, Outcome], None, None], progress: Progress | None
) -> None:
    """Notes every outcome; on Ctrl-C also those of the frames that were in work."""
    current: tuple[Job, Outcome] | None = None
    try:
        for current in outcomes:
            run.settle(*current)
            current = None
            if progress is not None:
                progress(run.done, run.expected)
    except KeyboardInterrupt as interrupt:
        # It comes as likely here as inside the generator, which then has not yet heard of it.
        with suppress(KeyboardInterrupt):
            if current is not None:
                run.settle(*current)
            current = outcomes.throw(interrupt)
            while True:
                run.settle(*current)
                current = next(outcomes)
        raise


def _outcomes_of_pool(
    card_path: Path, settings: LabelSettings, jobs: Iterator[Job], folder: Path, workers: int
) -> Generator[tuple[Job, Outcome], None, None]:
    """Runs jobs on spawned processes; on Ctrl-C the frames in work are still finished and handed out."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), start_worker, (card_path, settings))
    running: dict[Future[Outcome], Job] = {}
    try:
        for job in jobs:
            running[pool.submit(work_here, job, folder)] = job
            while len(running) >= QUEUED_JOBS_PER_WORKER * workers:
                yield from _settled(running)
        while running:
            yield from _settled(running)
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)
        for future in [future for future in running if future.cancelled()]:
            del running[future]
        while running:
            yield from _settled(running)
        raise
    except BrokenProcessPool as error:
        raise LabelError(
            "a labelling process died, perhaps out of memory: use fewer --workers (finished labels are kept)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _settled(running: dict[Future[Outcome], Job]) -> Iterator[tuple[Job, Outcome]]:
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        yield running.pop(future), future.result()


def _expected_frames(item: Footage, sampling: Sampling) -> int:
    """How many frames a piece of footage should give; 0 where it does not say."""
    if item.kind == "still":
        return 1
    try:
        with open_source(item.path) as source:
            frames = source.info.frame_count or 0
    except MediaError:
        return 0
    sampled = -(-frames // sampling.every)
    return sampled if sampling.limit is None else min(sampled, sampling.limit)


def _capped(frame: VideoFrame, max_side_px: int) -> VideoFrame:
    """The frame, scaled down to even sides where its long side exceeds `max_side_px`."""
    long_side = max(frame.width, frame.height)
    if long_side <= max_side_px:
        return frame
    width_px, height_px = (
        max(2, round(side * max_side_px / long_side / 2) * 2) for side in (frame.width, frame.height)
    )
    return frame.reformat(width=width_px, height=height_px, interpolation=Interpolation.AREA, threads=1)


def _clear(folder: Path) -> None:
    """Deletes the labels, journal and manifest of a label set, and nothing else; raises `OSError`."""
    for numbered in folder.glob("[0-9][0-9][0-9][0-9]"):
        shutil.rmtree(numbered)
    for name in (JOURNAL_NAME, MANIFEST_NAME):
        (folder / name).unlink(missing_ok=True)
