"""Footage as jobs for labelling: decoded, sampled and capped, one piece of footage after the other.

A job carries its frame, so that it can be worked on in another process or on another machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation

from accmpeg.errors import MediaError
from accmpeg.media.frames import plane_view
from accmpeg.media.shared_files import is_shared_address, local_file
from accmpeg.media.source import open_source, read_still
from accmpeg.training.settings import Sampling

__all__ = ["Job", "Passed", "Reading", "expected_frames", "read_jobs"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A piece of footage to be read, without the frames that are `labelled` already.

    `labelled` has the checksum of each of them; None where older versions kept none.
    """

    location: Path | str
    kind: Literal["video", "frames", "still"]
    clip: str
    source: str
    sampling: Sampling
    max_side_px: int
    labelled: Mapping[int, int | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class Job:
    """A frame to label, in a form that crosses process boundaries (tightly packed yuv420p planes)."""

    clip: str
    source: str
    frame_index: int
    width_px: int
    height_px: int
    colour: tuple[int, int]
    planes: tuple[bytes, bytes, bytes]

    @classmethod
    def of(cls, frame: VideoFrame, clip: str, source: str, frame_index: int) -> "Job":
        y, u, v = (plane_view(frame, index).tobytes() for index in range(3))
        colour = int(frame.colorspace), int(frame.color_range)
        return cls(clip, source, frame_index, frame.width, frame.height, colour, (y, u, v))

    def __str__(self) -> str:
        return f"frame {self.frame_index} of {self.source}"

    @property
    def checksum(self) -> int:
        """Of the picture: whether footage of the same name is still the same."""
        return crc32(b"".join(self.planes))

    def frame(self) -> VideoFrame:
        frame = VideoFrame(self.width_px, self.height_px, "yuv420p")
        for index, packed in enumerate(self.planes):
            view = plane_view(frame, index)
            view[:] = np.frombuffer(packed, np.uint8).reshape(view.shape)
        frame.colorspace, frame.color_range = self.colour
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        return frame


@dataclass(frozen=True, slots=True)
class Passed:
    """The end of a piece of footage: sampled frames whose labels were `kept`, why others can't be read.

    `fatal`: the first reason is one to stop all work.
    """

    clip: str
    source: str
    kept: int
    reasons: tuple[str, ...]
    fatal: bool = False


def read_jobs(reading: Reading) -> Iterator[Job | Passed]:
    """The frames still to label in their order, and at last what was passed over."""
    kept, reasons = 0, list[str]()
    try:
        for index, frame in _sampled_frames(reading, reasons):
            job = Job.of(_capped(frame, reading.max_side_px), reading.clip, reading.source, index)
            if index not in reading.labelled:
                yield job
            elif reading.labelled[index] in (None, job.checksum):
                kept += 1
            else:
                changed = f"{reading.source} has become other footage since it was labelled: rename it"
                yield Passed(reading.clip, reading.source, kept, (changed,), fatal=True)
                return
    except MediaError as error:
        reasons.append(str(error))
    yield Passed(reading.clip, reading.source, kept, tuple(reasons))


def _sampled_frames(reading: Reading, reasons: list[str]) -> Iterator[tuple[int, VideoFrame]]:
    """The sampled frames with their indices, and the reasons of pictures left out; raises `MediaError`."""
    with local_file(reading.location) as path:
        yield from _sampled_frames_of(path, reading, reasons)


def _sampled_frames_of(path: Path, reading: Reading, reasons: list[str]) -> Iterator[tuple[int, VideoFrame]]:
    if reading.kind == "still":
        yield 0, read_still(path)
        return
    taken = 0
    with open_source(path) as source:
        for index, frame in enumerate(source):
            if index % reading.sampling.every == 0:
                yield index, frame
                taken += 1
                if taken == reading.sampling.limit:
                    break
        reasons += source.skipped_pictures


def expected_frames(reading: Reading) -> int:
    """How many frames a piece of footage should give; 0 where it does not say."""
    if reading.kind == "still":
        return 1
    if is_shared_address(reading.location):
        return 0
    try:
        with open_source(reading.location) as source:
            frames = source.info.frame_count or 0
    except MediaError:
        return 0
    sampled = -(-frames // reading.sampling.every)
    limit = reading.sampling.limit
    return sampled if limit is None else min(sampled, limit)


def _capped(frame: VideoFrame, max_side_px: int) -> VideoFrame:
    """The frame, scaled down to even sides where its long side exceeds `max_side_px`."""
    long_side = max(frame.width, frame.height)
    if long_side <= max_side_px:
        return frame
    width_px, height_px = (
        max(2, round(side * max_side_px / long_side / 2) * 2) for side in (frame.width, frame.height)
    )
    return frame.reformat(width=width_px, height=height_px, interpolation=Interpolation.AREA, threads=1)
