"""True accuracy gradients in the AccModel's place. No system has them, nor are they a bound: a smooth,
learned map may do better."""

from functools import partial

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
    also_at_dnn_size,
)
from accmpeg.evaluation.methods.binary import binary_policy

__all__ = ["ROWS"]

_SOURCE = "gradients as in Du et al., MLSys 2022, section 4"


def _open(graded: bool, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """As `graded` or `binary`, on true gradients and the DNN's own objects."""
    context = session.context
    steered = SteeredEncoder(
        stream.settings(point, aq_mode=1 if graded else None, steerable=True),
        context.oracle(),
        "graded" if graded else binary_policy(point),
        every=context.every,
    )
    return SteeredStream(session, steered)


def _row(policy: str) -> Method:
    return Method(
        name=f"true-gradients-{policy}",
        family="oracle",
        source=_SOURCE,
        needs=frozenset({"gradient"}),
        knobs={"policy": policy},
        open=partial(_open, policy == "graded"),
    )


ROWS = (_row("binary"), *also_at_dnn_size(_row("graded")))
