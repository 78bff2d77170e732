"""The frames that wait for one server DNN, a lane for each camera, and which of them its next batch takes.

A live frame gives way to newer ones of its lane when the lane is full, or when it has waited for longer than
the lane allows: so short delays lose nothing, and a DNN that can't keep up still answers with what is new.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from av import VideoFrame

from accmpeg.media.patience import Patience
from accmpeg.server.models import ModelIdentity

__all__ = ["Job", "Lane", "Lanes", "Outcome"]

BUSY_LANE_S = 1.0
"""A lane that had a frame so lately is waited for."""
LIVE_PER_BACKLOG = 9
"""After so many live frames one of a waiting backlog has its turn, whatever is left over."""
BACKLOG_BATCH_S = 0.05
"""While live cameras are there, a backlog makes no batch longer than this: they would wait for its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one frame: a result as JSON, or why there is none."""

    result: dict[str, Any] | None = None
    dropped: Literal["behind", "failed"] | None = None
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    """The time of the whole batch: what the frame waited for."""
    batch: int = 0
    model: ModelIdentity | None = None
    """What inferred it."""


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
    """None: every frame counts, it is a backlog."""
    frame_rate: float = 0.0
    """What the camera means to send, in frames per second."""
    jobs: deque[Job] = field(default_factory=deque)
    last_s: float = -math.inf
    """When its last frame came."""
    served: int = 0
    """The number of the last batch with a frame of it."""

    def add(self, job: Job) -> list[Job]:
        """Queues a frame; returns those that give way to it, the oldest first."""
        displaced = []
        if self.patience is not None:
            oldest_s = job.queued_s - self.patience.limit_s(job.queued_s)
            while self.jobs and (len(self.jobs) >= self.capacity or self.jobs[0].queued_s < oldest_s):
                displaced.append(self.jobs.popleft())
        self.jobs.append(job)
        self.last_s = job.queued_s
        return displaced

    def is_busy(self, now_s: float) -> bool:
        """Whether a frame came lately."""
        return self.last_s > now_s - BUSY_LANE_S

    def clear(self) -> list[Job]:
        """Takes everything that waits."""
        left, self.jobs = self.jobs, deque()
        return list(left)


class Lanes(list[Lane]):
    """All lanes of one DNN, for one thread at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._batches = 0
        self._owed = 0
        """Live frames that were inferred while a backlog waited, since its last turn."""

    def wait_s(self, limit: int, window_s: float, now_s: float) -> float | None:
        """How long the next batch still waits for company, not above 0 if it may start; None without frames.

        It starts when every busy lane has a frame in it, when it has `limit` of them, or when its oldest has
        waited for `window_s`.
        """
        ready = [lane for lane in self if lane.jobs]
        if not ready:
            return None
        busy = sum(bool(lane.jobs) or lane.is_busy(now_s) for lane in self)
        if len(ready) >= min(busy, limit):
            return 0.0
        return min(lane.jobs[0].queued_s for lane in ready) + window_s - now_s

    def take(self, limit: int, frame_s: float, now_s: float) -> list[Job]:
        """A job of each live lane, the longest unserved lane first; of backlogs, where no live frame waits.

        A place that is free in a batch of live frames is not left over: it makes the batch longer, and a
        frame takes about `frame_s` (0 is not known). So that no backlog waits for ever, one of its frames
        comes with every tenth.

        The oldest frame first would be fair only to cameras whose frames come at lucky times: where all
        frames wait about as long, those that come just before a batch lose every time.
        """
        self._batches += 1
        ready = [lane for lane in self if lane.jobs]
        ready.sort(key=lambda lane: (lane.served, lane.jobs[0].queued_s))
        live = [lane for lane in ready if lane.patience is not None]
        backlogs = [lane for lane in ready if lane.patience is None]
        due = int(bool(backlogs) and self._owed >= LIVE_PER_BACKLOG)
        jobs = [self._pop(lane, now_s) for lane in live[: limit - due]]
        self._owed = self._owed + len(jobs) if backlogs else 0
        room = due if jobs else limit
        if not jobs and frame_s and any(lane.patience and lane.is_busy(now_s) for lane in self):
            room = min(limit, max(1, int(BACKLOG_BATCH_S / frame_s)))
        while room and backlogs:
            for lane in backlogs[:room]:
                jobs.append(self._pop(lane, now_s))
                room -= 1
                self._owed = 0
            backlogs = [lane for lane in backlogs if lane.jobs]
        return jobs

    def _pop(self, lane: Lane, now_s: float) -> Job:
        lane.served = self._batches
        job = lane.jobs.popleft()
        if lane.patience is not None:
            lane.patience.took(now_s, len(lane.jobs))
        return job
