"""x264 at a constant QP: the baseline of the AccMPEG paper."""

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

__all__ = ["ROWS"]


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """One QP for every macroblock of a P frame; keyframes finer by the I/P ratio, as with x264's `--qp`."""
    return SteeredStream(session, SteeredEncoder(stream.settings(point, aq_mode=None), None))


ROWS = also_at_dnn_size(
    Method(
        name="constant-qp",
        family="stock",
        source="Du et al., MLSys 2022, section 6; x264 --qp",
        open=_open,
    )
)
