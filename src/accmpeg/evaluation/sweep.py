"""Clips × server DNNs × methods × operating points: resumable, cached, on several processes.

```
plan ─▶ groups (clip, server DNN) ─▶ worker process: decode once, reference results once ─▶ cell, cell, …
                                                                      └─▶ one appended line per finished cell
```

A cell is known by the hash of everything its figures depend on. Cells whose line is in `cells.jsonl` are
never measured again, so a sweep that was killed goes on where it was.
"""

import errno
import math
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from accmpeg.accmodel.runtime import AccModel
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.errors import EvaluationError
from accmpeg.evaluation.cache import StreamCache, content_hash, read_results, write_results
from accmpeg.evaluation.labels import in_classes_of
from accmpeg.evaluation.link import emulate, paper_delay_s
from accmpeg.evaluation.methods import Method, MethodContext, OperatingPoint, find_methods
from accmpeg.evaluation.pictures import PICTURED_METHOD, picture_frame, write_pictures
from accmpeg.evaluation.plan import ClipSpec, DnnSpec, Group, PlannedCell, SweepSettings, plan_clip
from accmpeg.evaluation.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.run import Cell, evaluate, reference_results

__all__ = ["run_sweep"]

_CACHE_NAME = "cache"
_POLL_S = 0.5


def run_sweep(
    clips: Sequence[ClipSpec],
    dnns: Sequence[DnnSpec],
    methods: Sequence[Method],
    folder: Path,
    settings: SweepSettings,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CellRow]:
    """Measures what is missing in `folder` and returns the rows of the whole plan, in the plan's order.

    `progress` is told (cells done, cells in all). A cell that fails is a row with its reason. On Ctrl-C the
    cells in work are finished first. Raises EvaluationError where the folder can't be written or a worker
    dies; what was finished stays.
    """
    plan = [group for clip in clips for group in plan_clip(clip, dnns, methods, settings)]
    cells_file = folder / CELLS_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = {row.key: row for row in _mended(cells_file)}
    except OSError as error:
        raise EvaluationError(f"can't use {folder}: {error.strerror}; give another --out") from error
    if retry_failed:
        known = {key: row for key, row in known.items() if row.status == "ok"}
    missing = [
        Group(group.clip, group.dnn, tuple(cell for cell in group.cells if cell.key not in known))
        for group in plan
    ]
    missing = [group for group in missing if group.cells]
    total = sum(len(group.cells) for group in plan)
    done = total - sum(len(group.cells) for group in missing)
    progress(done, total)
    _run_groups(missing, folder, settings, workers or os.cpu_count() or 1, done, total, progress)
    latest = {row.key: row for row in read_rows(cells_file)}
    return [latest[cell.key] for group in plan for cell in group.cells if cell.key in latest]


def _mended(cells_file: Path) -> list[CellRow]:
    """The rows so far; a last line that a kill cut off is removed, so that the next one starts afresh."""
    rows = read_rows(cells_file)
    if cells_file.exists():
        content = cells_file.read_bytes()
        if content and not content.endswith(b"\n"):
            with cells_file.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    return rows


