"""What the server DNN would find if it read larger or smaller pictures, and what that takes.

```
the card with each size ─▶ untouched x264 at a few points ─▶ S against labels, or a stronger DNN's answers
```

A DNN's own answers can't judge this: each size would be measured by itself. So all sizes are judged by the
same truth, and S is not divided by a ceiling.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import DnnCard, write_card
from accmpeg.errors import EvaluationError, UsageError
from accmpeg.evaluation.bench.cache import content_hash, read_results, write_results
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec
from accmpeg.evaluation.bench.rows import CellRow, by_clip
from accmpeg.evaluation.bench.sweep import run_sweep
from accmpeg.evaluation.findings.curves import fit, reach
from accmpeg.evaluation.findings.measured import cell_score
from accmpeg.evaluation.methods.whole_stream import StreamSetting, whole_stream
from accmpeg.evaluation.profile.parts import Parts
from accmpeg.evaluation.settings import ProfileSettings, SweepSettings

__all__ = ["Reading", "compare_readings", "with_reading"]

_PARTS, _POINTS = 2, 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """The server DNN reading one size, on streams of an untouched x264 at the source's size."""

    size_px: tuple[int, int]
    infer_ms: float
    """One pass on one core of the machine that measured."""
    best: float
    """S against the truth on a visually lossless stream, not divided by a ceiling."""
    bitrate_bps: float | None
    """For as many answers as the kept share of what the card's own size finds at best; None: never."""


def with_reading(card: DnnCard, longest_px: int) -> DnnCard:
    """The card of the same network reading pictures with that longest side; raises UsageError if it can't.

    >>> from accmpeg.dnn.card import HeadCard, InputCard
    >>> read = InputCard(name="x", width_px=640, height_px=640, size_multiple=32)
    >>> card = DnnCard(name="a", task="detection", adapter="onnx", model="a.onnx", classes=["car"],
    ...     input=read, head=HeadCard(name="yolo"))
    >>> with_reading(card, 1280).input.width_px
    1280
    """
    read = card.input
    if read.size_multiple is None:
        raise UsageError(
            f"--reading-size {longest_px}: {card.name} reads {read.width_px}x{read.height_px} alone: its "
            "card has no size_multiple"
        )
    scale = longest_px / max(read.width_px, read.height_px)
    sides = [max(1, round(side * scale / read.size_multiple)) for side in (read.width_px, read.height_px)]
    width_px, height_px = (side * read.size_multiple for side in sides)
    if max(width_px, height_px) != longest_px:
        raise UsageError(f"--reading-size {longest_px}: {card.name} takes multiples of {read.size_multiple}")
    return card.model_copy(
        update={
            "name": f"{card.name}-{longest_px}",
            "input": read.model_copy(update={"width_px": width_px, "height_px": height_px}),
        }
    )


