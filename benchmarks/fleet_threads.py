"""Time, cores and threads of a simulated machine: what `fleet_model.py` is made of.

Why no SimPy, which is maintained: threads here share cores, so that the end of one moves whenever another
starts or ends. SimPy's resources hand out whole units; sharing would take a process with interrupts for every
piece of work, and it does half as many events per second even without them (670,000 against 1,250,000).
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from functools import partial

__all__ = ["Clock", "Cores", "Then", "Threads"]

Then = Callable[[], None]


class Clock:
    """What happens next, in order of time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._numbers = itertools.count()

    def at(self, when_s: float, then: Then) -> None:
        """Calls `then` at that time."""
        heapq.heappush(self._events, (when_s, next(self._numbers), then))

    def after(self, wait_s: float, then: Then) -> None:
        """Calls `then` so much later."""
        self.at(self.now_s + wait_s, then)

    def run(self, until_s: float) -> None:
        """Everything up to that time."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, then = heapq.heappop(self._events)
            then()
        self.now_s = until_s


class Cores:
    """Cores that running threads share in equal parts, none getting more than one.

    `others`: threads of other programs that want the same cores all the time. `virtual_s` is the work that
    each running thread has had; a thread ends when it has had its own.
    """

    def __init__(self, clock: Clock, cores: float, others: float = 0.0) -> None:
        self.busy_s = 0.0
        self._clock, self._cores, self._others = clock, cores, others
        self._running: list[tuple[float, int, Then]] = []
        self._numbers = itertools.count()
        self._virtual_s = self._seen_s = 0.0
        self._version = 0

    def run(self, work_s: float, then: Then) -> None:
        """Does so much work in a thread, then calls `then`."""
        self._advance()
        before, thread = self._speed, (self._virtual_s + work_s, next(self._numbers), then)
        heapq.heappush(self._running, thread)
        if self._running[0] is thread or self._speed != before:
            self._plan()

    @property
    def _speed(self) -> float:
        return min(1.0, self._cores / (len(self._running) + self._others)) if self._running else 1.0

    def _advance(self) -> None:
        passed_s, speed = self._clock.now_s - self._seen_s, self._speed
        self._virtual_s += passed_s * speed
        self.busy_s += passed_s * speed * len(self._running)
        self._seen_s = self._clock.now_s

    def _plan(self) -> None:
        self._version += 1
        if self._running:
            wait_s = max(0.0, self._running[0][0] - self._virtual_s) / self._speed
            self._clock.after(wait_s, partial(self._ended, self._version))

    def _ended(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        done = [heapq.heappop(self._running)]  # rounding must not keep the one that this event is for
        while self._running and self._running[0][0] <= self._virtual_s:
            done.append(heapq.heappop(self._running))
        self._plan()
        for _, _, then in done:
            then()


class Threads:
    """So many threads that take pieces of work in the order of their coming: an event loop is one of them."""

    def __init__(self, cores: Cores, count: int) -> None:
        self.work_s = 0.0
        """All that has been taken."""
        self._cores, self._free = cores, count
        self._waiting: deque[tuple[float, Then, Callable[[], bool]]] = deque()

    def run(self, work_s: float, then: Then, unwanted: Callable[[], bool] = lambda: False) -> None:
        """Queues a piece; one that is `unwanted` when its turn comes takes no time and has no end."""
        self._waiting.append((work_s, then, unwanted))
        if self._free:
            self._free -= 1
            self._next()

    def _next(self) -> None:
        while self._waiting:
            work_s, then, unwanted = self._waiting.popleft()
            if not unwanted():
                self.work_s += work_s
                self._cores.run(work_s, partial(self._done, then))
                return
        self._free += 1

    def _done(self, then: Then) -> None:
        then()
        self._next()
