"""A finished cell as one flat line of JSON: what a sweep writes, and what reports, pandas and users read.

```
{"clip": "street-1", "dnn": "yolo11n", "method": "aq-1", "quality": 32, "bytes": 284113, "accuracy": 0.93, …}
```

    pandas.read_json("out/cells.jsonl", lines=True)
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from accmpeg.errors import EvaluationError

__all__ = ["CELLS_NAME", "TIMING_FIELDS", "CellRow", "Role", "by_clip", "read_rows"]

CELLS_NAME = "cells.jsonl"

Role = Literal["method", "null", "noise_floor"]
"""`null`: the same method on a rate grid between the points of the first, to be compared with itself.
`noise_floor`: a stream one QP step finer than the finest compared point: accuracy that no figure can exceed
with meaning."""

TIMING_FIELDS = frozenset(
    {
        "camera_ms",
        "server_ms",
        "infer_ms",
        "stage_ms",
        "delay_mean_ms",
        "delay_p50_ms",
        "delay_p95_ms",
    }
)
"""Fields that differ from run to run; all others are a function of the inputs."""


class CellRow(BaseModel):
    """One method at one operating point on one clip for one server DNN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    """Hash of everything the figures depend on."""
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    """Why it failed."""
    role: Role = "method"
    clip: str
    dnn: str
    task: str
    method: str
    quality: int
    """QP or CRF; what it means for a method is in docs/methods.md."""
    frames: int = 0
    frame_rate: float = 0.0
    width_px: int = 0
    height_px: int = 0
    step: int = 1
    """Accuracy is measured on every so many frames."""
    bytes: int = 0
    """Everything that crossed the network, both ways."""
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    bitrate_bps: float = 0.0
    accuracy: float | None = None
    """Pooled over the clip, against the server DNN on the source frames: AP@0.5, OKS AP, mIoU."""
    accuracy_per_frame: float | None = None
    measures: dict[str, float] = {}
    """The task's other measures: f1, pixel_agreement, pck, …"""
    objects: int | None = None
    """How many objects the server DNN reports on the measured source frames; None for segmentation."""
    label_accuracy: float | None = None
    """Against true labels, where the clip has them."""
    camera_ms: float = 0.0
    """CPU time of the camera per source frame."""
    server_ms: float = 0.0
    """CPU time of the server per source frame."""
    infer_ms: float = 0.0
    """Median CPU time of one pass through the server DNN."""
    stage_ms: dict[str, float] = {}
    delay_mean_ms: dict[str, float] = {}
    """Capture to result over an emulated link, by the link's name."""
    delay_p50_ms: dict[str, float] = {}
    delay_p95_ms: dict[str, float] = {}
    paper_delay_s: dict[str, float] = {}
    """The AccMPEG paper's closed formula, by the link's name."""

    def to_line(self) -> str:
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")) + "\n"

    def figures(self) -> dict[str, Any]:
        """All fields that do not depend on how fast this machine was."""
        return self.model_dump(exclude=set(TIMING_FIELDS))


def read_rows(path: Path) -> list[CellRow]:
    """The rows of a sweep, in the order they were finished; a line that was cut off by a kill is left out.

    Raises `EvaluationError` where a line in the middle is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(CellRow.model_validate_json(line))
        except ValidationError as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise EvaluationError(
                f"line {number} of {path} is no finished cell: delete that line, and it is measured again"
            ) from error
    return rows


def by_clip(rows: Iterable[CellRow]) -> dict[str, Sequence[CellRow]]:
    """Rows by clip, clips in the order of their first row."""
    clips: dict[str, list[CellRow]] = {}
    for row in rows:
        clips.setdefault(row.clip, []).append(row)
    return dict(clips)
