"""A finished cell as one line of JSON: what a sweep writes, and what the analysis, pandas and users read.

```
{"clip": "street-1", "dnn": "yolo11n", "method": "aq-1", "quality": 32, "bitrate_bps": 284113.0, …,
 "blocks": {"frames": [10, 10, …], "bytes": [4100, 3900, …], "counts": {"own": [[[I, P, R]], …], …}}}
```

    pandas.read_json("out/cells.jsonl", lines=True)

Everything that an interval needs is kept per block of ten frames, so that the analysis can draw blocks again.
"""

import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from accmpeg.errors import EvaluationError
from accmpeg.tasks.base import TaskName

__all__ = [
    "BLOCK_FRAMES",
    "CELLS_NAME",
    "FORMAT",
    "MAIN_MEASURES",
    "Blocks",
    "CellRow",
    "Delay",
    "ReferenceName",
    "Role",
    "by_clip",
    "read_rows",
]

CELLS_NAME = "cells.jsonl"
FORMAT = 2
"""Of the lines; another number belongs to another version of this package."""

BLOCK_FRAMES = 10
"""Neighbouring frames are alike, so resampling single ones would call noise certainty."""

MAIN_MEASURES: Mapping[TaskName, str] = {
    "detection": "ap50",
    "instances": "mask_ap50",
    "keypoints": "oks_ap",
    "segmentation": "miou",
}
"""The usual measure of each task, by its name in `CellRow.measures`."""

ReferenceName = Literal["own", "confirmed", "labels"]
"""What a score is counted against: the server DNN's own answers on the pristine frames; those of them that a
stronger DNN confirms; true labels."""

Role = Literal["method", "null", "ceiling", "uncoded"]
"""`null`: the method once more between its own operating points, to be compared with itself. `ceiling`: a
visually lossless stream of the source. `uncoded`: pristine frames scaled to the DNN's size and back."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Blocks(_Frozen):
    """Per block of ten source frames, from the end of the warm-up on; the last block may be shorter."""

    frames: list[int]
    """Captured frames of the block that carry no keyframe: those that `bytes` is the sum of."""
    bytes: list[int]
    """What these frames sent, both ways, keyframes left out."""
    counts: dict[str, list[list[list[float]]]] = {}
    """By reference name: per block the `(n, 3)` sums of the score (I, P, R) over measured frames."""
    delay_ms: dict[str, list[float | None]] = {}
    """By link: mean delay from capture to result of the block's frames; None where there is none."""


class Delay(_Frozen):
    """Capture to result over one emulated link, over all frames after the warm-up, in milliseconds."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    camera_ms: float
    """The camera's work and waiting, mean; with the next three and `wait_ms` it adds up to `mean_ms`."""
    uplink_ms: float
    propagation_ms: float
    serve_ms: float
    wait_ms: float
    """Until the frame whose flow brought the result was captured: chunks, and results that came late."""
    age_mean_ms: float
    """At each frame's capture: how old is the picture that the newest result speaks of?"""
    age_p95_ms: float


