"""A clip held in memory, so that every method sees the very same source frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from accmpeg.errors import SourceError
from accmpeg.media.source import Source

__all__ = ["Clip", "read_clip", "warm_frames"]


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
    label_classes: tuple[str, ...] = ()
    """What the class numbers of `labels` count."""

    source_bitrate_bps: float = 0.0
    """Of the file that the frames come from; 0 where that says nothing (pictures, a rendered scene)."""

    @property
    def warm_frames(self) -> int:
        """Frames of the first second: encoders, maps and feedback settle in them; they aren't measured."""
        return warm_frames(len(self.frames), self.frame_rate)

    def measured_frames(self, step: int) -> range:
        """Every `step`-th frame after the warm-up."""
        return range(self.warm_frames, len(self.frames), step)

    def capture_s(self, index: int) -> float:
        """When a frame was captured, in seconds from the first one."""
        first, frame = self.frames[0], self.frames[index]
        if frame.pts is None or first.pts is None:
            return index / float(self.frame_rate)
        return float((frame.pts - first.pts) * self.time_base)


def warm_frames(frames: int, frame_rate: Fraction) -> int:
    """How many of a clip's frames warm up: a second, no more than a third of the clip."""
    return min(math.ceil(frame_rate), frames // 3)


def read_clip(
    source: Source,
    *,
    limit: int | None = None,
    first: int = 0,
    stride: int = 1,
    labels: Sequence[Any] | None = None,
    label_classes: tuple[str, ...] = (),
    source_bitrate_bps: float = 0.0,
) -> Clip:
    """Decodes up to `limit` frames of an open source, no more than have labels if there are any.

    They begin at frame `first`, and are every `stride`-th from there, as from a slower camera. Raises
    SourceError where there is none, or where many more have labels: those are of another clip, such as one of
    twice the rate.
    """
    wanted = None if labels is None else len(labels[first::stride])
    if wanted is not None:
        limit = min(wanted, limit or wanted)
    frames: list[av.VideoFrame] = []
    places: list[int] = []
    for index, frame in enumerate(source, source.approach(first)):
        place = index + source.passed_over
        if (limit is not None and len(frames) >= limit) or (labels is not None and place >= len(labels)):
            break
        if place >= first and (place - first) % stride == 0:
            frames.append(frame)
            places.append(place)
    if not frames:
        raise SourceError(f"{source.info.name} has no frame to compare on")
    if labels is not None and limit is not None and len(frames) < 0.9 * limit:
        raise SourceError(
            f"{source.info.name} ends after {len(frames)} frames, and its labels are of {wanted}: "
            "give the clip that was labelled, or leave out the labels of what is not in it"
        )
    info = source.info
    return Clip(
        name=info.name,
        frames=frames,
        width_px=frames[0].width,
        height_px=frames[0].height,
        frame_rate=info.frame_rate / stride,
        time_base=info.time_base,
        labels=None if labels is None else [labels[place] for place in places],
        label_classes=label_classes,
        source_bitrate_bps=source_bitrate_bps,
    )
