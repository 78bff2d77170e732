"""A map from a detector's boxes: what steering is worth without accuracy gradients."""

import av
import numpy as np

from accmpeg.accmodel.runtime import AccModel, Scores
from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, SteeredStream, Stream, StreamFormat
from accmpeg.evaluation.methods.regions import need_object_model, object_mask, region_policy

__all__ = ["ROWS"]

_SPAN_QP = 12


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """CRF `quality` on aq-mode 1 inside the boxes that the camera finds, 12 coarser outside.

    The baseline that the AccMPEG paper (Du et al., MLSys 2022) sets against accuracy gradients, which saves
    pixels by where objects are. It sends one stream, every frame; the boxes are found anew as often as ours
    renews its map, grown by a macroblock and held in between.

    Ours departs in the detector. Instead of a foreign network it is the AccModel's `objects` map, which was
    trained on the macroblocks that the server DNN's boxes touch: what `graded` knows less the gradients. Its
    CPU time counts as the camera's. A server DNN without objects (segmentation) raises UsageError.
    """
    context = session.context
    steered = SteeredEncoder(
        stream.settings(point, aq_mode=1, steerable=True),
        _BoxScores(need_object_model(context, "detector-boxes")),
        region_policy(point, _SPAN_QP),
        every=context.every,
    )
    return SteeredStream(session, steered)


ROWS = (
    Method(
        name="detector-boxes",
        family="region",
        source="boxes instead of gradients: the baseline of Du et al., MLSys 2022",
        needs=frozenset({"accmodel", "objects"}),
        knobs={"span_qp": _SPAN_QP},
        open=_open,
    ),
)


class _BoxScores:
    """Scores above 0 inside boxes and below 0 outside, in the place of gradients."""

    def __init__(self, accmodel: AccModel) -> None:
        self._accmodel = accmodel
        self.object_threshold = accmodel.object_threshold

    def predict(self, frame: av.VideoFrame) -> Scores:
        return Scores(np.where(object_mask(self._accmodel, frame), 1.0, -1.0).astype(np.float32))
