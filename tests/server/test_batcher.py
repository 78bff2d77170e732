"""What the batcher takes, and what gives way."""

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import supervision as sv
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn
from accmpeg.media.patience import Patience
from accmpeg.server.batcher import Batcher
from accmpeg.server.lanes import Job, Outcome
from accmpeg.server.models import LoadedDnn, ModelIdentity

WAIT_S = 20
PATIENCE = Patience(standing_s=10, burst_s=100)


class HeldDnn:
    """Begins with a batch and stands still until it is released."""

    network = SimpleNamespace(max_batch=None)
    card = SimpleNamespace(name="held")

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

    def infer_many(self, frames: list[VideoFrame], *_: Any, **__: Any) -> list[Any]:
        self.began.set()
        assert self.go_on.wait(WAIT_S)
        raise RuntimeError("no result: only what was taken counts")


def loaded(*copies: Any) -> LoadedDnn:
    return LoadedDnn([cast(ServerDnn, each) for each in copies], ModelIdentity("held", None, "cpu"))


class Asked:
    """Submits jobs to one lane of a batcher whose DNN is busy; notes what becomes of each."""

    def __init__(self, capacity: int, patience: Patience | None) -> None:
        self.dnn = HeldDnn()
        self.batcher = Batcher("held", loaded(self.dnn), max_batch=8, window_ms=0)
        self.lane = self.batcher.open_lane("gate", capacity, patience)
        self.dropped: list[str] = []
        self.submit("first", 0)
        assert self.dnn.began.wait(WAIT_S)

    def submit(self, name: str, age_s: float) -> None:
        def finish(outcome: Outcome) -> None:
            if outcome.dropped == "behind":
                self.dropped.append(name)

        job = Job(VideoFrame(16, 16), (16, 16), finish, time.perf_counter() - age_s)
        self.batcher.submit(self.lane, job)

    def close(self) -> None:
        self.dnn.go_on.set()
        self.batcher.close()


def test_stale_frames_give_way_to_newer_ones_only() -> None:
    asked = Asked(capacity=8, patience=PATIENCE)
    asked.submit("stale", 500)
    asked.submit("stale too", 450)
    assert asked.dropped == [], "neither has waited long beside a newer one"
    asked.submit("young", 50)
    assert asked.dropped == ["stale", "stale too"]
    asked.submit("new", 0)
    assert asked.dropped == ["stale", "stale too"]
    asked.close()


def test_the_oldest_frame_of_a_full_lane_gives_way() -> None:
    asked = Asked(capacity=2, patience=PATIENCE)
    for name in ("a", "b", "c"):
        asked.submit(name, 0)
    assert asked.dropped == ["a"]
    asked.close()


def test_no_frame_of_a_backlog_gives_way() -> None:
    asked = Asked(capacity=1, patience=None)
    for age_s in (500, 100, 0):
        asked.submit("counts", age_s)
    assert asked.dropped == []
    assert asked.batcher.waiting == 3
    asked.close()


def test_a_frame_that_fails_is_not_tried_again() -> None:
    """Only a batch is, frame by frame: one of them may have spoilt it for the others."""

    class Failing(HeldDnn):
        def infer_many(self, frames: list[VideoFrame], *_: Any, **__: Any) -> list[Any]:
            asked.append(len(frames))
            return super().infer_many(frames)

    asked: list[int] = []
    dnn, answered = Failing(), threading.Semaphore(0)
    batcher = Batcher("failing", loaded(dnn), max_batch=8, window_ms=0)
    lane = batcher.open_lane("gate", 8)
    for size_px in ((1, 1), (16, 16), (16, 16), (32, 32)):
        batcher.submit(lane, Job(VideoFrame(16, 16), size_px, lambda outcome: answered.release()))
        assert dnn.began.wait(WAIT_S)
    dnn.go_on.set()
    assert all(answered.acquire(timeout=WAIT_S) for _ in range(4))
    assert asked == [1, 2, 1, 1, 1]
    batcher.close()


def test_each_copy_takes_batches() -> None:
    copies = HeldDnn(), HeldDnn()
    batcher = Batcher("held", loaded(*copies), max_batch=1, window_ms=0)
    lane = batcher.open_lane("gate", 8)
    for _ in copies:
        batcher.submit(lane, Job(VideoFrame(16, 16), (16, 16), lambda outcome: None))
    assert all(each.began.wait(WAIT_S) for each in copies), "both work at once"
    for each in copies:
        each.go_on.set()
    batcher.close()
    assert batcher.is_stuck


