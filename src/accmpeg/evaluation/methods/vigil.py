"""Vigil: the camera's own detector decides what is sent at all."""

import av

from accmpeg.accmodel.runtime import AccModel
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, Stream, StreamFormat
from accmpeg.evaluation.methods.regions import need_object_model, object_mask
from accmpeg.media.encoder import AccessUnit, Encoder
from accmpeg.media.frames import pasted
from accmpeg.media.grid import dilate

__all__ = ["ROWS"]

_GROWN_MACROBLOCKS = 1


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """QP `quality` where the camera's detector sees an object, constant grey everywhere else.

    Zhang et al., "The Design and Implementation of a Wireless Video Surveillance System", MobiCom 2015, sends
    every frame at once, its boxes grown by a macroblock and all other pixels replaced by grey, which costs
    next to nothing to code; the server DNN sees just that. The detector runs on every frame, as at Vigil's
    edge node, and its CPU time counts as the camera's.

    Departures: the authors' code is not public. Their edge node counts objects with classic vision methods
    and schedules whole frames of several cameras by these counts; what is compared here is the principle for
    one camera, as later papers do: regions without a find are dropped. The detector is the AccModel's
    `objects` map, so no foreign network is needed; a server DNN without objects (segmentation) raises
    UsageError. A frame without any object is sent too, all grey, in a few bytes.
    """
    accmodel = need_object_model(session.context, "vigil")
    return _VigilStream(session, accmodel, Encoder(stream.settings(point, aq_mode=None)))


ROWS = (
    Method(
        name="vigil",
        family="region",
        source="Zhang et al., MobiCom 2015",
        needs=frozenset({"accmodel", "objects"}),
        open=_open,
    ),
)


class _VigilStream:
    def __init__(self, session: Session, accmodel: AccModel, encoder: Encoder) -> None:
        self._session, self._accmodel, self._encoder = session, accmodel, encoder
        self._next = 0

    def push(self, index: int, frame: av.VideoFrame) -> None:
        del index
        session = self._session
        with session.camera("accmodel"):
            kept = dilate(object_mask(self._accmodel, frame), _GROWN_MACROBLOCKS)
        with session.camera("blank"):
            picture = pasted(frame, None, ~kept)
        with session.camera("encode"):
            units = self._encoder.encode(picture)
        self._send(units)

    def finish(self) -> None:
        with self._session.camera("encode"):
            units = self._encoder.flush()
        self._send(units)
        self._deliver(self._session.flush_decoder())

    def _send(self, units: list[AccessUnit]) -> None:
        self._session.upload(units)
        self._deliver(self._session.decode(units, self._encoder))

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            self._session.deliver(self._next, frame)
            self._next += 1
