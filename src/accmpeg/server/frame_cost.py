"""What a frame takes of a server DNN, from the batches that it has run."""

from collections import deque

__all__ = ["FrameCost"]

BATCHES = 20
LEFT_OUT = 10
"""One in so many batches, the slowest, does not count, and always one where there are three."""


class FrameCost:
    """The mean time of a frame in the last batches, without the slowest of them.

    A single stall, such as that of a runtime which meets a new batch size, says nothing of the next frame.

    >>> cost = FrameCost()
    >>> for seconds in (0.02, 0.02, 1.5):
    ...     cost.took(seconds, frames=2)
    >>> cost.frame_s
    0.01
    """

    def __init__(self, frame_s: float = 0.0) -> None:
        self._batches: deque[tuple[float, int]] = deque(maxlen=BATCHES)
        if frame_s:
            self.took(frame_s, 1)

    def took(self, seconds: float, frames: int) -> None:
        """A batch of so many frames was done."""
        self._batches.append((seconds / frames, frames))

    @property
    def frame_s(self) -> float:
        """In seconds; 0 while nothing is known."""
        count = len(self._batches)
        if not count:
            return 0.0
        kept = sorted(self._batches)[: count - max(count >= 3, count // LEFT_OUT)]
        return sum(each * frames for each, frames in kept) / sum(frames for _, frames in kept)

    def per_s(self, copies: int) -> float | None:
        """Frames a second that so many copies get through; None while nothing is known."""
        return copies / self.frame_s if self.frame_s else None
