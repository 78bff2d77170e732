"""CloudSeg: a stream of few pixels, enlarged at the server before the server DNN sees it."""

from dataclasses import replace

import av
from av.video.reformatter import Interpolation

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    DNN_SIZE_SHIFT,
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
)

__all__ = ["ROWS"]

_SHRINK = 2
"""Pixels that the server DNN sees per pixel of the stream, along each side."""


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """Every frame at half the size that the server DNN sees, QP `quality`; the server enlarges it again.

    Wang et al., *Bridging the Edge-Cloud Barrier for Real-time Advanced Vision Analytics*, HotCloud 2019,
    sends every frame, at once. The enlarging counts as the server's work.

    Departures. The paper shrinks the frames 4 times and enlarges them with CARN, a super-resolution network
    that is fine-tuned on the server DNN's own loss; the weights are not published, and no maintained package
    was found that ships a small network of this kind which runs on a CPU without a download. So the
    enlarging is Lanczos resampling: a lower bound for the method, for a trained network would restore more.
    Without restored detail 4 times would lose the objects, so the frames are shrunk 2 times; and from the
    size at which the server DNN sees them (`InputCard.seen_size_px`) rather than the source's, because pixels
    beyond that size never reach it. The paper's choice of frames by a small network at the camera and its
    feature propagation between key frames are left out, as they belong to its own segmentation network.
    """
    seen_px = session.context.dnn.card.input.seen_size_px(stream.width_px, stream.height_px)
    width_px, height_px = (max(16, 2 * round(side / _SHRINK / 2)) for side in seen_px)
    small = replace(stream, width_px=width_px, height_px=height_px)
    return _Enlarging(session, SteeredEncoder(small.settings(point, aq_mode=None), None), seen_px)


ROWS = (
    Method(
        name="cloudseg",
        family="skipping",
        size="own",
        source="Wang et al., HotCloud 2019; Lanczos in place of super-resolution",
        knobs={"shrink": _SHRINK},
        quality_shift=2 * DNN_SIZE_SHIFT,
        open=_open,
    ),
)


class _Enlarging(SteeredStream):
    """The plain stream with one more step at the server."""

    def __init__(self, session: Session, steered: SteeredEncoder, size_px: tuple[int, int]) -> None:
        super().__init__(session, steered)
        self._size_px = size_px

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        width_px, height_px = self._size_px
        with self._session.server("enlarge"):
            frames = [
                frame.reformat(width=width_px, height=height_px, interpolation=Interpolation.LANCZOS)
                for frame in frames
            ]
        super()._deliver(frames)
