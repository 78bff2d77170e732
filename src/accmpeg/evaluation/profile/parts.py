"""Cuts a site's footage into short parts: some to choose by, others to judge the choice by."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from accmpeg.errors import SourceError, UsageError
from accmpeg.evaluation.bench.plan import ClipSpec, footage_clips
from accmpeg.media.footage import folder_pictures
from accmpeg.media.shared_files import local_file
from accmpeg.media.source import Footage, open_source

__all__ = ["LEAST_FRAMES", "MOST_PARTS", "PART_FRAMES", "Parts", "cut"]

PART_FRAMES = 96
"""Of each part: one second warms up, the rest is measured."""
MOST_PARTS = 4
"""To choose by, and as many to judge by."""
LEAST_FRAMES = 24
"""Fewer frames in half a clip make no part."""


@dataclass(frozen=True)
class Parts:
    """Of one camera: frames of one size at one rate."""

    choice: tuple[ClipSpec, ...]
    judging: tuple[ClipSpec, ...]
    size_px: tuple[int, int]
    frame_rate: Fraction
    """Of what is sent: the source's, or that of the results asked for."""


def cut(
    footage: Sequence[Footage], *, results_per_second: float | None = None, labels: Path | None = None
) -> Parts:
    """Parts of a camera's footage: the first half of each clip to choose by, the second half to judge by.

    With `results_per_second` below the source's rate, every so many frames make the parts, as from a camera
    that sends no more than is answered. Raises SourceError for footage that can't be read or is too short,
    UsageError where clips differ in size.
    """
    specs = footage_clips(footage, labels)
    items = [item for item in footage if item.kind != "still"]
    if not specs:
        raise SourceError("no clip to profile: give videos or folders of numbered pictures")
    sizes: dict[tuple[int, int], str] = {}
    cuts: list[tuple[ClipSpec, int, int]] = []
    rate = Fraction(0)
    for spec, item in zip(specs, items, strict=True):
        with local_file(item.location) as path:
            with open_source(path) as source:
                info = source.info
            frames = _frames(path)
        sizes.setdefault((info.width_px, info.height_px), spec.name)
        stride = 1
        if results_per_second is not None:
            stride = max(1, round(float(info.frame_rate) / results_per_second))
        rate = rate or info.frame_rate / stride
        half = frames // 2 // stride
        if half >= LEAST_FRAMES:
            cuts.append((spec, half, stride))
    if len(sizes) > 1:
        shown = ", ".join(f"{name} {width}x{height}" for (width, height), name in sizes.items())
        raise UsageError(f"clips of several sizes ({shown}): a profile is of one camera, so give one size")
    if not cuts:
        raise SourceError(f"no clip has {2 * LEAST_FRAMES} frames at the rate asked for: give longer footage")
    cuts.sort(key=lambda each: -each[1])
    del cuts[MOST_PARTS:]
    choice: list[ClipSpec] = []
    judging: list[ClipSpec] = []
    for number, (spec, half, stride) in enumerate(cuts):
        share = MOST_PARTS // len(cuts) + (number < MOST_PARTS % len(cuts))
        count = max(1, min(share, half // PART_FRAMES))
        for place in range(count):
            frames = min(PART_FRAMES, half)
            first = place * (half - frames) // max(1, count - 1) if count > 1 else 0
            for into, start in ((choice, 0), (judging, half)):
                name = f"{spec.name}@{(start + first) * stride}"
                into.append(spec.part(name, (start + first) * stride, frames, stride))
    (size_px,) = sizes
    return Parts(tuple(choice), tuple(judging), size_px, rate)


def _frames(path: Path) -> int:
    """As many as are there: what the head of a file says is more where its end is missing."""
    if path.is_dir():
        return len(folder_pictures(path))
    try:
        with av.open(path) as container:
            return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.FFmpegError, IndexError) as error:
        raise SourceError(f"can't read {path}: {error}") from error
