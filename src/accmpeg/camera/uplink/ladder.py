"""Which picture size and frame rate a bitrate deserves. Pure: every call takes the time, in milliseconds."""

from dataclasses import dataclass

__all__ = ["FULL", "LEVELS", "Ladder", "Level"]


@dataclass(frozen=True, slots=True)
class Level:
    """A picture `scale` times as wide and high, and every `divisor`-th frame."""

    scale: float
    divisor: int

    @property
    def pixel_share(self) -> float:
        """Pixels per second, as a share of the full stream's."""
        return self.scale**2 / self.divisor


FULL = Level(1, 1)
LEVELS = (FULL, Level(0.75, 1), Level(0.5, 1), Level(0.5, 2), Level(0.5, 3))
"""Size goes first: server DNNs see pictures at 640 or so anyway, but motion needs frames."""


class Ladder:
    """Steps down when a pixel would get fewer than `least_bits_per_px`, up when the next level has enough.

    A step costs a keyframe, so a level is kept for at least `dwell_ms` (a fifth of it on the way down), and
    the way up needs `headroom` times the bits. With `every_frame` only the size changes.
    """

    def __init__(
        self,
        width_px: int,
        height_px: int,
        frame_rate: float,
        *,
        least_bits_per_px: float = 0.02,
        headroom: float = 1.4,
        dwell_ms: float = 5000.0,
        every_frame: bool = False,
    ) -> None:
        self.every_frame = every_frame
        self._least_bps = least_bits_per_px * width_px * height_px * frame_rate
        self._headroom = headroom
        self._dwell_ms = dwell_ms
        self._index = 0
        self._short_side_px = min(width_px, height_px)
        self._wanted_since_ms: tuple[int, float] | None = None

    @property
    def level(self) -> Level:
        """Where the stream is now."""
        return LEVELS[self._index]

    def update(self, now_ms: float, bitrate_bps: float) -> Level:
        """Takes the present target bitrate; returns the level for the next frame."""
        wanted = self._wanted(bitrate_bps)
        if wanted == self._index:
            self._wanted_since_ms = None
            return self.level
        down = wanted > self._index
        since = self._wanted_since_ms
        if since is None or (since[0] > self._index) != down:
            since = self._wanted_since_ms = (wanted, now_ms)
        if now_ms - since[1] >= (self._dwell_ms / 5 if down else self._dwell_ms):
            # Down at once to where it fits; up one level at a time.
            self._index = wanted if down else self._index - 1
            self._wanted_since_ms = None
        return self.level

    def _wanted(self, bitrate_bps: float) -> int:
        usable = [
            index
            for index, level in enumerate(LEVELS)
            if (level.scale == 1 or self._short_side_px * level.scale >= 180)
            and not (self.every_frame and level.divisor > 1)
        ]
        for index in usable:
            needed_bps = self._least_bps * LEVELS[index].pixel_share
            if bitrate_bps >= needed_bps * (self._headroom if index < self._index else 1.0):
                return index
        return usable[-1]
