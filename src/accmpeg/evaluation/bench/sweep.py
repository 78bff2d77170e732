"""Clips × server DNNs × methods × operating points: resumable, cached, on several processes.

```
plan ─▶ groups (clip, server DNN) ─┬▶ one process: rehearsals, which fix what every stage costs
                                   └▶ worker processes: references once ─▶ cell, cell, … ─▶ a line each
```

A cell is known by the hash of everything its figures depend on. Cells whose line is in `cells.jsonl` are
never measured again, so a sweep that was killed goes on where it was.
"""

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.cache import is_disk_failure
from accmpeg.evaluation.bench.measure import Bench
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec, Group
from accmpeg.evaluation.bench.record import write_record
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.methods import Method
from accmpeg.evaluation.settings import SweepSettings

__all__ = ["run_sweep"]

_POLL_S = 0.5


def run_sweep(
    clips: Sequence[ClipSpec],
    dnns: Sequence[DnnSpec],
    methods: Sequence[Method],
    folder: Path,
    settings: SweepSettings,
    *,
    primary: Sequence[str] = (),
    workers: int | None = None,
    retry_failed: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[CellRow]:
    """Measures what is missing in `folder` and returns the rows of the whole sweep, clip by clip.

    `primary` are the comparisons named beforehand, for `run.json`. `progress` is told what is going on, and
    how much of it is done. A cell that fails is a row with its reason. On Ctrl-C the cells in work are
    finished first. Raises EvaluationError where the folder holds what can't be gone on with (nothing is
    touched then), where it can't be written or where a worker dies; what was finished stays.
    """
    names = tuple(method.name for method in methods)
    groups = [Group(clip, dnn, names) for clip in clips for dnn in dnns]
    cells_file = folder / CELLS_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = read_rows(cells_file)
        _check_same_sweep(rows, groups, settings, folder)
        _mend(cells_file, rows)
        write_record(folder, clips, dnns, methods, settings, primary=primary)
        known = {row.key: row for row in rows}
    except OSError as error:
        raise EvaluationError(f"can't use {folder}: {error.strerror}; give another --out") from error
    if retry_failed:
        known = {key: row for key, row in known.items() if row.status == "ok"}
    heavy_first = sorted(groups, key=lambda group: -group.clip.weight)
    try:
        rehearsing = partial(progress, "costs")
        # Alone on the machine: what runs beside a timing is in it.
        _run_all(heavy_first, _rehearse, (folder, settings), 1, lambda done: rehearsing(done, len(groups)))
        total = len(groups) * (len(methods) * settings.points + 2)
        clip_names = {group.clip.name for group in groups}
        ours = sum(row.clip in clip_names and row.method in names for row in known.values())
        before = _line_count(cells_file) - ours
        _run_all(
            heavy_first,
            _measure,
            (folder, settings, known),
            workers or os.cpu_count() or 1,
            lambda _: progress("cells", _line_count(cells_file) - before, total),
        )
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a worker died, perhaps out of memory: use fewer --workers or a smaller --limit "
            "(finished cells are kept)"
        ) from error
    except OSError as error:
        raise EvaluationError(
            f"can't write to {folder}: {error.strerror or error}; finished cells are kept"
        ) from error
    order = {(group.clip.name, group.dnn.card.name): number for number, group in enumerate(groups)}
    latest = {row.key: row for row in read_rows(cells_file)}
    wanted = [
        row
        for row in latest.values()
        if (row.clip, row.dnn) in order and (row.method in names or row.role in ("ceiling", "uncoded"))
    ]
    return sorted(wanted, key=lambda row: order[row.clip, row.dnn])


def _check_same_sweep(
    rows: Iterable[CellRow], groups: Sequence[Group], settings: SweepSettings, folder: Path
) -> None:
    """One folder, one kind of figures: a curve of cells with two limits would be no curve."""
    by_name = {(group.clip.name, group.dnn.card.name): group for group in groups}
    for row in rows:
        group = by_name.get((row.clip, row.dnn))
        shared = row.role in ("ceiling", "uncoded")
        if row.status == "failed" or group is None or not (shared or row.method in group.method_names):
            continue
        if row.key != group.cell_key(row.method, row.quality, row.role, settings):
            raise EvaluationError(
                f"{folder} holds cells of {row.method} on {row.clip} that were measured with other settings, "
                "models, labels or another version: start anew with another --out (nothing in it was touched)"
            )


def _mend(cells_file: Path, rows: Sequence[CellRow]) -> None:
    """Removes a last line that a kill cut off, so that the next one starts afresh; unpacks packed rows."""
    if rows and not cells_file.exists():
        cells_file.write_text("".join(row.to_line() for row in rows), encoding="utf-8")
    content = cells_file.read_bytes() if cells_file.exists() else b""
    if content and not content.endswith(b"\n"):
        with cells_file.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _run_all(
    groups: Sequence[Group],
    work: Callable[..., None],
    arguments: tuple[object, ...],
    workers: int,
    progress: Callable[[int], None],
) -> None:
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(groups)), context, _start_worker, (stop,))
    done = 0
    try:
        waiting: set[Future[None]] = {pool.submit(work, group, *arguments) for group in groups}
        while waiting:
            finished, waiting = wait(waiting, timeout=_POLL_S)
            for future in finished:
                future.result()
            done += len(finished)
            progress(done)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _line_count(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


_stop: Event | None = None


def _start_worker(stop: Event) -> None:
    """Prepares a spawned process; Ctrl-C is left to the parent, which lets it finish its cell."""
    global _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop = stop


def _stopped() -> bool:
    return _stop is not None and _stop.is_set()


def _rehearse(group: Group, folder: Path, settings: SweepSettings) -> None:
    """Fixes the costs of a group's methods, if they are not known yet."""
    if _stopped():
        return
    bench = Bench(group, folder, settings)
    if bench.costs_are_known:
        return
    try:
        bench.rehearse()
    except Exception as error:  # whatever is wrong with a clip or a network: its cells will say so
        if is_disk_failure(error):
            raise


def _measure(group: Group, folder: Path, settings: SweepSettings, known: dict[str, CellRow]) -> None:
    """Measures the cells of one clip and server DNN that are missing, and appends a line for each."""
    bench = Bench(group, folder, settings)
    cells = bench.cells(known)
    row = next(cells, None)
    while row is not None:
        if row.key not in known:
            _append(folder / CELLS_NAME, row)
        if _stopped():
            return
        row = next(cells, None)


def _append(file: Path, row: CellRow) -> None:
    # One write to a file opened for appending: lines of several processes do not mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    line = row.to_line().encode()
    try:
        # A disk that fills up takes a part of the line without an error; asked for the rest, it says why.
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)
