"""The workers of one server DNN, a batcher each: on several devices, or several on one.

A camera joins the worker that has the least to do and stays there. While that worker fails or hangs, its
cameras' frames go to one that works; they return as soon as it may work again.
"""

import logging
from collections.abc import Mapping
from typing import Any

from accmpeg.dnn.base import ServerDnn
from accmpeg.media.patience import Patience
from accmpeg.quiet import FewRepeats
from accmpeg.server.batcher import Batcher
from accmpeg.server.lanes import Job, Lane
from accmpeg.server.models import LoadedDnn, ModelIdentity

__all__ = ["DnnWorkers"]

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class DnnWorkers:
    """What cameras of one DNN see of it. Event loop only.

    Args:
        batchers: By the name of the worker; one at least.
    """

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        self.batchers = dict(batchers)
        self._first = next(iter(self.batchers.values()))
        self._homes: dict[Lane, Batcher] = {}
        self._places: dict[Lane, Batcher] = {}
        """Where each lane is now."""

    @property
    def name(self) -> str:
        return self._first.name

    @property
    def dnn(self) -> ServerDnn:
        """What it is; all workers run the same."""
        return self._first.dnn

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is, and where its first worker runs it."""
        return self._first.identity

    @property
    def copies(self) -> dict[str, int]:
        """How many copies of the DNN each worker has."""
        return {name: each.copies for name, each in self.batchers.items()}

    @property
    def waiting(self) -> int:
        return sum(each.waiting for each in self.batchers.values())

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.batchers.values())

    @property
    def problem(self) -> str:
        """Why no worker answers; empty where one does, or may."""
        problems = {name: each.problem for name, each in self.batchers.items()}
        if not all(problems.values()):
            return ""
        if len(problems) == 1:
            return self._first.problem
        return "; ".join(f"{name}: {problem}" for name, problem in problems.items())

    @property
    def is_down(self) -> bool:
        """Whether the problems of all have lasted."""
        return all(each.is_down for each in self.batchers.values())

    def rows(self) -> list[dict[str, Any]]:
        """What each worker is at, for people and programs."""
        return [
            {
                "dnn": self.name,
                "worker": name,
                "device": each.identity.device,
                "cameras": sorted(lane.name for lane in each.lanes),
                "waiting": each.waiting,
                "failed": each.failed,
                "problem": each.problem,
            }
            for name, each in self.batchers.items()
        ]

    def open_lane(self, name: str, capacity: int, patience: Patience | None, frame_rate: float) -> Lane:
        """A camera joins, as `Batcher.open_lane` has it; its frame rate says how much it brings to do."""
        home = self._freest()
        lane = home.open_lane(name, capacity, patience, frame_rate)
        self._homes[lane] = self._places[lane] = home
        return lane

    def close_lane(self, lane: Lane) -> None:
        """A camera leaves; what still waits is dropped. Safe to call twice."""
        self._homes.pop(lane, None)
        if (place := self._places.pop(lane, None)) is not None:
            place.close_lane(lane)

    def submit(self, lane: Lane, job: Job) -> None:
        """Queues a frame at the lane's own worker, or at one that works while that one does not."""
        place = self._places.get(lane, self._first)  # a batcher that does not know a lane drops its frames
        if len(self.batchers) > 1 and lane in self._homes and (better := self._better(lane)) is not place:
            log.warning(
                "a camera changes its worker",
                extra={"camera": lane.name, "dnn": self.name, "reason": place.problem or "its own is back"},
            )
            place.release(lane)
            better.adopt(lane)
            place = self._places[lane] = better
        place.submit(lane, job)

    def saw(self, lane: Lane, *, answered: bool) -> None:
        """A live camera's frame was answered, or gave way because the DNN is behind."""
        if (place := self._places.get(lane)) is not None:
            place.result_rate.saw(answered=answered)

    def offered_per_s(self, lane: Lane) -> float | None:
        """What a live camera may count on now; None without a limit."""
        place = self._places.get(lane)
        return None if place is None else place.offered_per_s()

    def exchange(self, loaded: Mapping[str, LoadedDnn]) -> None:
        """Puts another DNN in place at every worker, as `Batcher.exchange` does. Raises `UsageError`."""
        for name, batcher in self.batchers.items():
            batcher.exchange(loaded[name])

    def _better(self, lane: Lane) -> Batcher:
        home, place = self._homes[lane], self._places[lane]
        if not home.problem:
            return home
        if not place.problem:
            return place
        freest = self._freest()
        return place if freest.problem else freest

    def _freest(self) -> Batcher:
        """The one with the least to do, of those that work if any does."""
        return min(self.batchers.values(), key=lambda each: (each.problem != "", _load_per_s(each)))


def _load_per_s(batcher: Batcher) -> float:
    """Frames per second that its cameras mean to send."""
    return sum(lane.frame_rate for lane in batcher.lanes)
