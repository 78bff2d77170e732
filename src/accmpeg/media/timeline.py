"""When frames are shown: the order that decoders lose, and clocks that jump, stand still or are not there.

```
packets ─▶ DisplayOrder.fed ─▶ decoder ─▶ DisplayOrder.shown ─▶ Timeline.stamp ─▶ pts from 0, rising
```
Pure arithmetic: arrival times come in as arguments.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

__all__ = [
    "LONGEST_GAP_S",
    "DamagedFrames",
    "DisplayOrder",
    "Pacing",
    "Timeline",
    "measured_rate",
    "paced_rate",
    "said_rate",
    "spread_arrivals",
]

LONGEST_GAP_S = 10
"""A longer gap between two frames is a jump of the clock, unless frames are further apart anyway."""

_MOST_WAITING = 32  # no codec reorders over more frames
_LONGEST_WAIT_S, _LATE_S = 1.0, 1.0
_COARSEST = 8  # frames that share one tick of a coarse clock; beyond, it stands still
_NEAR, _PLAIN = 0.02, (1, 1001)  # of rates: so far apart, and their denominators

log = logging.getLogger(__name__)


class DisplayOrder:
    """The time at which each decoded frame is shown, for containers that number packets as they are decoded.

    AVI, ASF and some MXF and Matroska files count packets in decoding order, or give no pts at all: with
    B-frames the frames' times then go back and forth (1, 4, 3, 5, 2). The times themselves are right, only
    handed to the wrong frames, so the first frame out of the decoder gets the first time that went in. Where
    times of packets do go back, as they must with B-frames, the frames' own are right and are left alone.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._newest_fed: int | None = None
        self._newest_shown: int | None = None
        self._trusts_frames = False
        self._trusts_packets = False

    def fed(self, pts: int | None, dts: int | None) -> None:
        """A packet goes into the decoder."""
        stamp = pts if pts is not None else dts
        if self._trusts_frames or stamp is None:
            return
        fell = self._newest_fed is not None and stamp < self._newest_fed
        if (fell and not self._trusts_packets) or len(self._waiting) == _MOST_WAITING:
            self._trusts_frames = True
            self._waiting.clear()
            return
        self._newest_fed = stamp
        self._waiting.append(stamp)

    def failed(self) -> None:
        """The decoder refused the packet that went in last: no frame will come of it."""
        if self._waiting:
            self._waiting.pop()

    def shown(self, pts: int | None, *, is_keyframe: bool, reorders: bool) -> int | None:
        """The time of a frame that comes out of the decoder with this pts."""
        if self._trusts_frames:
            return pts
        if pts is not None:
            if self._newest_shown is not None and pts < self._newest_shown and reorders:
                self._trusts_packets = True
            self._newest_shown = pts
            # All that went in before a keyframe is shown before it: what is left of it was never decoded.
            while self._waiting and self._waiting[0] < pts and (is_keyframe or not reorders):
                self._waiting.popleft()
        return self._waiting.popleft() if self._waiting else pts


class DamagedFrames:
    """Counts the damaged frames that are shown before each good one; decoders may meet later ones sooner.

    >>> damaged = DamagedFrames()
    >>> damaged.add(4)
    >>> damaged.before(3), damaged.before(5)
    (0, 1)
    """

    def __init__(self) -> None:
        self._ahead: list[float] = []
        self._passed = 0

    def add(self, pts: int | None) -> None:
        """A frame of that time is damaged."""
        self._ahead.append(-math.inf if pts is None else pts)

    def before(self, pts: int | None) -> int:
        """So many in all, for the next good frame in the order of display."""
        ahead = [each for each in self._ahead if pts is not None and each > pts]
        self._passed += len(self._ahead) - len(ahead)
        self._ahead = ahead
        return self._passed


