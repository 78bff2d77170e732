"""What each stage of a method costs on this machine, from repeated runs, fixed before anything is compared.

```
clip, every method in turn ─▶ round 1, round 2, round 3 ─▶ per stage: median of the rounds' means ─▶ a file
```

A machine gets faster and slower by the minute, and a queue turns a millisecond into many. So compute times
are measured once per clip and method, all methods in turn in each round, and every operating point then uses
the same ones.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict, ValidationError

from accmpeg.errors import EvaluationError
from accmpeg.files import write_whole

__all__ = ["ROUNDS", "Costs", "StageTimings", "read_costs", "settle", "write_costs"]

ROUNDS = 3

StageTimings = Mapping[str, Sequence[float]]
"""CPU milliseconds of every call of a stage, by `camera: STAGE` and `server: STAGE`."""


class Costs(BaseModel):
    """One method on one clip: CPU milliseconds per call of each stage, and per frame of the camera."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage_ms: dict[str, float]
    """Per call, by `camera: STAGE` and `server: STAGE`."""
    camera_ms: float
    """Per source frame, everything on the camera."""
    plain_camera_ms: float
    """The same of plain x264 (aq-1) at the source size, in the same rounds."""
    infer_ms: float
    """One pass of the server DNN on one core of this machine."""

    @property
    def camera_ratio(self) -> float:
        """Camera CPU time over that of plain x264 at the source size."""
        return self.camera_ms / self.plain_camera_ms if self.plain_camera_ms > 0 else 0.0


def settle(rounds: Sequence[StageTimings]) -> dict[str, float]:
    """Milliseconds per call of each stage: the median over the rounds of each round's mean.

    Not of each round's median: with B-frames every other call only takes a frame in.

    >>> settle([{"camera: encode": [5.0, 5.0, 9.2]}, {"camera: encode": [6.0]}, {"camera: encode": [7.0]}])
    {'camera: encode': 6.4}
    """
    stages = sorted({stage for timings in rounds for stage in timings})
    return {stage: round(median(fmean(t[stage]) for t in rounds if t.get(stage)), 4) for stage in stages}


def read_costs(path: Path) -> dict[str, Costs]:
    """Costs by method; none where there is no file. Raises EvaluationError for a damaged one."""
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {method: Costs.model_validate(costs) for method, costs in document.items()}
    except (OSError, ValueError, ValidationError, AttributeError) as error:
        raise EvaluationError(f"{path} holds no costs: delete it, and they are measured again") from error


def write_costs(path: Path, costs: Mapping[str, Costs]) -> None:
    """Keeps costs by method, in one step; raises OSError."""
    text = json.dumps({name: each.model_dump() for name, each in costs.items()}, indent=1) + "\n"
    write_whole(path, text.encode())
