"""Sweeps of one search: in one folder, in the time that there is, each told what it will take beforehand."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from accmpeg.evaluation.bench.cache import content_hash
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, ReferenceName, read_rows
from accmpeg.evaluation.bench.run import PLAIN_METHOD
from accmpeg.evaluation.bench.sweep import run_sweep, shares_of
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods.whole_stream import StreamSetting, whole_stream
from accmpeg.evaluation.profile.pace import Pace, Work
from accmpeg.evaluation.profile.parts import Parts
from accmpeg.evaluation.settings import PROPAGATION_MS, ProfileSettings, SweepSettings

__all__ = ["EARLY_PARTS", "EARLY_POINTS", "FINALISTS", "LATE_POINTS", "Measuring"]

EARLY_PARTS, FINALISTS, JUDGED = 2, 3, 6
EARLY_POINTS, LATE_POINTS = 4, 5
END_SHARE = 0.45
"""Of the time, at most, that is kept for measuring finalists on all parts and judging the choice."""


class Measuring:
    """Sweeps in one folder, in the time that there is; cells that are there are not measured again."""

    def __init__(
        self,
        parts: Parts,
        dnn: DnnSpec,
        folder: Path,
        settings: ProfileSettings,
        progress: Callable[[str, int, int], None],
        clock: Callable[[], float],
    ) -> None:
        self.parts, self.settings = parts, settings
        self.reference: ReferenceName = "own" if dnn.stronger is None else "confirmed"
        self._dnn, self._folder, self._progress, self._clock = dnn, folder, progress, clock
        self._workers = settings.workers or os.cpu_count() or 1
        self._tried: set[str] = set()
        accmodel = None if dnn.accmodel is None else dnn.accmodel.sha256
        # Another search may take up the cells, but has its own time.
        asked = content_hash(
            asdict(replace(settings, workers=None)),
            (dnn.card.name, dnn.card.sha256, accmodel, self.reference),
            [(part.name, part.sha256) for part in (*parts.choice, *parts.judging)],
        )
        file = folder / f"search-{asked[:12]}.json"
        self.pace = Pace(file, 60 * settings.minutes, self._workers, clock=clock)
        self._sweep = SweepSettings(
            step=parts.step,
            server_ms=settings.server_ms,
            links={"good link": Link(bandwidth_bps=20e6, propagation_ms=PROPAGATION_MS)},
            pictures=False,
        )

    def sweep(
        self, parts: Sequence[ClipSpec], streams: Sequence[StreamSetting], points: int, what: str
    ) -> list[CellRow]:
        """Measures the streams on the parts; returns all rows of these parts."""
        self._tried.update(each.name for each in streams)
        work = self.work(parts, streams, points)
        watch = _Watch(self._clock)

        def show(kind: str, done: int, total: int) -> None:
            watch.see(kind, done)
            self.pace.tick()
            self._progress(f"{what}: {kind}", done, total)

        run_sweep(
            parts,
            [self._dnn],
            [whole_stream(each.name) for each in dict.fromkeys(streams)],
            self._folder,
            replace(self._sweep, points=points),
            workers=self._workers,
            progress=show,
        )
        self.pace.learn(work, *watch.end())
        return self.rows(parts, points)

    def rows(self, parts: Sequence[ClipSpec], points: int) -> list[CellRow]:
        """Of the streams swept so far, as many points as were asked for.

        The folder may hold more: of another server DNN, or what this search found later the first time. Who
        sees that decides otherwise, and a search that is run again would not end as it did.
        """
        names, taken = {part.name for part in parts}, Counter[tuple[str, str]]()
        found = []
        for row in self._kept():
            if row.clip not in names or (row.role == "method" and row.method not in self._tried):
                continue
            taken[row.clip, row.method] += row.role == "method"
            if taken[row.clip, row.method] <= points:
                found.append(row)
        return found

    def _kept(self) -> Iterator[CellRow]:
        return (row for row in read_rows(self._folder / CELLS_NAME) if row.dnn == self._dnn.card.name)

    def work(self, parts: Sequence[ClipSpec], streams: Sequence[StreamSetting], points: int) -> Work:
        """What is still to be measured of the streams on the parts."""
        known = Counter((row.clip, row.method, row.role) for row in self._kept())
        pairs = [known[part.name, each.name, "method"] for part in parts for each in dict.fromkeys(streams)]
        return Work(
            rehearsals=sum(done == 0 for done in pairs),
            cells=sum(max(0, points - done) for done in pairs),
            new_parts=sum(not known[part.name, PLAIN_METHOD, "ceiling"] for part in parts),
            parts=len(parts),
            shares=shares_of(len(parts), len(set(streams)), self._workers),
        )

    def settle(
        self,
        what: str,
        choices: Iterable[tuple[int, Work]],
        *,
        then: Sequence[Work] = (),
        share: float = 1.0,
        reserve: Callable[[], float] = lambda: 0.0,
    ) -> int:
        """The largest of the choices that fits into a share of the time left, less what is to be kept.

        `then`: what has to follow each of them.
        """
        priced = [
            (number, self.pace.seconds(work), self.pace.seconds(then[place]) if then else 0.0)
            for place, (number, work) in enumerate(choices)
        ]
        return self.pace.settle(what, priced, lambda: share * (self.pace.left_s - reserve()))

    def end(self) -> float:
        """Seconds for finalists and judging, in full; no more than their share of all time."""
        full = self.finalists_work(FINALISTS, len(self.parts.choice)) + self.judging_work(
            len(self.parts.judging)
        )
        return min(self.pace.seconds(full), END_SHARE * self.pace.limit_s)

    def finalists_work(self, streams: int, number: int) -> Work:
        """Of streams and the plain one on the first parts, which the early ones among them know already."""
        more = max(0, number - EARLY_PARTS)
        early = min(number, EARLY_PARTS) * (LATE_POINTS - EARLY_POINTS)
        new = more * (streams + 1)
        shares = shares_of(number, streams + 1, self._workers)
        return Work(new, new * LATE_POINTS + early * (streams + 1), more, number, shares)

    def judging_work(self, number: int) -> Work:
        shares = shares_of(number, JUDGED, self._workers)
        return Work(number * JUDGED, number * JUDGED * LATE_POINTS, number, number, shares)


class _Watch:
    """When a sweep's rehearsals ended, and its first cell."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = clock()
        self._cells_s: float | None = None
        self._opened_s: float | None = None
        self._first = 0

    def see(self, kind: str, done: int) -> None:
        if kind != "cells":
            return
        if self._cells_s is None:
            self._cells_s, self._first = self._clock(), done
        elif self._opened_s is None and done > self._first:
            self._opened_s = self._clock()

    def end(self) -> tuple[float, float, float]:
        """Seconds of the rehearsals, until the first cell, and of all cells."""
        now_s = self._clock()
        cells_s = now_s if self._cells_s is None else self._cells_s
        return cells_s - self._started_s, (self._opened_s or now_s) - cells_s, now_s - cells_s
