"""One server DNN for all cameras: batches by arrival, fair between cameras.

```
lane gate ─ ▪▪ ─┐  one frame of each lane, the longest unserved lane first; more where every frame counts
lane roof ─ ▪  ─┼─▶ batch ─▶ infer_many ─▶ to_json ─▶ job.finish(outcome)
lane yard ─ ▪▪ ─┘
```

A batch starts when every busy lane has a frame in it, when it is full, or when its oldest frame has waited
for `window_ms`; while one is running, the next gathers by itself. A frame gives way to newer ones of its
lane when the lane is full, or when it has waited for longer than the lane allows: so short delays lose
nothing, and a DNN that can't keep up still answers with what is new.

Each copy of the DNN has a thread that takes batches. On a CPU, copies of one thread each do more than one
copy with as many threads, whose every layer waits for the slowest of them; one frame alone takes longer.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from av import VideoFrame

from accmpeg.dnn.base import ServerDnn
from accmpeg.errors import AccmpegError, UsageError
from accmpeg.media.patience import Patience
from accmpeg.server.results import to_json

__all__ = ["Batcher", "Job", "Lane", "Outcome"]

BUSY_LANE_S = 1.0
"""A lane that had a frame so lately is waited for."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one frame: a result as JSON, or why there is none."""

    result: dict[str, Any] | None = None
    dropped: Literal["behind", "failed"] | None = None
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    """The time of the whole batch: what the frame waited for."""
    batch: int = 0


@dataclass(slots=True)
class Job:
    """A frame to be inferred. `finish` is called once, from any thread, and must return at once."""

    frame: VideoFrame
    source_size_px: tuple[int, int]
    finish: Callable[[Outcome], None]
    queued_s: float = field(default_factory=time.perf_counter)


@dataclass(slots=True, eq=False)
class Lane:
    """One camera's frames that wait."""

    name: str
    capacity: int
    patience: Patience | None
    """None: every frame counts."""
    jobs: deque[Job] = field(default_factory=deque)
    last_s: float = 0.0
    """When its last frame came."""
    served: int = 0
    """The number of the last batch with a frame of it."""