class Timeline:
    """Gives frames rising times from 0 on, whatever their clock does.

    Jumps (an hour between two recordings put together, a clock that starts anew) are closed up to one frame
    and logged once. A single time that does not rise moves its frame by one tick. Frames without a time, or
    with that of a clock that stands still, follow one frame after the last, in a live source as long after it
    as they arrived.
    """

    def __init__(self, name: str, time_base: Fraction, frame_rate: Fraction, *, is_live: bool) -> None:
        self._name = name
        self._time_base = time_base
        self._step = max(1, round(1 / (frame_rate * time_base)))
        self._longest = max(round(LONGEST_GAP_S / time_base), 2 * self._step)
        self._is_live = is_live
        self._shift: int | None = None
        self._last: int | None = None
        self._last_arrived_s = 0.0
        self._read: int | None = None
        self._still = 0
        self.jumps = 0

    def stamp(self, pts: int | None, arrived_s: float) -> int:
        """The time of the next frame in ticks of the time base. `arrived_s`: a monotonic clock's."""
        elapsed = round((arrived_s - self._last_arrived_s) / self._time_base)
        self._last_arrived_s = arrived_s
        if self._last is None:
            self._last = 0
            self._shift = None if pts is None else -pts
            return 0
        self._still = self._still + 1 if pts is not None and pts == self._read else 0
        self._read = pts
        if self._still >= _COARSEST:
            pts = self._shift = None
        onward = max(1, elapsed) if self._is_live else self._step
        if pts is None:
            self._last += onward
            return self._last
        if self._shift is None:
            self._shift = self._last + onward - pts
        gap = pts + self._shift - self._last
        if -2 * self._step < gap <= 0:
            gap = 1
        elif gap <= 0 or (gap > self._longest and not (self._is_live and gap - elapsed < self._longest)):
            self._tell(gap)
            self._shift += onward - gap
            gap = onward
        self._last += gap
        return self._last

    def _tell(self, gap: int) -> None:
        self.jumps += 1
        if self.jumps == 1:
            log.warning(
                "the clock of %s jumps by %+.1f s: closed up, as later jumps will be",
                self._name,
                float(gap * self._time_base),
            )


class Pacing:
    """How long the frames of a live stream that comes in whole segments wait, to go on one by one.

    A frame that is a second late begins anew: the stream had stopped.

    >>> pacing = Pacing()
    >>> pacing.wait_s(0.0, now_s=5.0), pacing.wait_s(0.25, now_s=5.0), pacing.wait_s(0.5, now_s=5.75)
    (0.0, 0.25, 0.0)
    >>> pacing.wait_s(0.75, now_s=9.0), pacing.wait_s(1.0, now_s=9.0)
    (0.0, 0.25)
    """

    def __init__(self) -> None:
        self._start_s: float | None = None

    def wait_s(self, time_s: float, now_s: float) -> float:
        """Before the frame of that time goes on."""
        if self._start_s is None or now_s - self._start_s - time_s > _LATE_S:
            self._start_s = now_s - time_s
        return min(_LONGEST_WAIT_S, max(0.0, self._start_s + time_s - now_s))


def measured_rate(arrivals_s: list[float]) -> Fraction | None:
    """Frames per second of frames that arrived at these times; None where there is nothing to go by.

    What came at once with the frame before it had waited somewhere and says nothing.

    >>> measured_rate([0.0, 0.0, 0.0, 0.2, 0.4, 0.61])
    Fraction(5, 1)
    """
    gaps_s = [after - before for before, after in pairwise(arrivals_s)]
    longest_s = max(gaps_s, default=0.0)
    apart_s = [gap_s for gap_s in gaps_s if gap_s > longest_s / 4]
    if longest_s < 1e-3:
        return None
    return _rounded(len(apart_s) / sum(apart_s))


def paced_rate(times_s: list[float]) -> Fraction | None:
    """Frames per second of frames with these times, without the pauses; None where there is nothing to go by.

    >>> paced_rate([0.0, 0.03, 0.067, 0.1, 5.1, 5.133])
    Fraction(30, 1)
    """
    gaps_s = sorted(after - before for before, after in pairwise(times_s) if after > before)
    even_s = [gap_s for gap_s in gaps_s if gap_s <= 4 * gaps_s[len(gaps_s) // 2]]
    return _rounded(len(even_s) / sum(even_s)) if even_s else None


def said_rate(paced: Fraction, said: Sequence[Fraction | None]) -> Fraction:
    """The first plain one of the rates that a file says, near to that of its first frames by a coarse clock.

    >>> said_rate(Fraction(119), [Fraction(1000), Fraction(120)])
    Fraction(120, 1)
    """
    near = [each for each in said if each and abs(each / paced - 1) < _NEAR]
    return next((each for each in near if each.denominator in _PLAIN), paced)


def _rounded(rate: float) -> Fraction:
    whole = round(rate)
    return Fraction(whole) if abs(rate - whole) < 0.06 * rate else Fraction(rate).limit_denominator(100)


def spread_arrivals(arrivals_s: list[float], frame_rate: Fraction) -> list[float]:
    """The same times, but frames that had waited and came at once are put one frame apart, before the last.

    >>> spread_arrivals([0.0, 0.0, 0.2, 0.4], Fraction(5))
    [-0.2, 0.0, 0.2, 0.4]
    """
    interval_s = float(1 / frame_rate)
    spread = list(arrivals_s)
    for index in reversed(range(len(spread) - 1)):
        if spread[index + 1] - spread[index] < interval_s / 4:
            spread[index] = spread[index + 1] - interval_s
    return spread
