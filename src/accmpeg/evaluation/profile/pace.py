"""Keeps a search to its time: what sweeps took tells how much of what could come next fits.

```
sweep ─▶ seconds per rehearsal, cell, new part ─▶ seconds of each choice ─▶ the largest that fits, kept
```

What was settled stays in a file beside the cells, and so does the time spent. So a search that was stopped
goes on with the time that it had left, and one that has ended ends in the same way again.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accmpeg.errors import EvaluationError
from accmpeg.files import write_whole

__all__ = ["Pace", "Work"]

_SAFETY = 1.15
"""Times what is expected: streams differ, and machines get slower."""
_SAVED_EVERY_S = 2.0


@dataclass(frozen=True)
class Work:
    """What a sweep has to do; what is known already is no work."""

    rehearsals: int
    """Streams on parts: what each costs the camera is timed first, one after another."""
    cells: int
    new_parts: int
    """Each takes its reference answers and a ceiling."""
    parts: int
    """Opened at the same time, as far as there are workers."""
    shares: int = 1
    """Workers that measure the streams of one part at the same time."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.rehearsals + other.rehearsals,
            self.cells + other.cells,
            self.new_parts + other.new_parts,
            min(self.parts, other.parts),
            min(self.shares, other.shares),
        )


class Pace:
    """The time of one search, kept in `file`; raises EvaluationError for a damaged one."""

    def __init__(
        self, file: Path, limit_s: float, workers: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._workers, self._clock, self.limit_s = file, workers, clock, limit_s
        self._took: dict[str, tuple[float, float]] = {}
        self._settled: dict[str, tuple[int, float]] = {}
        before_s = 0.0
        try:
            if file.exists():
                kept = json.loads(file.read_text(encoding="utf-8"))
                before_s = float(kept["spent_s"])
                self._took = {name: (float(s), float(n)) for name, (s, n) in kept["took"].items()}
                self._settled = {name: (int(n), float(s)) for name, (n, s) in kept["settled"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(f"{file} is damaged: delete it, and the search plans anew") from error
        self._saved_s = clock()
        self._started_s = self._saved_s - before_s

    @property
    def spent_s(self) -> float:
        return self._clock() - self._started_s

    @property
    def left_s(self) -> float:
        return self.limit_s - self.spent_s

    @property
    def left_out_s(self) -> float:
        """About what more time the search would have taken, had all of it fitted."""
        return sum(seconds for _, seconds in self._settled.values())

    def seconds(self, work: Work) -> float:
        """What it takes, by what sweeps have taken so far."""
        each = {name: seconds / count for name, (seconds, count) in self._took.items()}
        cell_s = each.get("cell", 0.0)
        cells_s = work.cells * cell_s / self._at_once(work.parts * work.shares)
        opened_s = work.new_parts * each.get("new part", cell_s) / self._at_once(work.parts)
        return _SAFETY * (work.rehearsals * each.get("rehearsal", cell_s) + opened_s + cells_s)

    def settle(
        self, what: str, choices: Sequence[tuple[int, float, float]], time_s: Callable[[], float]
    ) -> int:
        """The first of `choices` that fits the time, or the last: a number, its seconds, those that follow.

        The richest comes first. What an earlier run settled stands.
        """
        if what not in self._settled:
            there_s = time_s()
            number, seconds, _ = next((each for each in choices if each[1] + each[2] <= there_s), choices[-1])
            self._settled[what] = number, max(0.0, choices[0][1] - seconds)
            self.save()
        return self._settled[what][0]

    def learn(self, work: Work, rehearsed_s: float, opened_s: float, measured_s: float) -> None:
        """From one sweep: its rehearsals, its first part's opening, and all that followed them."""
        all_opened_s = work.new_parts * opened_s / self._at_once(work.parts)
        cells_s = (measured_s - all_opened_s) * self._at_once(work.parts * work.shares)
        for name, seconds, count in (
            ("rehearsal", rehearsed_s, work.rehearsals),
            ("new part", opened_s * work.new_parts, work.new_parts),
            ("cell", cells_s, work.cells),
        ):
            if count and seconds > 0:
                before = self._took.get(name, (0.0, 0.0))
                self._took[name] = before[0] + seconds, before[1] + count
        self.save()

    def tick(self) -> None:
        """Keeps the time spent, now and then, so that a killed search does not begin its time anew."""
        if self._clock() - self._saved_s > _SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        self._saved_s = self._clock()
        kept = {"spent_s": round(self.spent_s, 1), "took": self._took, "settled": self._settled}
        try:
            write_whole(self._file, (json.dumps(kept, indent=1) + "\n").encode())
        except OSError as error:
            raise EvaluationError(
                f"can't write {error.filename}: {error.strerror}; finished cells are kept"
            ) from error

    def _at_once(self, tasks: int) -> float:
        rounds = -(-tasks // self._workers)
        return tasks / rounds if tasks else 1.0
