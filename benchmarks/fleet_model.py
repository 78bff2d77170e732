"""A model of many cameras and servers, by events: frames, batches, lost replicas, cameras that come back.

```
camera ─ frame ─▶ event loop ─▶ decode threads ─▶ Lanes ─▶ DNN threads ─▶ event loop ─▶ result
camera ─ attempt ─▶ balancer ─▶ event loop (handshake) ─▶ welcome, then a keyframe
```
All threads of a replica share its cores. Lanes, their patience, the result rate, the camera's pace, the
backoff and all limits are the product's own code and constants. Pure: a seed decides everything, nothing
reads a clock or a file.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

from accmpeg.camera.options import CameraOptions
from accmpeg.camera.uplink.connection import SILENT_S
from accmpeg.camera.uplink.handshake import ANSWER_TIMEOUT_S
from accmpeg.camera.uplink.pace import Pace
from accmpeg.protocol.backoff import Backoff
from accmpeg.server.frame_cost import FrameCost
from accmpeg.server.lanes import Job, Lane, Lanes, Outcome
from accmpeg.server.result_rate import ResultRate
from accmpeg.server.session import FEEDBACK_S
from accmpeg.server.settings import Limits
from fleet_threads import Clock, Cores, Threads

__all__ = ["Camera", "Costs", "Fleet", "Plan", "Replica"]

LIMITS = Limits()
BUDGET_MS = CameraOptions.delay_budget_ms
_DONE, _BEHIND = Outcome(), Outcome(dropped="behind")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """CPU seconds on a replica, as `server_cost.py` measures them; the GPU's times, where there is one."""

    loop_s: float
    """Of the event loop, a frame: half when it comes, half when its result goes."""
    decode_s: float
    """Of a decoding thread, a frame, with what is neither the loop's nor the DNN's."""
    keyframe_s: float
    """The same for the first frame of a connection, with the opening of its decoder."""
    dnn_s: float
    """Of a DNN thread, a frame; on a GPU only scaling, boxes and JSON."""
    dnn_batch_s: float = 0.0
    """Of a DNN thread, a batch beside its frames."""
    handshake_s: float
    """Of the event loop, a connection."""
    gpu_batch_s: float = 0.0
    """Of the GPU, a batch beside its frames."""
    gpu_frame_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A fleet: what its replicas are, what its cameras send, and how far they are."""

    costs: Costs
    cores: float
    dnn_threads: int
    replicas: int
    cameras: int
    frames_per_s: float = 10.0
    others: float = 0.0
    max_batch: int = 8
    window_s: float = 0.005
    max_cameras: int = 1 << 30
    round_trip_s: float = 0.02
    trips: int = 4
    """Round trips until the welcome: TCP, TLS, HTTP and the hello."""
    jitter_s: float = 0.01
    """A frame is late by anything up to this; without it cameras would stay in step for ever."""
    keyframe_s: float = 0.1
    """A first frame's way through the camera's uplink."""
    adapts: bool = True
    """Whether cameras send no more than the server offers, nor than comes back within the delay budget."""
    silent_s: float = SILENT_S
    """After so long without a message a camera leaves its server."""
    backoff: Callable[[Callable[[], float]], Backoff] = Backoff
    least_connections: bool = True
    """The balancer's choice; else by turns."""


@dataclass(eq=False)
class Camera:
    """One camera: its connection, and the times of its results."""

    backoff: Backoff
    pace: Pace
    lane: Lane | None = None
    replica: "Replica | None" = None
    first_frame: bool = False
    next_s: float = 0.0
    waiting_units: int = 0
    lost_s: float | None = None
    back_s: float | None = None


@dataclass(eq=False)
class Attempt:
    """A connection on its way to a welcome. `over`: it has been given up, by whichever side."""

    camera: Camera
    replica: "Replica"
    over: bool = False


@dataclass
class Counted:
    """What happened in a part of the time."""

    delays_s: list[float] = field(default_factory=list)
    left_out: int = 0
    by_camera: dict[Camera, int] = field(default_factory=dict)
    handshakes_s: list[float] = field(default_factory=list)
    """When each ended."""
    timeouts: int = 0
    refused: int = 0