class CellRow(_Frozen):
    """One method at one operating point on one clip for one server DNN."""

    format: int = FORMAT
    key: str
    """Hash of everything the figures depend on."""
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    """Why it failed."""
    role: Role = "method"
    clip: str
    dnn: str
    task: TaskName
    method: str
    quality: float
    """QP or CRF; what it means for a method is in docs/concepts/methods.md."""
    frames: int = 0
    warm_frames: int = 0
    """The first second: it counts neither bytes nor answers."""
    frame_rate: float = 0.0
    gop_frames: int = 250
    width_px: int = 0
    height_px: int = 0
    stream_width_px: int = 0
    stream_height_px: int = 0
    step: int = 1
    """Answers are measured on every so many frames."""
    keyframe_bytes: float = 0.0
    """What keyframes cost in a GOP, of all streams together: the mean one, and those that came early."""
    bitrate_bps: float = 0.0
    """(keyframe / GOP + mean of the other frames) · 8 · frame rate: everything that crosses the network."""
    source_bitrate_bps: float = 0.0
    """Of the clip's own file; 0 where it has none (pictures)."""
    blocks: Blocks = Blocks(frames=[], bytes=[])
    accuracy: float | None = None
    """The task's usual measure, pooled over the clip, against the DNN's own answers: AP@0.5, OKS AP, mIoU."""
    label_accuracy: float | None = None
    """The same against true labels, where the clip has them."""
    measures: dict[str, float] = {}
    """The measures that people know, against the DNN's own answers: ap50, f1, recall, miou, …; with the
    prefix `labels_` against true labels."""
    objects: float | None = None
    """Σ of the reference's weights over the measured frames; None for segmentation."""
    camera_ms: float = 0.0
    """CPU time of the camera per source frame, by the fixed costs of the clip."""
    camera_ratio: float = 0.0
    """`camera_ms` over that of plain x264 (aq-1) at the source size, from the same repeated runs."""
    stage_ms: dict[str, float] = {}
    """Mean CPU milliseconds per source frame by `camera: STAGE` and `server: STAGE`."""
    infer_ms: float = 0.0
    """One pass of the server DNN on one core of the machine that measured; delays use the stated one."""
    camera_load: float = 0.0
    server_load: float = 0.0
    """Busy time over the time there is; above 0.9 there is no delay."""
    delays: dict[str, Delay] = {}
    """By the link's name."""
    why_no_delay: dict[str, str] = {}
    """By the name of each link that is not in `delays`."""
    paper_delay_s: dict[str, float] = {}
    """The AccMPEG paper's closed formula, by the link's name."""

    def to_line(self) -> str:
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")) + "\n"


def read_rows(path: Path) -> list[CellRow]:
    """The rows of a sweep, in the order they were finished; a line that was cut off by a kill is left out.

    A cell that was measured again has its newest row, and a failure that was got over is left out.
    A finished sweep may be packed, as `cells.jsonl.xz`.
    Raises `EvaluationError` where a line in the middle is damaged, or where the lines are of another format.
    """
    packed = path.with_name(path.name + ".xz")
    if not path.exists() and not packed.exists():
        return []
    try:
        content = path.read_bytes() if path.exists() else lzma.decompress(packed.read_bytes())
    except lzma.LZMAError as error:
        raise EvaluationError(f"{packed} is damaged: {error}") from error
    lines = content.splitlines(keepends=True)
    rows: dict[tuple[str, str, str, str, float], CellRow] = {}
    failed: dict[tuple[str, str, str, str], list[float]] = {}
    for number, line in enumerate(lines, 1):
        try:
            document: Any = json.loads(line)
            if isinstance(document, dict) and "clip" in document and document.get("format") != FORMAT:
                raise EvaluationError(
                    f"{path} was written by another version of the bench, whose figures can't be compared "
                    "with these: start anew with another --output (nothing in it was touched)"
                )
            row = CellRow.model_validate(document)
            of = row.clip, row.dnn, row.method, row.role
            rows[*of, row.quality] = row
            if row.status == "failed":
                failed.setdefault(of, []).append(row.quality)
            elif row.role == "method":  # whose next point follows from the last; the others' are fixed
                for quality in set(failed.pop(of, ())) - {row.quality}:
                    del rows[*of, quality]
        except (ValidationError, ValueError) as error:
            if isinstance(error, EvaluationError):
                raise
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise EvaluationError(
                f"line {number} of {path} is no finished cell: delete that line, and it is measured again"
            ) from error
    return list(rows.values())


def by_clip(rows: Iterable[CellRow]) -> dict[str, Sequence[CellRow]]:
    """Rows by clip, clips in the order of their first row."""
    clips: dict[str, list[CellRow]] = {}
    for row in rows:
        clips.setdefault(row.clip, []).append(row)
    return dict(clips)
