"""Cuts a site's footage into short parts: some to choose by, others to judge the choice by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from accmpeg.errors import SourceError, UsageError
from accmpeg.evaluation.bench.clip import warm_frames
from accmpeg.evaluation.bench.plan import ClipSpec, footage_clips
from accmpeg.media.seeking import frames_of
from accmpeg.media.shared_files import local_file
from accmpeg.media.source import Footage, open_source

__all__ = ["LEAST_FRAMES", "MOST_PARTS", "PART_FRAMES", "Parts", "cut"]

PART_FRAMES = 96
"""Of each part where there is enough footage: one second warms up, the rest is measured. Short footage is
used to its last frame: its parts are longer, or are all that there is."""
MOST_PARTS = 4
"""To choose by, and as many to judge by."""
LEAST_FRAMES = 24
"""Fewer frames in half a clip make no part."""
ENOUGH_FRAMES = 150
"""To choose by, measured. Where every second frame gives fewer, every frame is measured: with 40 frames in
place of 140 chance moves a gain by 0.1 to 0.4 in log bytes, more than most levers do."""
SAME_RATE = 0.02
"""Clips of 29.97 and of 30 frames/s come from one camera."""


@dataclass(frozen=True)
class Parts:
    """Of one camera: frames of one size at one rate."""

    choice: tuple[ClipSpec, ...]
    judging: tuple[ClipSpec, ...]
    size_px: tuple[int, int]
    frame_rate: Fraction
    """Of what is sent: the source's, or that of the results asked for."""
    step: int = 1
    """Answers are measured on every so many frames."""
    phases: int = 1
    """So many parts share a stretch of footage, each with other frames of it."""


def cut(
    footage: Sequence[Footage], *, results_per_second: float | None = None, labels: Path | None = None
) -> Parts:
    """Parts of a camera's footage: the first half of each clip to choose by, the second half to judge by.

    With `results_per_second` below the source's rate, every so many frames make the parts, as from a camera
    that sends no more than is answered. Raises SourceError for footage that can't be read or is too short,
    UsageError where clips differ in size or rate.
    """
    specs = footage_clips(footage, labels)
    items = [item for item in footage if item.kind != "still"]
    if not specs:
        raise SourceError(
            "no clip to profile: give videos, or folders of pictures whose names are numbers alone (0001.jpg)"
        )
    sizes: dict[tuple[int, int], str] = {}
    rates: dict[str, Fraction] = {}
    cuts: list[tuple[ClipSpec, int, int]] = []
    for spec, item in zip(specs, items, strict=True):
        with local_file(item.location) as path:
            with open_source(path) as source:
                info = source.info
            frames = frames_of(path)
        sizes.setdefault((info.width_px, info.height_px), spec.name)
        stride = 1
        if results_per_second is not None:
            stride = max(1, round(float(info.frame_rate) / results_per_second))
        rates[spec.name] = info.frame_rate / stride
        half = frames // 2 // stride
        if half >= LEAST_FRAMES:
            cuts.append((spec, half, stride))
    if len(sizes) > 1:
        shown = ", ".join(f"{name} {width}x{height}" for (width, height), name in sizes.items())
        raise UsageError(f"clips of several sizes ({shown}): a profile is of one camera, so give one size")
    if not cuts:
        raise SourceError(f"no clip has {2 * LEAST_FRAMES} frames at the rate asked for: give longer footage")
    slow, fast = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    if rates[fast] > rates[slow] * (1 + SAME_RATE):
        shown = ", ".join(f"{name} {float(rates[name]):.4g} frames/s" for name in (slow, fast))
        raise UsageError(f"clips of several rates ({shown}): a profile is of one camera, so give one rate")
    cuts.sort(key=lambda each: -each[1])
    del cuts[MOST_PARTS:]
    (size_px,) = sizes
    stretches = _stretches(cuts)
    measured = sum(frames - warm_frames(frames, rates[spec.name]) for spec, _, _, frames, _ in stretches)
    # Frames that a slower camera would not send make parts of their own, where the others are few.
    strides = [stride for *_, stride in stretches]
    phases = min(*strides, MOST_PARTS // len(strides), math.ceil(ENOUGH_FRAMES / measured))
    choice, judging = (
        tuple(
            spec.part(f"{spec.name}@{start + phase}", start + phase, frames, stride)
            for phase in range(phases)
            for spec, *starts, frames, stride in stretches
            for start in [starts[half]]
        )
        for half in (0, 1)
    )
    step = 1 if measured / 2 < ENOUGH_FRAMES else 2
    return Parts(choice, judging, size_px, rates[cuts[0][0].name], step, phases)


def _stretches(cuts: Sequence[tuple[ClipSpec, int, int]]) -> list[tuple[ClipSpec, int, int, int, int]]:
    """Of clips with half their frames as sent, and their stride: clip, first frame to choose by and to judge
    by, frames as sent, stride. The first ones come from several clips."""
    found: list[tuple[int, tuple[ClipSpec, int, int, int, int]]] = []
    short = sum(half for _, half, _ in cuts) <= MOST_PARTS * PART_FRAMES
    for number, (spec, half, stride) in enumerate(cuts):
        share = MOST_PARTS // len(cuts) + (number < MOST_PARTS % len(cuts))
        count = max(1, min(share, half // PART_FRAMES))
        frames = half // count if short else min(PART_FRAMES, half)
        for place in range(count):
            first = place * (half - frames) // max(1, count - 1)
            found.append((place, (spec, first * stride, (half + first) * stride, frames, stride)))
    return [stretch for _, stretch in sorted(found, key=lambda each: each[0])]
