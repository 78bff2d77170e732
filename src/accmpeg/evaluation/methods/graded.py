"""Our map: graded offsets by predicted accuracy gradient and objects, on adaptive quantisation."""

from functools import partial

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    B_FRAMES,
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
    also_at_dnn_size,
)

__all__ = ["ROWS"]


def _open(b_frames: int, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """CRF `quality` with aq-mode 1 and the graded policy's offsets."""
    context = session.context
    steered = SteeredEncoder(
        stream.settings(point, aq_mode=1, steerable=True, b_frames=b_frames),
        context.need_accmodel("b2-graded" if b_frames else "graded"),
        "graded",
        every=context.every,
    )
    return SteeredStream(session, steered)


_GRADED = Method(
    name="graded",
    family="accmpeg",
    source="this project: accmpeg.steering.graded",
    needs=frozenset({"accmodel"}),
    open=partial(_open, 0),
)
_B_GRADED = Method(
    name="b2-graded",
    family="accmpeg",
    source="this project: accmpeg.steering.graded, on b2",
    needs=frozenset({"accmodel"}),
    knobs={"b_frames": B_FRAMES},
    open=partial(_open, B_FRAMES),
)

ROWS = (*also_at_dnn_size(_GRADED), *also_at_dnn_size(_B_GRADED))