class Replica:
    """One server: `accmpeg serve` with one DNN."""

    DECODE_THREADS: ClassVar[int] = 2

    def __init__(
        self, clock: Clock, plan: Plan, counted: Counted, answered: Callable[[Attempt], None]
    ) -> None:
        self.alive = True
        self.connections = 0
        """With those whose handshake is not done, as a balancer counts them."""
        self.welcomed = 0
        self.handshakes_s: list[float] = []
        self.cores = Cores(clock, plan.cores, plan.others)
        self.loop = Threads(self.cores, 1)
        self.gpu_s = 0.0
        """Its busy time."""
        self._clock, self._plan, self.counted = clock, plan, counted
        self._decoders = Threads(self.cores, max(self.DECODE_THREADS, int(plan.cores)))
        self._gpu_free_s = 0.0
        self._lanes, self._rate, self._cost = Lanes(), ResultRate(), FrameCost()
        self._offered_per_s: float | None = None
        self._told_s = 0.0
        self._free = plan.dnn_threads
        self._timer_s: float | None = None
        self._answered = answered

    def open_lane(self, camera: Camera) -> None:
        """A camera is welcome."""
        self.welcomed += 1
        camera.lane = Lane("", LIMITS.waiting_frames, LIMITS.patience())
        self._lanes.append(camera.lane)

    def offered_per_s(self) -> float | None:
        """What each camera may count on, as the last feedback told."""
        now_s = self._clock.now_s
        if now_s >= self._told_s + FEEDBACK_S:
            busy = sum(lane.is_busy(now_s) for lane in self._lanes)
            capacity_per_s = self._cost.per_s(self._plan.dnn_threads)
            self._offered_per_s, self._told_s = self._rate.per_s(now_s, busy, capacity_per_s), now_s
        return self._offered_per_s

    def handshake(self, attempt: Attempt) -> None:
        """A connection came."""
        done = partial(self._handshaken, attempt)
        self.loop.run(self._plan.costs.handshake_s, done, lambda: attempt.over)

    def _handshaken(self, attempt: Attempt) -> None:
        if self.alive and not attempt.over:
            self.handshakes_s.append(self._clock.now_s)
            self.counted.handshakes_s.append(self._clock.now_s)
            self._answered(attempt)

    def take(self, camera: Camera, captured_s: float) -> None:
        """A frame has come, captured then."""
        came_s, costs = self._clock.now_s, self._plan.costs
        work_s = costs.keyframe_s if camera.first_frame else costs.decode_s
        camera.first_frame = False
        camera.waiting_units += 1
        decode = partial(self._decoders.run, work_s, partial(self._decoded, camera, captured_s, came_s))
        self.loop.run(costs.loop_s / 2, decode)

    def _decoded(self, camera: Camera, captured_s: float, came_s: float) -> None:
        lane = camera.lane
        if lane is None or camera.replica is not self:
            return  # it was lost meanwhile
        camera.waiting_units -= 1
        finish = partial(self._finish, camera, captured_s, came_s)
        for job in lane.add(Job(cast(Any, None), (0, 0), finish, self._clock.now_s)):
            job.finish(_BEHIND)
        self._gather()

    def _gather(self) -> None:
        while self._free and self.alive:
            now_s, limit = self._clock.now_s, self._plan.max_batch
            wait_s = self._lanes.wait_s(limit, self._plan.window_s, now_s)
            if wait_s is None:
                return
            if wait_s > 1e-9:
                if self._timer_s is None or self._timer_s <= now_s:
                    self._timer_s = now_s + wait_s
                    self._clock.at(self._timer_s, self._gather)
                return
            jobs = self._lanes.take(limit, self._cost.frame_s, now_s)
            self._free -= 1
            work_s = self._plan.costs.dnn_batch_s + self._plan.costs.dnn_s * len(jobs)
            self.cores.run(work_s, partial(self._to_gpu, jobs, now_s))

    def _to_gpu(self, jobs: list[Job], begun_s: float) -> None:
        costs = self._plan.costs
        taken_s = costs.gpu_batch_s + costs.gpu_frame_s * len(jobs)
        if not taken_s:
            self._inferred(jobs, begun_s)
            return
        self.gpu_s += taken_s
        self._gpu_free_s = max(self._gpu_free_s, self._clock.now_s) + taken_s
        self._clock.at(self._gpu_free_s, partial(self._inferred, jobs, begun_s))

    def _inferred(self, jobs: list[Job], begun_s: float) -> None:
        self._cost.took(self._clock.now_s - begun_s, len(jobs))
        self._free += 1
        for job in jobs:
            job.finish(_DONE)
        self._gather()

    def _finish(self, camera: Camera, captured_s: float, came_s: float, outcome: Outcome) -> None:
        self._rate.saw(answered=outcome.dropped is None)
        if outcome.dropped:
            self.counted.left_out += 1
        lag_s = self._clock.now_s - came_s
        told = partial(self._told, camera, captured_s, came_s, lag_s, outcome)
        self.loop.run(self._plan.costs.loop_s / 2, told)

    def _told(self, camera: Camera, captured_s: float, came_s: float, lag_s: float, outcome: Outcome) -> None:
        if outcome.dropped or not self.alive:
            return
        counted, now_s = self.counted, self._clock.now_s
        counted.delays_s.append(now_s - came_s)
        counted.by_camera[camera] = counted.by_camera.get(camera, 0) + 1
        heard_s = now_s + self._plan.round_trip_s / 2
        if camera.replica is self:
            delay_ms = 1000 * (heard_s - captured_s)
            camera.pace.took(heard_s, captured_s, delay_ms=delay_ms, lag_ms=1000 * lag_s)
            if camera.lost_s is not None and camera.back_s is None:
                camera.back_s = heard_s