def _run_groups(
    groups: Sequence[Group],
    folder: Path,
    settings: SweepSettings,
    workers: int,
    done: int,
    total: int,
    progress: Callable[[int, int], None],
) -> None:
    if not groups:
        return
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(groups)), context, _start_worker, (stop,))
    before = _line_count(folder / CELLS_NAME)
    try:
        waiting: set[Future[None]] = {pool.submit(_work, group, folder, settings) for group in groups}
        while waiting:
            finished, waiting = wait(waiting, timeout=_POLL_S)
            for future in finished:
                future.result()
            progress(done + _line_count(folder / CELLS_NAME) - before, total)
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a worker died, perhaps out of memory: use fewer --workers or a smaller --limit "
            "(finished cells are kept)"
        ) from error
    except OSError as error:
        raise EvaluationError(
            f"can't write to {folder}: {error.strerror or error}; finished cells are kept"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _line_count(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


_stop: Event | None = None
_dnns: dict[Path, ServerDnn] = {}


def _start_worker(stop: Event) -> None:
    """Prepares a spawned process; Ctrl-C is left to the parent, which lets it finish its cell."""
    global _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop = stop


def _work(group: Group, folder: Path, settings: SweepSettings) -> None:
    """Measures the cells of one clip and server DNN, and appends a line for each."""
    bench: _Bench | None = None
    failure: Exception | None = None
    try:
        bench = _Bench(group, folder, settings)
    except Exception as error:  # whatever is wrong with a clip or a network belongs into its rows
        if _is_disk_failure(error):
            raise
        failure = error
    for cell in group.cells:
        if _stop is not None and _stop.is_set():
            return
        if bench is None:
            assert failure is not None
            row = _failed(group, cell, failure)
        else:
            try:
                row = bench.measure(cell)
            except Exception as error:  # one method's failure must not end the others' sweep
                if _is_disk_failure(error):
                    raise
                row = _failed(group, cell, error)
        _append(folder / CELLS_NAME, row)


def _is_disk_failure(error: Exception) -> bool:
    """A full or read-only disk stops a sweep: the next cell could not be written either."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def _append(file: Path, row: CellRow) -> None:
    # One write to a file opened for appending: lines of several processes do not mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, row.to_line().encode())
    finally:
        os.close(descriptor)


def _failed(group: Group, cell: PlannedCell, error: Exception) -> CellRow:
    reason = " ".join(str(error).split()) or "no reason given"
    return CellRow(
        key=cell.key,
        status="failed",
        reason=f"{type(error).__name__}: {reason}"[:500],
        role=cell.role,
        clip=group.clip.name,
        dnn=group.dnn.card.name,
        task=group.dnn.card.task,
        method=cell.method,
        quality=cell.quality,
    )


class _Bench:
    """A clip in memory with its reference results, ready for any method."""

    def __init__(self, group: Group, folder: Path, settings: SweepSettings) -> None:
        self._group, self._folder, self._settings = group, folder, settings
        cache = folder / _CACHE_NAME
        spec = group.dnn
        clip = group.clip.open(settings.limit)
        labels = None
        if clip.labels is not None and spec.card.task == "detection":
            labels = in_classes_of(clip.labels, clip.label_classes, spec.card.classes)
        self._clip = replace(clip, name=group.clip.name, labels=labels)
        if spec.card_file not in _dnns:
            _dnns[spec.card_file] = load_dnn(spec.card_file, threads=1)
        self._context = MethodContext(
            _dnns[spec.card_file],
            spec.card_file,
            None if spec.accmodel_file is None else AccModel.load(spec.accmodel_file),
            every=settings.every,
            feedback_delay_s=settings.feedback_delay_s,
            streams=StreamCache(cache, content_hash(group.clip.sha256, settings.limit)),
        )
        name = content_hash(
            group.clip.sha256, spec.card.model_dump(mode="json"), settings.limit, settings.step
        )
        file = cache / f"reference-{name[:32]}.npz"
        references = read_results(file)
        if references is None:
            references = reference_results(self._clip, self._context, settings.step)
            write_results(file, references)
        self._references = references
        boxes = [self._context.dnn.task.object_boxes(result) for result in references]
        counts = [len(own) for own in boxes if own is not None]
        self._objects = sum(counts) if len(counts) == len(boxes) else None

    def measure(self, cell: PlannedCell) -> CellRow:
        settings, clip = self._settings, self._clip
        (method,) = find_methods(cell.method)
        pictured = settings.pictures and self._is_pictured(cell)
        index = picture_frame(clip, settings.step)
        measured = evaluate(
            clip,
            method,
            OperatingPoint(quality=cell.quality),
            self._context,
            self._references,
            step=settings.step,
            keep=frozenset([index]) if pictured else frozenset(),
        )
        if pictured:
            write_pictures(
                self._folder, clip, index, settings.step, self._context, measured, self._references
            )
        return self._row(cell, measured, uses_accmodel=getattr(method, "needs_accmodel", True))

    def _is_pictured(self, cell: PlannedCell) -> bool:
        middle = sorted(self._settings.points)[len(self._settings.points) // 2]
        return cell.method == PICTURED_METHOD and cell.role == "method" and cell.quality == middle

    def _row(self, cell: PlannedCell, measured: Cell, *, uses_accmodel: bool) -> CellRow:
        clip, settings, card = self._clip, self._settings, self._group.dnn.card
        frames = len(clip.frames)
        server_ms = sum(ms for stage, ms in measured.stage_ms.items() if stage.startswith("server: "))
        mean_ms, p50_ms, p95_ms, paper_s = {}, {}, {}, {}
        for name, link in settings.links.items():
            delays_ms = np.asarray(emulate(measured.flows, frames, link).delays_ms)
            mean_ms[name] = round(float(delays_ms.mean()), 3)
            p50_ms[name], p95_ms[name] = (round(float(p), 3) for p in np.percentile(delays_ms, [50, 95]))
            if link.bandwidth_bps is not None:
                paper_s[name] = round(
                    paper_delay_s(measured.size_bytes, frames, link.bandwidth_bps, accmodel=uses_accmodel), 4
                )
        return CellRow(
            key=cell.key,
            role=cell.role,
            clip=self._group.clip.name,
            dnn=card.name,
            task=card.task,
            method=cell.method,
            quality=cell.quality,
            frames=frames,
            frame_rate=round(float(clip.frame_rate), 4),
            width_px=clip.width_px,
            height_px=clip.height_px,
            step=settings.step,
            bytes=measured.size_bytes,
            uplink_bytes=measured.uplink_bytes,
            downlink_bytes=measured.downlink_bytes,
            bitrate_bps=round(measured.bitrate_bps, 1),
            accuracy=round(measured.accuracy.value, 6),
            accuracy_per_frame=round(measured.accuracy.per_frame_mean, 6),
            measures={
                name: round(value, 6)
                for name, value in measured.accuracy.extras.items()
                if math.isfinite(value)
            },
            objects=self._objects,
            label_accuracy=(
                None if measured.label_accuracy is None else round(measured.label_accuracy.value, 6)
            ),
            camera_ms=round(measured.camera_ms_per_frame, 4),
            server_ms=round(server_ms + measured.infer_ms, 4),
            infer_ms=round(measured.infer_ms, 4),
            stage_ms={stage: round(ms, 4) for stage, ms in measured.stage_ms.items()},
            delay_mean_ms=mean_ms,
            delay_p50_ms=p50_ms,
            delay_p95_ms=p95_ms,
            paper_delay_s=paper_s,
        )