def compare_readings(
    parts: Parts,
    dnn: DnnSpec,
    longest_px: Sequence[int],
    folder: Path,
    settings: ProfileSettings,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[Reading, ...]:
    """The card's own size first, then the others, on parts of the footage that choose.

    Raises UsageError for a size that the card does not allow and where nothing could judge, and what
    `run_sweep` raises.
    """
    if not longest_px:
        return ()
    if dnn.card.task != "detection":
        raise UsageError(f"--reading-size is for detectors, and {dnn.card.name} is for {dnn.card.task}")
    specs = [replace(dnn, stronger=None)]
    for side_px in dict.fromkeys(longest_px):
        card = with_reading(dnn.card, side_px)
        if card.input != dnn.card.input:
            specs.append(_written(dnn, card, folder))
    clips = tuple(clip for clip in parts.choice if clip.open(1).labels is not None)[:_PARTS]
    if not clips:
        judge = _judge(dnn, specs)
        clips = tuple(_labelled(each, judge, folder, parts.step, progress) for each in parts.choice[:_PARTS])
    sweep = SweepSettings(step=parts.step, points=_POINTS, server_ms=settings.server_ms, pictures=False)
    plain = StreamSetting().name
    rows = run_sweep(
        clips,
        specs,
        [whole_stream(plain)],
        folder,
        sweep,
        workers=settings.workers,
        progress=lambda kind, done, total: progress(f"reading sizes: {kind}", done, total),
    )
    for spec in specs:
        failed = [row for row in rows if row.dnn == spec.card.name and row.status == "failed"]
        if failed:
            side_px = max(spec.card.input.width_px, spec.card.input.height_px)
            raise EvaluationError(f"--reading-size: {dnn.card.name} reading {side_px}: {failed[0].reason}")
    best = _best([row for row in rows if row.dnn == dnn.card.name])
    if not best > 0:
        raise EvaluationError(
            f"--reading-size: by the truth there is, {dnn.card.name} finds nothing on this footage, so there "
            "is nothing to compare with: give footage with objects, labels of its classes, or leave it out"
        )
    target = settings.keep * best
    return tuple(_reading(spec, [row for row in rows if row.dnn == spec.card.name], target) for spec in specs)


def _judge(dnn: DnnSpec, specs: Sequence[DnnSpec]) -> DnnSpec:
    """The stronger DNN, if it is none of those to be judged."""
    judge = dnn.stronger
    if judge is None:
        raise UsageError(
            "--reading-size: a DNN's own answers can't judge what it reads: give --labels, or --reference "
            "with the card of a stronger DNN"
        )
    if judge.card.task != "detection":
        raise UsageError(f"--reading-size: --reference must detect, and {judge.card.name} does not")
    for card in (spec.card for spec in specs):
        if (card.sha256, card.input) == (judge.card.sha256, judge.card.input):
            raise UsageError(
                f"--reading-size {max(card.input.width_px, card.input.height_px)}: --reference is the same "
                "network reading that size, which can't judge itself: give a stronger one, or --labels"
            )
    return judge


def _reading(spec: DnnSpec, rows: Sequence[CellRow], target: float) -> Reading:
    return Reading(
        (spec.card.input.width_px, spec.card.input.height_px),
        median(row.infer_ms for row in rows),
        _best(rows),
        _bitrate_bps(rows, target),
    )


def _best(rows: Sequence[CellRow]) -> float:
    """S at the ceiling, mean over the parts."""
    found = [cell_score(row, "labels") for row in rows if row.role == "ceiling"]
    return float(np.mean([value for value in found if value is not None] or [math.nan]))


def _bitrate_bps(rows: Sequence[CellRow], target: float) -> float | None:
    """Where the mean curve of the parts reaches `target`."""
    curves = []
    for mine in by_clip(rows).values():
        points = sorted(
            (math.log(row.bitrate_bps), value)
            for row in mine
            if row.role in ("method", "ceiling") and (value := cell_score(row, "labels")) is not None
        )
        if points:
            logs, values = np.asarray(points, dtype=np.float64).T
            curves.append((logs, fit(values[None, :])[0]))
    if not curves:
        return None
    grid = np.linspace(max(logs[0] for logs, _ in curves), min(logs[-1] for logs, _ in curves), 60)
    mean = np.mean([np.interp(grid, logs, values) for logs, values in curves], axis=0)
    reached = reach(grid[None, :], mean[None, :], np.asarray([target]))
    return None if reached.side[0, 0] > 0 else float(np.exp(reached.log_bitrate[0, 0]))


def _written(dnn: DnnSpec, card: DnnCard, folder: Path) -> DnnSpec:
    """A card of its own in `folder`: workers load server DNNs from files."""
    model = (dnn.card_file.parent / card.model).resolve()
    file = folder / f"{card.name}.card.toml"
    write_card(card.model_copy(update={"model": str(model) if model.exists() else card.model}), file)
    (spec,) = DnnSpec.read_all([file], [])
    return spec


@dataclass(frozen=True)
class _Labelled:
    """Opens a clip with the kept answers of a stronger DNN as its labels."""

    opened: Callable[[int | None], Clip]
    answers: Path
    classes: tuple[str, ...]

    def __call__(self, limit: int | None) -> Clip:
        return replace(self.opened(limit), labels=read_results(self.answers), label_classes=self.classes)


def _labelled(
    clip: ClipSpec, judge: DnnSpec, folder: Path, step: int, progress: Callable[[str, int, int], None]
) -> ClipSpec:
    """The clip labelled by what the stronger DNN is sure of, on the frames that are measured."""
    sha256 = content_hash(clip.sha256, judge.card.model_dump(mode="json"), step)
    file = folder / f"labels-{sha256[:32]}.npz"
    if read_results(file) is None:
        frames = clip.open(None)
        measured, dnn = frames.measured_frames(step), load_dnn(judge.card_file)
        answers: list[Any] = [sv.Detections.empty() for _ in frames.frames]
        for done, index in enumerate(measured):
            progress("reading sizes: the stronger DNN", done, len(measured))
            seen = dnn.infer(frames.frames[index])
            sure = seen[seen.confidence >= judge.card.score_threshold] if len(seen) else seen
            answers[index] = sv.Detections(xyxy=sure.xyxy, class_id=sure.class_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_results(file, answers)
    opened = _Labelled(clip.open, file, tuple(judge.card.classes))
    return replace(clip, sha256=sha256, open=opened)
