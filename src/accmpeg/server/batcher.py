"""One server DNN for all cameras: batches by arrival, fair between cameras, watched while it runs.

```
lane gate ─ ▪▪ ─┐  live: one frame of each lane, the longest unserved lane first
lane roof ─ ▪  ─┼─▶ batch ─▶ infer_many ─▶ to_json ─▶ job.finish(outcome)
lane yard ─ ▪▪ ─┘  backlog (every frame counts): what the live lanes leave over
```

A batch starts when every busy lane has a frame in it, when it is full, or when its oldest frame has waited
for `window_ms`; while one is running, the next gathers by itself.

Each copy of the DNN has a thread that takes batches. On a CPU, copies of one thread each do more than one
copy with as many threads, whose every layer waits for the slowest of them; one frame alone takes longer.
A batch that runs for longer than `infer_timeout_s` is given up: its frames are answered as failed, and its
copy takes no other until the call returns, for a thread can't be stopped from outside.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from accmpeg.dnn.base import ServerDnn
from accmpeg.errors import AccmpegError, UsageError
from accmpeg.media.patience import Patience
from accmpeg.quiet import FewRepeats
from accmpeg.server.frame_cost import FrameCost
from accmpeg.server.lanes import Job, Lane, Lanes, Outcome
from accmpeg.server.models import LoadedDnn, ModelIdentity
from accmpeg.server.result_rate import ResultRate
from accmpeg.tasks.result_json import to_json

__all__ = ["Batcher"]

FAILED_IN_A_ROW = 10
"""The DNN counts as failing after so many frames without one that succeeded."""
DOWN_S = 15.0
"""A DNN that has failed for so long counts as down: a blip must not take the server out of service."""
FAILING_S = 30.0
"""A DNN that failed counts as failing for so long; then the next frame may show whether it still does."""
CLOSE_S = 2.0
HANGS = "an inference hangs"

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


@dataclass(slots=True, eq=False)
class _Batch:
    """What one copy is at."""

    jobs: list[Job]
    started_s: float = field(default_factory=time.perf_counter)
    given_up: bool = False

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self.started_s

    def finish(self, found: "_Found", infer_ms: float, identity: ModelIdentity) -> None:
        """Tells every job what became of it."""
        for job, (result, dropped) in zip(self.jobs, found, strict=True):
            queue_ms = (self.started_s - job.queued_s) * 1000
            job.finish(Outcome(result, dropped, queue_ms, infer_ms, len(self.jobs), identity))


@dataclass
class _Failures:
    frames: int = 0
    in_a_row: int = 0
    reason: str = ""
    since_s: float = -math.inf
    last_s: float = -math.inf

    def count(self, frames: int, reason: str) -> None:
        self.frames += frames
        self.reason, self.last_s = reason[:200], time.perf_counter()
        if not self.in_a_row:
            self.since_s = self.last_s
        self.in_a_row += frames

    def problem(self, now_s: float) -> str:
        """Why nothing can be expected to succeed now; empty where something may."""
        if self.in_a_row < FAILED_IN_A_ROW or now_s - self.last_s >= FAILING_S:
            return ""
        return f"its last {self.in_a_row} frames failed: {self.reason}"


class Batcher:
    """Runs one DNN, which may change between batches. `observe` gets its name and each batch's size."""

    def __init__(
        self,
        name: str,
        loaded: LoadedDnn,
        *,
        max_batch: int,
        window_ms: float,
        infer_timeout_s: float = math.inf,
        observe: Callable[[str, int], None] = lambda name, frames: None,
    ) -> None:
        self.name = name
        self._loaded = loaded
        self._max_batch = max_batch
        self._window_s = window_ms / 1000
        self._infer_timeout_s = infer_timeout_s
        self._observe = observe
        self._lanes = Lanes()
        self.result_rate = ResultRate()
        """What live cameras may count on together."""
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self.frame_cost = FrameCost(loaded.frame_s)
        self._running: dict[int, _Batch] = {}
        self._failures = _Failures()
        self._threads = [
            threading.Thread(target=self._run, args=[copy], name=f"dnn-{name}-{copy}", daemon=True)
            for copy in range(len(loaded.copies))
        ]
        for thread in self._threads:
            thread.start()
        if math.isfinite(infer_timeout_s):
            threading.Thread(target=self._watch, name=f"watch-{name}", daemon=True).start()

    @property
    def dnn(self) -> ServerDnn:
        """What it is; to be run by its own thread only."""
        return self._loaded.copies[0]

    @property
    def identity(self) -> ModelIdentity:
        """Which model it runs, and where."""
        return self._loaded.identity

    @property
    def waiting(self) -> int:
        """Frames that wait, over all lanes."""
        with self._changed:
            return sum(len(lane.jobs) for lane in self._lanes)

    @property
    def failed(self) -> int:
        """Frames that got no result because the DNN failed or hung."""
        return self._failures.frames

    @property
    def is_stuck(self) -> bool:
        """Whether it hangs or has stopped."""
        with self._changed:
            return self._hangs() or not all(thread.is_alive() for thread in self._threads)

    @property
    def problem(self) -> str:
        """Why it answers nothing now; empty where it does, or may."""
        now_s = time.perf_counter()
        with self._changed:
            if self._hangs():
                since_s = min(batch.started_s for batch in self._running.values())
                return f"{HANGS}, for {now_s - since_s:.0f} s now"
            failing = self._failures.problem(now_s)
        return failing or ("it has stopped" if self.is_stuck else "")

    @property
    def is_down(self) -> bool:
        """Whether its problem has lasted: it hangs, has stopped, or has failed for `DOWN_S`."""
        blip = not self.is_stuck and time.perf_counter() - self._failures.since_s < DOWN_S
        return self.problem != "" and not blip

    @property
    def lanes(self) -> list[Lane]:
        """Those of the cameras that are here."""
        with self._changed:
            return list(self._lanes)

    def open_lane(
        self, name: str, capacity: int, patience: Patience | None = None, frame_rate: float = 0.0
    ) -> Lane:
        """A camera joins. With `patience` its newest frames win; without, every frame counts."""
        lane = Lane(name, capacity, patience, frame_rate)
        self.adopt(lane)
        return lane

    def adopt(self, lane: Lane) -> None:
        """A lane comes, with the frames that wait in it."""
        with self._changed:
            self._lanes.append(lane)
            self._changed.notify()

    def release(self, lane: Lane) -> None:
        """A lane goes elsewhere, with the frames that wait in it; what runs is answered from here."""
        with self._changed:
            self._lanes.remove(lane)

    def offered_per_s(self) -> float | None:
        """What each live camera may count on now; None without a limit. Event loop only."""
        with self._changed:
            now_s = time.perf_counter()
            cameras = sum(lane.patience is not None and lane.is_busy(now_s) for lane in self._lanes)
            return self.result_rate.per_s(now_s, cameras, self.frame_cost.per_s(self.copies))

    def close_lane(self, lane: Lane) -> None:
        """A camera leaves; what still waits is dropped."""
        with self._changed:
            if lane in self._lanes:
                self._lanes.remove(lane)
            left = lane.clear()
        for job in left:
            job.finish(Outcome(dropped="behind"))

    def submit(self, lane: Lane, job: Job) -> None:
        """Queues a frame; of a live lane, what is stale gives way to it, and the oldest where it is full."""
        displaced, hangs = [job], False
        with self._changed:
            if not self._closed.is_set() and lane in self._lanes:
                if hangs := self._hangs():
                    self._failures.count(1, HANGS)
                else:
                    displaced = lane.add(job)
                    self._changed.notify()
        if hangs:
            job.finish(Outcome(dropped="failed"))
            return
        for each in displaced:
            waited_ms = (time.perf_counter() - each.queued_s) * 1000
            each.finish(Outcome(dropped="behind", queue_ms=waited_ms))

    @property
    def copies(self) -> int:
        """How many copies of the DNN there are."""
        return len(self._loaded.copies)

    def exchange(self, loaded: LoadedDnn) -> None:
        """Puts another DNN of the same task in place from the next batches on; as many copies as there were.

        Raises `UsageError`.
        """
        card = loaded.copies[0].card
        if card.task != self.dnn.card.task:
            raise UsageError(
                f"{self.name} serves {self.dnn.card.task}, and its cameras expect that: {card.name} is "
                f"for {card.task}, give it a name of its own"
            )
        with self._changed:
            self._loaded = loaded
            self._failures.in_a_row = 0
            self.frame_cost = FrameCost(loaded.frame_s)
        self.result_rate.exchanged(time.perf_counter())

    def close(self) -> bool:
        """Ends the threads after their batches, and says whether all have; what waits is dropped."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
            lanes = list(self._lanes)
        deadline_s = time.perf_counter() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.perf_counter()))
        for lane in lanes:
            self.close_lane(lane)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, copy: int) -> None:
        while (gathered := self._gather(copy)) is not None:
            loaded, batch = gathered
            frames = len(batch.jobs)
            found, failure = _infer(loaded.copies[copy], batch.jobs)
            taken_s = batch.age_s
            with self._changed:
                del self._running[copy]
                given_up = batch.given_up
                if (failed := sum(dropped is not None for _, dropped in found)) and not given_up:
                    self._failures.count(failed, failure)
                if failed < frames:
                    self._failures.in_a_row = 0
            if given_up:
                late = {"dnn": self.name, "after_s": round(taken_s, 1)}
                log.warning("a hanging inference came back", extra=late)
            else:
                self._observe(self.name, frames)
                batch.finish(found, taken_s * 1000, loaded.identity)
            with self._changed:
                if loaded is self._loaded:  # with what it took to tell: nothing could run meanwhile
                    self.frame_cost.took(min(batch.age_s, self._infer_timeout_s), frames)
            del gathered, found, batch  # frames are large: none outlives its batch

    def _gather(self, copy: int) -> tuple[LoadedDnn, _Batch] | None:
        """Waits for a batch; None when the batcher is closed."""
        with self._changed:
            while not self._closed.is_set():
                limit, now_s = self._batch_limit(), time.perf_counter()
                wait_s = self._lanes.wait_s(limit, self._window_s, now_s)
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                batch = self._running[copy] = _Batch(self._lanes.take(limit, self.frame_cost.frame_s, now_s))
                return self._loaded, batch
        return None

    def _batch_limit(self) -> int:
        limit = min(self._max_batch, self.dnn.network.max_batch or self._max_batch)
        if math.isfinite(self._infer_timeout_s):
            # A DNN that is only slow must not look like one that hangs.
            limit = min(limit, max(1, int(self._infer_timeout_s / 2 * (self.frame_cost.per_s(1) or 0.0))))
        return limit

    def _watch(self) -> None:
        """Gives up batches that take too long."""
        while not self._closed.wait(min(0.5, self._infer_timeout_s / 4)):
            late: list[Job] = []
            with self._changed:
                started_s = time.perf_counter() - self._infer_timeout_s
                for batch in self._running.values():
                    if batch.started_s < started_s and not batch.given_up:
                        batch.given_up = True
                        late += batch.jobs
                        batch.jobs = []
                if not late:
                    continue
                if self._hangs():
                    for lane in self._lanes:
                        late += lane.clear()
                self._failures.count(len(late), HANGS)
            log.error(
                "an inference hangs: its frames are answered as failed",
                extra={
                    "code": self.name,
                    "dnn": self.name,
                    "infer_timeout_s": self._infer_timeout_s,
                    **self.identity.facts(),
                },
            )
            for job in late:
                job.finish(Outcome(dropped="failed", infer_ms=self._infer_timeout_s * 1000))

    def _hangs(self) -> bool:
        return len(self._running) == len(self._threads) and all(
            batch.given_up for batch in self._running.values()
        )


_Found = list[tuple[dict[str, Any] | None, Literal["failed"] | None]]


def _infer(dnn: ServerDnn, jobs: list[Job]) -> tuple[_Found, str]:
    """An outcome for each job, and the last failure."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(job.source_size_px, []).append(index)
    found: _Found = [(None, "failed")] * len(jobs)
    failure = ""
    for source_size_px, members in groups.items():
        try:
            results = dnn.infer_many([jobs[i].frame for i in members], source_size_px, sure_only=True)
            for i, result in zip(members, results, strict=True):
                document = to_json(
                    result,
                    task=dnn.card.task,
                    classes=dnn.card.classes,
                    score_threshold=dnn.card.score_threshold,
                )
                found[i] = (document, None)
        # Whatever a network raises on one camera's frame, the others must be answered.
        except Exception as error:
            if len(members) > 1:
                for i in members:
                    (found[i],), failed = _infer(dnn, [jobs[i]])
                    failure = failed or failure
                continue
            failure = str(error) or type(error).__name__
            level = logging.WARNING if isinstance(error, AccmpegError) else logging.ERROR
            log.log(
                level,
                "inference failed",
                extra={"code": dnn.card.name, "dnn": dnn.card.name, "reason": failure},
            )
    return found, failure
