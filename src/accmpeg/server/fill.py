"""Fills in results where more are wanted than frames come: the seen one's objects, moved on to now.

```
seen       ●───────────────●───────────────●      answers of the server DNN, as they come
published  ●────○────○─────●────○────○─────●      each ○ as long after ● as it was captured after it
```
"""

import asyncio
from collections.abc import Callable
from typing import Any

from accmpeg.server.cameras import CLOCK
from accmpeg.server.changes import Changes
from accmpeg.server.motion import LOST_S, Motion
from accmpeg.server.threads import in_thread

__all__ = ["Filler"]

LONGEST_S = 1.0
"""So long after a seen frame its objects are moved on; then nothing is said of them any more."""


class Filler:
    """Publishes what lies between the seen results of one live stream, until `end`. Event loop only.

    A tracked result has about the delay of the seen one before it: it waits for no other frame. It is left
    out where a frame of about its time has come, which will be answered itself.

    Args:
        per_s: How many results a second are wanted in all.
        time_base: Seconds that `pts` counts in, as numerator and denominator.
        size_px: Of the frames that results are in pixels of.
        comes_by: Whether an unanswered frame is there that was captured by then, in microseconds.
        publish: Takes an event.
    """

    def __init__(
        self,
        per_s: float,
        time_base: tuple[int, int],
        size_px: tuple[int, int],
        *,
        comes_by: Callable[[float], bool],
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self._step_s = 1 / per_s
        self._pts_per_s = time_base[1] / time_base[0]
        self._motion = Motion(size_px)
        self._comes_by = comes_by
        self._publish = publish
        self._changes = Changes()
        self._seen: tuple[dict[str, Any], float] | None = None
        self._captured_us = -(1 << 62)
        self._ended = False

    def saw(self, event: dict[str, Any]) -> None:
        """A result was published; that of a frame a little earlier than the last (B-frames) says nothing."""
        if not 0 <= self._captured_us - event["captured_us"] < LOST_S * 1e6:
            self._captured_us = event["captured_us"]
            self._seen = event, asyncio.get_running_loop().time()
            self._changes.notify()

    def end(self) -> None:
        """The camera is gone, and what it has shown with it."""
        self._ended = True
        self._changes.notify()

    async def run(self) -> None:
        """Until `end`."""
        while True:
            await self._changes.until(self._has_news)
            if self._ended or self._seen is None:
                return
            (event, answered_s), self._seen = self._seen, None
            # Some milliseconds for a crowd, which the event loop does not have.
            await in_thread(self._motion.see, event["result"], event["captured_us"] / 1e6)
            await self._fill(event, answered_s)

    def _has_news(self) -> bool:
        return self._ended or self._seen is not None

    async def _fill(self, event: dict[str, Any], answered_s: float) -> None:
        for number in range(1, int(LONGEST_S / self._step_s) + 1):
            later_s = number * self._step_s
            try:
                async with asyncio.timeout_at(answered_s + later_s):
                    await self._changes.until(self._has_news)
                return
            except TimeoutError:
                if self._has_news():  # at the same moment
                    return
                captured_us = event["captured_us"] + round(later_s * 1e6)
            if not self._comes_by(captured_us + self._step_s * 5e5):
                tracked = {
                    "tracked": True,
                    "captured_us": captured_us,
                    "pts": event["pts"] + round(later_s * self._pts_per_s),
                    "answered_us": CLOCK.utc_us(),
                    "result": self._motion.at(captured_us / 1e6),
                    "camera_ms": {},
                    "server_ms": {},
                }
                self._publish(event | tracked)
