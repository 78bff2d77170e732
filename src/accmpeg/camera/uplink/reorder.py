"""How many B-frames the delay budget has room for.

Two B-frames in a row save about a seventh of the bytes, and every frame waits for three more until it is
decoded in its order (one: for two). Pure: time is an argument, in seconds.
"""

__all__ = ["BFrameRoom"]

MOST = 2
ADD_SHARE, KEEP_SHARE = 0.6, 0.8
"""Of the spare time: what waiting may take for B-frames to begin, and beyond what they end. They end before
frames are left out for the delay's sake."""
FIRST_S, CALM_S = 5.0, 15.0
"""So long after the start, and after a change, there is none: each costs a keyframe."""


class BFrameRoom:
    """Decides before each frame; `count` are the B-frames in a row now.

    >>> room = BFrameRoom()
    >>> [room.update(second, frame_ms=33.3, spare_ms=200.0) for second in range(8)]
    [0, 0, 0, 0, 0, 0, 2, 2]
    >>> room.update(8.0, frame_ms=100.0, spare_ms=200.0)
    0
    """

    def __init__(self) -> None:
        self.count = 0
        self._again_s: float | None = None

    def update(self, now_s: float, *, frame_ms: float, spare_ms: float) -> int:
        """With so long from one sent frame to the next, and so much of the budget that nothing else takes."""
        if self._again_s is None:
            self._again_s = now_s + FIRST_S
        wanted = next(b for b in range(MOST, -1, -1) if b == 0 or (b + 1) * frame_ms <= ADD_SHARE * spare_ms)
        too_many = self.count and (self.count + 1) * frame_ms > KEEP_SHARE * spare_ms
        if too_many or (wanted > self.count and now_s > self._again_s):
            self.count = wanted
            self._again_s = now_s + CALM_S
        return self.count
