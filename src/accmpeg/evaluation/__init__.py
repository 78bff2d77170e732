"""Fair comparisons: the same clips, encoder build and server DNN for every method.

```python
from accmpeg import evaluation

done = evaluation.evaluate(["clips/"], dnns=["detector.card.toml"], out="sweep", methods="aq-1,b2@dnn")
for dnn in done.findings.dnns:
    comparison = dnn.headline.comparison("b2@dnn", "aq-1")
    gap = comparison and comparison.gap(0.95)
    print(dnn.dnn, gap and (gap.percent, gap.interval))
```

A method of your own is a `Method`: see `docs/`, "Add a method to the comparison".
"""

from typing import TYPE_CHECKING

from accmpeg.lazy import lazily

if TYPE_CHECKING:
    from accmpeg.evaluation.bench.clip import Clip
    from accmpeg.evaluation.bench.plan import ClipSpec
    from accmpeg.evaluation.bench.rows import CellRow, Delay
    from accmpeg.evaluation.bench.session import MethodContext, Session
    from accmpeg.evaluation.comparison import Evaluation, evaluate
    from accmpeg.evaluation.findings.findings import (
        CameraCost,
        ClipFindings,
        ClipGap,
        Comparison,
        Curve,
        DnnFindings,
        Findings,
        Gap,
        Interval,
        Point,
        ReferenceFindings,
        TargetPoint,
    )
    from accmpeg.evaluation.link.link import Link, read_trace
    from accmpeg.evaluation.methods import METHODS, find_methods
    from accmpeg.evaluation.methods.base import Method, OperatingPoint, Stream, StreamFormat
    from accmpeg.evaluation.report.render import read_findings, write_report
    from accmpeg.evaluation.settings import SweepSettings
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "METHODS",
    "CameraCost",
    "CellRow",
    "Clip",
    "ClipFindings",
    "ClipGap",
    "ClipSpec",
    "Comparison",
    "Curve",
    "Delay",
    "DnnFindings",
    "Evaluation",
    "Findings",
    "Gap",
    "Interval",
    "Link",
    "Method",
    "MethodContext",
    "OperatingPoint",
    "Point",
    "ReferenceFindings",
    "Session",
    "Stream",
    "StreamFormat",
    "SweepSettings",
    "TargetPoint",
    "evaluate",
    "find_methods",
    "read_findings",
    "read_trace",
    "write_report",
]
