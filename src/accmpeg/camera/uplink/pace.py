"""How many frames a second camera and server get through within the delay budget, from what results took.

```
delay, capture to result = lag (camera: wait, encode; server: wait, decode, queue, infer) + rest (link, order)
allowed lag              = 0.8 budget − rest, a third of the budget at least
queue                    = (lag − least lag seen lately) / (allowed lag − least lag)
```
The link's part is the rate controller's, which lowers the bitrate; a machine that is behind needs fewer
frames. Pure: time is an argument, in seconds.
"""

from collections import deque
from collections.abc import Mapping

__all__ = ["Pace", "lag_ms"]

BUDGET_SHARE = 0.8
LEAST_LAG_SHARE = 1 / 3
RECENT = 20
"""The second longest lag of so many results counts: one in twenty may be late."""
LEAST_OF = 100
"""The least lag of so many results is what a frame takes that waits for no other."""
EASE_ABOVE, GROW_BELOW = 0.7, 0.4
"""Queues. In between the rate stays."""
LEAST_ROOM_SHARE = 0.25
"""A machine that is slow by itself leaves no room: of the allowed lag a queue has so much of it then."""
TRIED_OF, TRY_S = 5, 10.0
"""Fewer frames are tried so often, when there are so many results to go by."""
DRAIN_SHARE, USED_SHARE, EASE_SHARE = 0.6, 0.9, 0.95
"""Of what comes back: sent while a queue drains, after that, and where a queue is about to build up."""
LONGEST_DRAIN_S = 2.0
STRANGE_S = 0.5
"""So long after the server has put another DNN in place, frames say nothing of it."""
GROWTH_PER_S = 0.02
"""By so much the rate grows in the first second after a cut, by twice as much every three more."""
DOUBLINGS = 3
"""What grows faster is past what the machines can do before results tell."""
FREE_ABOVE = 1.5
"""A limit so many times what comes holds nothing down: there is none."""
LEAST_PER_S = 1.0

_CAMERA_STAGES = ("wait", "encode_wall")
_SERVER_STAGES = ("wait", "decode", "queue", "infer")


def lag_ms(camera_ms: Mapping[str, float], server_ms: Mapping[str, float]) -> float:
    """What a frame took in the two machines, without what it waited there for its turn in the order."""
    on_camera = sum(camera_ms.get(stage, 0.0) for stage in _CAMERA_STAGES)
    return on_camera + sum(server_ms.get(stage, 0.0) for stage in _SERVER_STAGES)


class Pace:
    """A limit on frames a second, None where none is needed.

    ```
    queue > 1      drain: 0.6 of what comes back, until what had gathered is through; then 0.9 of it
    queue > 0.7    0.95 of what comes back, each second
    queue < 0.4    + 2 %/s, + 4 %/s, … + 16 %/s
    ```

    >>> pace = Pace(budget_ms=300)
    >>> for frame in range(30):
    ...     pace.took(0.3 + frame / 30, frame / 30, delay_ms=300, lag_ms=290)
    >>> 10 < pace.per_s < 30
    True
    """

    def __init__(self, budget_ms: float) -> None:
        self.per_s: float | None = None
        self._budget_ms = budget_ms
        self._came_s: deque[float] = deque(maxlen=RECENT)
        self._lags: deque[float] = deque(maxlen=RECENT)
        """In ms, of frames captured since the last change."""
        self._least: deque[float] = deque(maxlen=LEAST_OF)
        self._cut_s = self._moved_s = float("-inf")
        self._drained_s: float | None = None
        """When what had gathered is through: frames captured before say nothing."""
        self._used_per_s: float | None = None

    @property
    def longest_ms(self) -> float | None:
        """The lag that one in twenty of the last results exceeded; None before there are enough."""
        return sorted(self._least)[-1 - len(self._least) // RECENT] if len(self._least) >= RECENT else None

    def connected(self) -> None:
        """A new connection: how often results came before an outage does not say what the machines can do."""
        self._came_s.clear()
        self._lags.clear()

    def exchanged(self, now_s: float) -> None:
        """Another DNN is in place: what frames took so far, and while all change over, is not its doing."""
        if self._drained_s is None:
            self._used_per_s = self.per_s
        self._drained_s = max(self._drained_s or 0.0, now_s + STRANGE_S)
        self._lags.clear()
        self._least.clear()

    def took(self, now_s: float, captured_s: float, *, delay_ms: float, lag_ms: float) -> None:
        """A result has come, of a frame that was captured then."""
        rest_ms, budget_ms = delay_ms - lag_ms, self._budget_ms
        allowed_ms = max(LEAST_LAG_SHARE * budget_ms, BUDGET_SHARE * budget_ms - rest_ms)
        self._came_s.append(now_s)
        if self._drained_s is not None:
            if captured_s < self._drained_s:
                return
            self._drained_s, self._moved_s = None, now_s
            self.per_s = self._used_per_s
        self._lags.append(lag_ms)
        self._least.append(lag_ms)
        least_ms = min(self._least)
        room_ms = max(LEAST_ROOM_SHARE * allowed_ms, allowed_ms - least_ms)
        second_ms = sorted(self._lags)[-2] if len(self._lags) > 1 else 0.0
        queue = (second_ms - least_ms) / room_ms
        # A queue that has stood from the start looks like a slow machine: only fewer frames tell them apart.
        standing = second_ms > allowed_ms and len(self._lags) >= TRIED_OF and now_s - self._cut_s > TRY_S
        come_per_s = self._come_per_s()
        before = come_per_s if self.per_s is None else min(self.per_s, come_per_s)
        if queue > 1 or standing:
            self.per_s = max(LEAST_PER_S, DRAIN_SHARE * before)
            self._used_per_s = max(LEAST_PER_S, USED_SHARE * before)
            gathered_s = max(0.0, lag_ms - least_ms) / 1000
            self._drained_s = now_s + min(LONGEST_DRAIN_S, gathered_s / (1 - DRAIN_SHARE))
            self._cut_s = now_s
            self._lags.clear()
        elif now_s - self._moved_s > 1.0:
            self._move(now_s, queue, before, come_per_s)

    def _move(self, now_s: float, queue: float, before: float, come_per_s: float) -> None:
        if queue > EASE_ABOVE:
            self.per_s = max(LEAST_PER_S, EASE_SHARE * before)
            self._cut_s = now_s
        elif queue < GROW_BELOW and self.per_s is not None:
            self.per_s *= 1 + GROWTH_PER_S * 2 ** min(DOUBLINGS, (now_s - self._cut_s) / 3)
            if self.per_s > FREE_ABOVE * come_per_s:
                self.per_s = None
        self._moved_s = now_s
        self._lags.clear()

    def _come_per_s(self) -> float:
        """Results a second, of the last ones: where frames queue, so many are what the machines can do."""
        span_s = self._came_s[-1] - self._came_s[0]
        return (len(self._came_s) - 1) / span_s if span_s > 0 else float("inf")