def test_a_full_batch_leaves_out_the_cameras_of_the_last_one() -> None:
    took: list[str] = []
    dnn = HeldDnn()
    batcher = Batcher("held", loaded(dnn), max_batch=2, window_ms=0)
    lanes = {name: batcher.open_lane(name, 8) for name in ("gate", "roof", "yard")}

    def submit(name: str, age_s: float) -> None:
        def finish(outcome: Outcome) -> None:
            if outcome.batch:
                took.append(name)

        job = Job(VideoFrame(16, 16), (16, 16), finish, time.perf_counter() - age_s)
        batcher.submit(lanes[name], job)

    submit("gate", 0)
    assert dnn.began.wait(WAIT_S)
    for name, age_s in (("gate", 9), ("gate", 8), ("roof", 2), ("yard", 1)):
        submit(name, age_s)
    dnn.go_on.set()
    while len(took) < 5:
        time.sleep(0.001)
    assert took == ["gate", "roof", "yard", "gate", "gate"], (
        "its frames are the oldest, but it was served last"
    )
    batcher.close()


def test_a_backlog_has_batches_of_its_own_after_the_live_frames() -> None:
    order: list[str] = []
    dnn = HeldDnn()
    batcher = Batcher("held", loaded(dnn), max_batch=8, window_ms=0)
    lanes = {"newest": batcher.open_lane("newest", 8, PATIENCE), "every": batcher.open_lane("every", 8)}

    def submit(name: str) -> None:
        job = Job(VideoFrame(16, 16), (16, 16), lambda outcome: order.append(f"{name} of {outcome.batch}"))
        batcher.submit(lanes[name], job)

    submit("newest")
    assert dnn.began.wait(WAIT_S), "what comes now waits together"
    for name in ("every", "every", "every", "newest", "newest"):
        submit(name)
    dnn.go_on.set()
    while len(order) < 6:
        time.sleep(0.001)
    assert order[:3] == ["newest of 1"] * 3
    assert all(each.startswith("every") for each in order[3:])
    batcher.close()


class PacedDnn:
    """Takes so long for each frame, and finds nothing."""

    network = SimpleNamespace(max_batch=None)
    card = SimpleNamespace(name="paced", task="detection", score_threshold=0.5, classes=["thing"])

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s

    def infer_many(self, frames: list[VideoFrame], *_: Any, **__: Any) -> list[Any]:
        time.sleep(self._frame_s * len(frames))
        return [sv.Detections.empty() for _ in frames]


class Feeder:
    """Keeps lanes full: a live one has a new frame as soon as one is taken, a backlog always eight."""

    def __init__(self, batcher: Batcher, backlogs: set[str], live: set[str]) -> None:
        self._batcher = batcher
        self.results: Counter[str] = Counter()
        self.total = threading.Semaphore(0)
        self._ending = False
        self._lanes = {name: batcher.open_lane(name, 8) for name in backlogs}
        self._lanes |= {name: batcher.open_lane(name, 8, PATIENCE) for name in live}
        for name in live:
            self.submit(name)
        for name in backlogs:
            for _ in range(8):
                self.submit(name)

    def submit(self, name: str) -> None:
        def finish(outcome: Outcome) -> None:
            if outcome.result is not None:
                self.results[name] += 1
                self.total.release()
                if not self._ending:
                    self.submit(name)

        self._batcher.submit(self._lanes[name], Job(VideoFrame(16, 16), (16, 16), finish))

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.total.acquire(timeout=WAIT_S)
        self._ending = True


def test_a_backlog_gets_what_live_cameras_leave_over_and_a_tenth_at_least() -> None:
    batcher = Batcher("paced", loaded(PacedDnn(0.002)), max_batch=8, window_ms=0)
    feeder = Feeder(batcher, {"spool"}, {"gate", "roof", "yard"})
    feeder.wait(400)
    batcher.close()
    least_live = min(feeder.results[name] for name in ("gate", "roof", "yard"))
    assert 20 <= feeder.results["spool"] < least_live, "a tenth: it is not starved"


def test_backlogs_alone_share_everything() -> None:
    batcher = Batcher("paced", loaded(PacedDnn(0.001)), max_batch=8, window_ms=0)
    feeder = Feeder(batcher, {"one", "two"}, set())
    feeder.wait(160)
    batcher.close()
    assert abs(feeder.results["one"] - feeder.results["two"]) <= 16


def test_a_slow_dnn_has_smaller_batches_and_does_not_look_like_one_that_hangs() -> None:
    batcher = Batcher("slow", loaded(PacedDnn(0.1)), max_batch=8, window_ms=0, infer_timeout_s=0.75)
    feeder = Feeder(batcher, {"spool"}, set())
    feeder.wait(12)
    assert batcher.failed == 0
    batcher.close()