class Batcher:
    """Runs one DNN, which can be exchanged between two batches. `observe` gets its name, once per batch.

    `copies` are the same DNN, for a thread each.
    """

    def __init__(
        self,
        name: str,
        copies: Sequence[ServerDnn],
        *,
        max_batch: int,
        window_ms: float,
        observe: Callable[[str, Outcome], None] = lambda name, outcome: None,
    ) -> None:
        self.name = name
        self._copies = copies
        self._max_batch = max_batch
        self._window_s = window_ms / 1000
        self._observe = observe
        self._lanes: list[Lane] = []
        self._changed = threading.Condition()
        self._closed = False
        self._batches = 0
        self._threads = [
            threading.Thread(target=self._run, args=[copy], name=f"dnn-{name}-{copy}", daemon=True)
            for copy in range(len(copies))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dnn(self) -> ServerDnn:
        """What it is; to be run by its own thread only."""
        return self._copies[0]

    @property
    def waiting(self) -> int:
        """Frames that wait, over all lanes."""
        with self._changed:
            return sum(len(lane.jobs) for lane in self._lanes)

    @property
    def is_alive(self) -> bool:
        """Whether its threads run."""
        return all(thread.is_alive() for thread in self._threads)

    def open_lane(self, name: str, capacity: int, patience: Patience | None = None) -> Lane:
        """A camera joins. With `patience` its newest frames win; without, every frame counts."""
        lane = Lane(name, capacity, patience)
        with self._changed:
            self._lanes.append(lane)
        return lane

    def close_lane(self, lane: Lane) -> None:
        """A camera leaves; what still waits is dropped."""
        with self._changed:
            if lane in self._lanes:
                self._lanes.remove(lane)
            left, lane.jobs = lane.jobs, deque()
        for job in left:
            job.finish(Outcome(dropped="behind"))

    def submit(self, lane: Lane, job: Job) -> None:
        """Queues a frame; what is stale gives way to it, and the oldest of a full lane."""
        displaced = []
        with self._changed:
            if not self._closed and lane in self._lanes:
                oldest_s = job.queued_s - (lane.patience.limit_s(job.queued_s) if lane.patience else math.inf)
                while lane.jobs and (len(lane.jobs) >= lane.capacity or lane.jobs[0].queued_s < oldest_s):
                    displaced.append(lane.jobs.popleft())
                lane.jobs.append(job)
                lane.last_s = job.queued_s
                self._changed.notify()
            else:
                displaced.append(job)
        for each in displaced:
            waited_ms = (time.perf_counter() - each.queued_s) * 1000
            each.finish(Outcome(dropped="behind", queue_ms=waited_ms))

    @property
    def copies(self) -> int:
        """How many copies of the DNN there are."""
        return len(self._copies)

    def exchange(self, copies: Sequence[ServerDnn]) -> None:
        """Puts another DNN of the same task in place from the next batches on; as many copies as there were.

        Raises `UsageError`.
        """
        card = copies[0].card
        if card.task != self.dnn.card.task:
            raise UsageError(
                f"{self.name} serves {self.dnn.card.task}, and its cameras expect that: {card.name} is "
                f"for {card.task}, give it a name of its own"
            )
        with self._changed:
            self._copies = copies

    def close(self) -> None:
        """Ends the threads after their batches; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            lanes = list(self._lanes)
        for thread in self._threads:
            thread.join()
        for lane in lanes:
            self.close_lane(lane)

    def _run(self, copy: int) -> None:
        while (gathered := self._gather(copy)) is not None:
            dnn, jobs = gathered
            started_s = time.perf_counter()
            outcomes = _infer(dnn, jobs)
            infer_ms = (time.perf_counter() - started_s) * 1000
            for index, (job, (result, dropped)) in enumerate(zip(jobs, outcomes, strict=True)):
                queue_ms = (started_s - job.queued_s) * 1000
                outcome = Outcome(result, dropped, queue_ms, infer_ms, len(jobs))
                if index == 0:
                    self._observe(self.name, outcome)
                job.finish(outcome)
            del gathered, jobs, outcomes, job  # frames are large: none outlives its batch

    def _gather(self, copy: int) -> tuple[ServerDnn, list[Job]] | None:
        """Waits for a batch; None when the batcher is closed."""
        with self._changed:
            while not self._closed:
                limit = min(self._max_batch, self.dnn.network.max_batch or self._max_batch)
                ready = [lane for lane in self._lanes if lane.jobs]
                if not ready:
                    self._changed.wait()
                    continue
                now = time.perf_counter()
                deadline_s = min(lane.jobs[0].queued_s for lane in ready) + self._window_s
                busy = sum(bool(lane.jobs) or lane.last_s > now - BUSY_LANE_S for lane in self._lanes)
                if len(ready) < min(busy, limit) and now < deadline_s:
                    self._changed.wait(deadline_s - now)
                    continue
                return self._copies[copy], self._take(ready, limit)
        return None

    def _take(self, ready: list[Lane], limit: int) -> list[Job]:
        """A job of each lane, the longest unserved lane first, until there are `limit`.

        The oldest frame first would be fair only to cameras whose frames come at lucky times: where all
        frames wait about as long, those that come just before a batch lose every time.
        """
        self._batches += 1
        now_s = time.perf_counter()
        jobs: list[Job] = []
        order = sorted(ready, key=lambda lane: (lane.served, lane.jobs[0].queued_s))
        while order and len(jobs) < limit:
            for lane in order[: limit - len(jobs)]:
                lane.served = self._batches
                jobs.append(lane.jobs.popleft())
                if lane.patience is not None:
                    lane.patience.took(now_s, len(lane.jobs))
            # Where the newest wins, a frame does not wait for the inference of those after it.
            order = [lane for lane in order if lane.jobs and lane.patience is None]
        return jobs


def _infer(dnn: ServerDnn, jobs: list[Job]) -> list[tuple[dict[str, Any] | None, Literal["failed"] | None]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(job.source_size_px, []).append(index)
    found: list[tuple[dict[str, Any] | None, Literal["failed"] | None]] = [(None, "failed")] * len(jobs)
    for source_size_px, members in groups.items():
        try:
            results = dnn.infer_many([jobs[i].frame for i in members], source_size_px, sure_only=True)
            for i, result in zip(members, results, strict=True):
                found[i] = (to_json(result, dnn.card), None)
        # Whatever a network raises on one camera's frame, the others must be answered.
        except Exception as error:
            if len(jobs) > 1:
                for i in members:
                    found[i] = _infer(dnn, [jobs[i]])[0]
                continue
            level = logging.WARNING if isinstance(error, AccmpegError) else logging.ERROR
            log.log(level, "inference failed", extra={"dnn": dnn.card.name, "reason": f"{error}"})
    return found
