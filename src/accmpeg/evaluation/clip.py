"""A clip held in memory, so that every method sees the very same source frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from accmpeg.errors import SourceError
from accmpeg.media.source import Source

__all__ = ["Clip", "read_clip"]


@dataclass(frozen=True)
class Clip:
    """Source frames (yuv420p) of one size, with labels per frame where the clip has true ones."""

    name: str
    frames: Sequence[av.VideoFrame]
    width_px: int
    height_px: int
    frame_rate: Fraction
    time_base: Fraction
    labels: Sequence[Any] | None = None

    @property
    def duration_s(self) -> float:
        return len(self.frames) / float(self.frame_rate)


def read_clip(source: Source, *, limit: int | None = None, labels: Sequence[Any] | None = None) -> Clip:
    """Decodes up to `limit` frames of an open source; raises SourceError where there is none."""
    frames: list[av.VideoFrame] = []
    for frame in source:
        frames.append(frame)
        if limit is not None and len(frames) >= limit:
            break
    if not frames:
        raise SourceError(f"{source.info.name} has no frame to compare on")
    info = source.info
    return Clip(info.name, frames, frames[0].width, frames[0].height, info.frame_rate, info.time_base, labels)
