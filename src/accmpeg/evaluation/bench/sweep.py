"""Clips × server DNNs × methods × operating points: resumable, cached, on several processes.

```
plan ─▶ groups (clip, server DNN) ─┬▶ one process: rehearsals, which fix what every stage costs
                                   └▶ worker processes: references once ─▶ cell, cell, … ─▶ a line each
```
Where there are more workers than groups, several share the methods of one, once its references are there.

A cell is known by the hash of everything its figures depend on. Cells whose line is in `cells.jsonl` are
never measured again, so a sweep that was killed goes on where it was.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.cache import stops_all
from accmpeg.evaluation.bench.measure import Bench
from accmpeg.evaluation.bench.plan import NULL_METHOD, ClipSpec, DnnSpec, Group
from accmpeg.evaluation.bench.record import write_record
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.methods import Method
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.workers import LocalWorkers, Workers

__all__ = ["run_sweep", "shares_of"]


@dataclass(frozen=True)
class _Share:
    """What one worker measures of a group: its common cells, and those of these methods, if any."""

    group: Group
    methods: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.group)


def shares_of(groups: int, methods: int, workers: int) -> int:
    """Into how many parts each group's methods are divided, so that no worker is without work."""
    return max(1, min(methods, workers // max(1, groups)))


def run_sweep(
    clips: Sequence[ClipSpec],
    dnns: Sequence[DnnSpec],
    methods: Sequence[Method],
    folder: Path,
    settings: SweepSettings,
    *,
    primary: Sequence[str] = (),
    workers: int | Workers | None = None,
    retry_failed: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[CellRow]:
    """Measures what is missing in `folder` and returns the rows of the whole sweep, clip by clip.

    `primary` are the comparisons named beforehand, for `run.json`. `progress` is told what is going on, and
    how much of it is done. A cell that fails is a row with its reason. On Ctrl-C the cells in work are
    finished first. Raises EvaluationError where the folder holds what can't be gone on with or another run
    measures in it (nothing is touched then), where it can't be written or where a worker dies; what was
    finished stays.
    """
    names = tuple(method.name for method in methods)
    groups = [Group(clip, dnn, names) for clip in clips for dnn in dnns]
    if not isinstance(workers, Workers):
        workers = LocalWorkers(workers or os.cpu_count() or 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            rows = read_rows(folder / CELLS_NAME)
            _check_same_sweep(rows, groups, settings, folder)
            _mend(folder / CELLS_NAME, rows)
            write_record(folder, clips, dnns, methods, settings, primary=primary)
            return _swept(groups, rows, folder, settings, workers, progress, retry_failed=retry_failed)
    except OSError as error:
        raise EvaluationError(f"can't use {folder}: {error.strerror}; give another --output") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two runs would disturb each other's timings, and cells of one curve would have two sets of costs."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise EvaluationError(
            f"another run is measuring in {folder}: let it end, or give another --output"
        ) from error
    except OSError:  # a shared file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _swept(
    groups: Sequence[Group],
    rows: Sequence[CellRow],
    folder: Path,
    settings: SweepSettings,
    workers: Workers,
    progress: Callable[[str, int, int], None],
    *,
    retry_failed: bool,
) -> list[CellRow]:
    """Measures what `rows` lack, and returns all."""
    names, cells_file = groups[0].method_names, folder / CELLS_NAME
    points = len(settings.qualities) or settings.points

    def known(group: Group) -> dict[str, CellRow]:
        rows = _rows_so_far(cells_file, cells_file.stat().st_size if cells_file.exists() else 0)
        own = (row for row in rows if (row.clip, row.dnn) == (group.clip.name, group.dnn.card.name))
        return {row.key: row for row in own if row.status == "ok" or not retry_failed}

    heavy_first = sorted(groups, key=lambda group: -group.clip.weight)
    keep = partial(_append, file=cells_file)
    try:
        # Alone on the machine: what runs beside a timing is in it.
        workers.as_finished(
            heavy_first,
            _rehearse,
            lambda group: (group, folder, settings),
            keep,
            lambda done: progress("costs", done, len(groups)),
            alone=True,
        )
        # Ceiling and uncoded frames; the null comparison lies between points.
        others = 2 + (points - 1 if NULL_METHOD in names else 0)
        total = len(groups) * (len(names) * points + others)
        ours = [row for row in _of_sweep(rows, groups) if row.status == "ok" or not retry_failed]
        before = _line_count(cells_file) - len(ours)

        def measure(shares: Sequence[_Share]) -> None:
            workers.as_finished(
                shares,
                _measure,
                lambda share: (share, folder, settings, known(share.group)),
                keep,
                lambda _: progress("cells", _line_count(cells_file) - before, total),
            )

        shares = shares_of(len(groups), len(names), workers.count)
        if shares > 1 and (new := [group for group in heavy_first if not _is_opened(known(group))]):
            measure([_Share(group, ()) for group in new])
        measure([_Share(group, names[n::shares]) for group in heavy_first for n in range(shares)])
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a worker died, perhaps out of memory: use fewer --workers or less footage (finished cells are "
            "kept)"
        ) from error
    except OSError as error:
        raise EvaluationError(
            f"can't write to {folder}: {error.strerror or error}; finished cells are kept"
        ) from error
    return _of_sweep(read_rows(cells_file), groups)


def _of_sweep(rows: Iterable[CellRow], groups: Sequence[Group]) -> list[CellRow]:
    """The newest row of each of the sweep's cells, clip by clip and then method by method, however many
    workers finished them in whatever order; a folder may hold other methods' too."""
    order = {(group.clip.name, group.dnn.card.name): number for number, group in enumerate(groups)}
    names = {name: number for group in groups for number, name in enumerate(group.method_names)}
    latest = {row.key: row for row in rows}
    wanted = [
        row
        for row in latest.values()
        if (row.clip, row.dnn) in order and (row.method in names or row.role in ("ceiling", "uncoded"))
    ]

    def place(row: CellRow) -> tuple[int, int]:
        common = row.role in ("ceiling", "uncoded")
        return order[row.clip, row.dnn], -1 if common else names[row.method]

    return sorted(wanted, key=place)


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
                "models, labels, code of the method or another version: start anew with another --output "
                "(nothing in it was touched)"
            )


def _mend(cells_file: Path, rows: Sequence[CellRow]) -> None:
    """Removes a last line that a kill cut off, so that the next one starts afresh; unpacks packed rows."""
    if rows and not cells_file.exists():
        cells_file.write_text("".join(row.to_line() for row in rows), encoding="utf-8")
    content = cells_file.read_bytes() if cells_file.exists() else b""
    if content and not content.endswith(b"\n"):
        with cells_file.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


@lru_cache(maxsize=1)
def _rows_so_far(cells_file: Path, size_bytes: int) -> list[CellRow]:
    """Read again only where the file has grown: a group that a death interrupted goes on from there."""
    return read_rows(cells_file)


def _line_count(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _rehearse(group: Group, folder: Path, settings: SweepSettings) -> Iterator[CellRow]:
    """Fixes the costs of a group's methods, if they are not known yet; makes no rows."""
    bench = Bench(group, folder, settings)
    if not bench.costs_are_known:
        try:
            bench.rehearse()
        except Exception as error:  # whatever is wrong with a clip or a network: its cells will say so
            if stops_all(error):
                raise
    yield from ()


def _is_opened(known: Mapping[str, CellRow]) -> bool:
    """Whether a group has its references and a ceiling."""
    return any(row.role == "ceiling" for row in known.values())


def _measure(
    share: _Share, folder: Path, settings: SweepSettings, known: dict[str, CellRow]
) -> Iterator[CellRow]:
    """The cells of one clip and server DNN that are missing."""
    bench = Bench(share.group, folder, settings)
    rows = bench.cells(known, share.methods) if share.methods else bench.common_cells(known)
    return (row for row in rows if row.key not in known)


def _append(row: CellRow, *, file: Path) -> None:
    # One write to a file opened for appending: lines of several processes do not mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    line = row.to_line().encode()
    try:
        # A disk that fills up takes a part of the line without an error; asked for the rest, it says why.
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)
