"""What every source is: frames once, and what is known of them beforehand."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av

from accmpeg.media.closing import Closing

__all__ = ["ENDED", "Source", "SourceInfo"]

ENDED = "the live stream has ended, and its last pictures alone are there: waiting for it to go on"
"""Of an address that was live and is not: the playlist of an HLS stream says so, and still lists the last."""


@dataclass(frozen=True)
class SourceInfo:
    """What is known at open. `name` holds no secrets; `frame_count` is None where nobody can tell.

    `pixel_aspect` is the width of a pixel over its height. `remarks` are lines for a person about what does
    not come through as it is: sound, interlacing, bit depth. `reopens`: a live source that ended may be
    opened again; standard input can't be.
    """

    name: str
    width_px: int
    height_px: int
    frame_rate: Fraction
    time_base: Fraction
    frame_count: int | None
    is_live: bool
    pixel_aspect: Fraction = Fraction(1)
    remarks: tuple[str, ...] = ()
    reopens: bool = True

    def pixel_aspect_at(self, width_px: int, height_px: int) -> Fraction:
        """The pixels' aspect that keeps the picture's shape in another size; square ones stay square."""
        if self.pixel_aspect == 1:
            return self.pixel_aspect
        scaled = self.pixel_aspect * Fraction(self.width_px * height_px, self.height_px * width_px)
        return scaled.limit_denominator(1000)


class Source(Closing, ABC):
    """Iterate once over its frames: yuv420p, all of `info`'s size, pts rising from 0 in `info.time_base`."""

    info: SourceInfo
    skipped_frames: int = 0
    passed_over: int = 0
    """Damaged frames and pictures before the last one given, which count where frames are numbered."""
    skipped_pictures: Sequence[str] = ()
    """Of a folder: the pictures among the skipped frames, each with the reason."""

    def approach(self, first: int) -> int:
        """Lets iteration begin shortly before frame `first` where it can, all frames and times as they were.

        Returns the number of the frame that it begins with.
        """
        return 0

    def go_on_after(self, before: "Source") -> None:
        """Leaves out what `before`, an earlier opening of the same address, has given already."""

    @abstractmethod
    def __iter__(self) -> Iterator[av.VideoFrame]: ...