class Fleet:
    """Cameras, a balancer and replicas. All cameras are connected at the beginning, spread evenly."""

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        self.plan, self.clock, self.counted = plan, Clock(), Counted()
        self._random = random.Random(seed)
        self.replicas = [
            Replica(self.clock, plan, self.counted, self._answered) for _ in range(plan.replicas)
        ]
        self.cameras = [
            Camera(plan.backoff(self._random.random), Pace(BUDGET_MS)) for _ in range(plan.cameras)
        ]
        self._turns = itertools.count()
        for index, camera in enumerate(self.cameras):
            replica = self.replicas[index % plan.replicas]
            replica.connections += 1
            self._welcome(camera, replica)
            self.clock.at(self._random.random() / plan.frames_per_s, partial(self._capture, camera))

    def run(self, seconds: float) -> Counted:
        """Goes on for so long; returns what happened meanwhile."""
        counted = self.counted = Counted()
        for replica in self.replicas:
            replica.counted = counted
        self.clock.run(self.clock.now_s + seconds)
        return counted

    def lose(self, lost: Sequence[Replica], *, silent: bool) -> list[Camera]:
        """These replicas are gone at once; returns their cameras.

        Their connections are reset or, `silent`, nothing comes any more: then a camera finds it out.
        The balancer gives a lost replica no new connection.
        """
        gone = set(map(id, lost))
        for replica in lost:
            replica.alive = False
        cameras = [camera for camera in self.cameras if id(camera.replica) in gone]
        for camera in cameras:
            camera.lost_s, camera.back_s, camera.replica, camera.lane = self.clock.now_s, None, None, None
            camera.waiting_units = 0
            wait_s = self.plan.round_trip_s / 2
            if silent:
                heard_s = self._random.random() * min(1.0, 1 / self.plan.frames_per_s)  # before
                wait_s = self.plan.silent_s - heard_s
            self.clock.after(wait_s, partial(self._lost, camera))
        return cameras

    def _lost(self, camera: Camera) -> None:
        camera.backoff.succeeded()
        self._come_back(camera)

    def _come_back(self, camera: Camera) -> None:
        self.clock.after(camera.backoff.failed(), partial(self._connect, camera))

    def _connect(self, camera: Camera) -> None:
        alive = [replica for replica in self.replicas if replica.alive]
        if not alive:
            self._come_back(camera)
            return
        if self.plan.least_connections:
            replica = min(alive, key=lambda each: each.connections)
        else:
            replica = alive[next(self._turns) % len(alive)]
        replica.connections += 1
        attempt = Attempt(camera, replica)
        self.clock.after(ANSWER_TIMEOUT_S, partial(self._timed_out, attempt))
        self.clock.after(
            self.plan.round_trip_s * (self.plan.trips - 0.5), partial(replica.handshake, attempt)
        )

    def _timed_out(self, attempt: Attempt) -> None:
        if not attempt.over:
            self.counted.timeouts += 1
            self._failed(attempt)

    def _failed(self, attempt: Attempt) -> None:
        attempt.over = True
        attempt.replica.connections -= 1
        self._come_back(attempt.camera)

    def _answered(self, attempt: Attempt) -> None:
        if attempt.replica.welcomed >= self.plan.max_cameras:
            self.counted.refused += 1
            self._failed(attempt)
        else:
            attempt.over = True
            self._welcome(attempt.camera, attempt.replica)

    def _welcome(self, camera: Camera, replica: Replica) -> None:
        replica.open_lane(camera)
        camera.replica, camera.first_frame = replica, True
        camera.next_s = self.clock.now_s

    def _capture(self, camera: Camera) -> None:
        plan, now_s, replica = self.plan, self.clock.now_s, camera.replica
        self.clock.after(1 / plan.frames_per_s, partial(self._capture, camera))
        # A camera whose units are not read keeps only the newest; TCP holds the rest back.
        if replica is None or now_s < camera.next_s or camera.waiting_units >= LIMITS.waiting_units:
            return
        limits = (replica.offered_per_s(), camera.pace.per_s) if plan.adapts else ()
        limit_per_s = min((each for each in limits if each is not None), default=plan.frames_per_s)
        if limit_per_s < plan.frames_per_s:
            camera.next_s = max(camera.next_s + 1 / limit_per_s, now_s)
        way_s = plan.keyframe_s if camera.first_frame else 0.0
        if way_s:
            camera.next_s = max(camera.next_s, now_s + way_s)
        way_s += self._random.random() * plan.jitter_s
        self.clock.after(way_s, partial(self._arrived, camera, replica, now_s))

    def _arrived(self, camera: Camera, replica: Replica, captured_s: float) -> None:
        if replica.alive and camera.replica is replica:
            replica.take(camera, captured_s)
