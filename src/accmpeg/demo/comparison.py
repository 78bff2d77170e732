"""The demo's comparison: plain x264, x264 with adaptive quantisation, and AccMPEG, at the same bytes.

```
clip ─┬▶ AccMPEG graded, rate-controlled to B bit/s ───────┐
      ├▶ x264 adaptive quantisation, at least those bytes ─┼▶ decode ─▶ server DNN ─▶ accuracy, delay
      └▶ x264 constant QP, at least those bytes ───────────┘
```
AccMPEG and adaptive quantisation run at the clip's size and at that at which the server DNN sees it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accmpeg.accmodel.runtime import AccModel
from accmpeg.demo import demo_scene
from accmpeg.demo.scene import CLASS_NAMES, true_detections
from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.clip import Clip, read_clip
from accmpeg.evaluation.link import Link, emulate
from accmpeg.evaluation.methods import METHODS, MethodContext, OperatingPoint
from accmpeg.evaluation.run import Cell, evaluate, reference_results, stream_bytes
from accmpeg.tasks import ClipAccuracy

__all__ = ["EMBEDDED_FRAMES", "LINK_BANDWIDTH_BPS", "OURS", "Comparison", "Row", "compare", "embedded_clip"]

EMBEDDED_FRAMES = 150
LINK_BANDWIDTH_BPS = 1_000_000
PICTURES = 3
_PROPAGATION_MS = 20.0
_QUALITY_RANGE = (10, 51)

TITLES = {
    "constant-qp": "x264, constant QP",
    "aq-1": "x264, adaptive quantisation",
    "aq-1@dnn": "x264, adaptive quantisation, DNN's size",
    "graded": "AccMPEG, graded map",
    "graded@dnn": "AccMPEG, graded map, DNN's size",
}
OURS = ("graded", "graded@dnn")


@dataclass(frozen=True)
class Row:
    """One method of the table."""

    title: str
    cell: Cell
    delay_p50_ms: float
    delay_p95_ms: float


@dataclass(frozen=True)
class Comparison:
    """Everything the table and the report show."""

    clip: Clip
    dnn: ServerDnn
    accmodel: AccModel
    bitrate_bps: int
    step: int
    rows: Sequence[Row]
    references: Sequence[Any]
    pictured: Sequence[int]
    """The frames (indices) that the report shows."""
    source_accuracy: ClipAccuracy | None
    """Against true labels, on the source frames: what no encoder can beat by much."""


def embedded_clip(limit: int | None = None) -> Clip:
    """The first frames of the embedded scene with their true labels."""
    with demo_scene(frame_count=limit or EMBEDDED_FRAMES) as scene:
        return read_clip(scene, labels=true_detections(scene), label_classes=CLASS_NAMES)


def compare(
    clip: Clip,
    dnn: ServerDnn,
    dnn_card: Path,
    accmodel: AccModel,
    *,
    bitrate_bps: int,
    step: int,
    every: int = 10,
    report: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Runs the methods on a clip; `report` is told what is being done.

    Accuracy is measured on every `step`-th frame. Raises what encoders, decoders and the server DNN raise.
    """
    context = MethodContext(dnn, dnn_card, accmodel, every)
    report("server DNN on the source frames")
    references = reference_results(clip, context, step)
    samples = np.linspace(0.1, 0.9, PICTURES) * (len(references) - 1)
    pictured = tuple(int(sample) * step for sample in np.unique(samples.astype(int)))
    cells: dict[str, Cell] = {}
    for name in (*OURS, *(name for name in TITLES if name not in OURS)):
        report(TITLES[name])
        if name in OURS:
            point = OperatingPoint(bitrate_bps=bitrate_bps)
        else:
            least_bytes = max(cells[ours].size_bytes for ours in OURS)
            point = _point_of_size(clip, name, context, least_bytes)
        cells[name] = evaluate(
            clip, METHODS[name], point, context, references, step=step, keep=frozenset(pictured)
        )
    labels = None if clip.labels is None else clip.labels[::step]
    return Comparison(
        clip=clip,
        dnn=dnn,
        accmodel=accmodel,
        bitrate_bps=bitrate_bps,
        step=step,
        rows=[_row(clip, cells[name]) for name in TITLES],
        references=references,
        pictured=pictured,
        source_accuracy=None if labels is None else dnn.task.clip_accuracy(references, labels),
    )


def _point_of_size(clip: Clip, method: str, context: MethodContext, size_bytes: int) -> OperatingPoint:
    """The coarsest QP or CRF whose stream has at least `size_bytes`, so that no baseline gets fewer bytes."""

    def is_enough(quality: int) -> bool:
        point = OperatingPoint(quality=quality)
        return stream_bytes(clip, METHODS[method], point, context) >= size_bytes

    enough, too_coarse = _QUALITY_RANGE
    while too_coarse - enough > 1:
        middle = (enough + too_coarse) // 2
        if is_enough(middle):
            enough = middle
        else:
            too_coarse = middle
    return OperatingPoint(quality=enough)


def _row(clip: Clip, cell: Cell) -> Row:
    link = Link(bandwidth_bps=LINK_BANDWIDTH_BPS, propagation_ms=_PROPAGATION_MS)
    delays_ms = emulate(cell.flows, len(clip.frames), link).delays_ms
    p50, p95 = np.percentile(delays_ms, [50, 95])
    return Row(TITLES[cell.method], cell, float(p50), float(p95))
