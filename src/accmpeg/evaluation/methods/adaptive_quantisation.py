"""Stock x264 at a constant rate factor: adaptive quantisation off or in one of its modes, or B-frames."""

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


def _open(
    aq_mode: int, b_frames: int, stream: StreamFormat, point: OperatingPoint, session: Session
) -> Stream:
    return SteeredStream(
        session, SteeredEncoder(stream.settings(point, aq_mode=aq_mode, b_frames=b_frames), None)
    )


def _plain(aq_mode: int) -> Method:
    """CRF with `--aq-mode`: 0 off, 1 variance, 2 auto-variance, 3 auto-variance biased to dark scenes."""
    return Method(
        name=f"aq-{aq_mode}",
        family="stock",
        source="x264 --crf --aq-mode",
        knobs={"aq_mode": aq_mode},
        open=partial(_open, aq_mode, 0),
    )


_B_FRAMES = Method(
    name="b2",
    family="stock",
    source="x264 --crf --aq-mode 1 --bframes 2 --pbratio 2 --b-pyramid none --b-adapt 0 --no-scenecut "
    "--no-mbtree",
    knobs={"aq_mode": 1, "b_frames": B_FRAMES},
    open=partial(_open, 1, B_FRAMES),
)
"""`aq-1` with two B-frames, always two. Results come three frames late: the encoder holds two until it has
the frame that they refer to, the decoder one more until they are in order (with x264's pyramid, two)."""

ROWS = (
    *(row for aq_mode in (0, 1, 2, 3) for row in also_at_dnn_size(_plain(aq_mode))),
    *also_at_dnn_size(_B_FRAMES),
)
