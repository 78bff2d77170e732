"""A map of the server's own last answers: finer where it has just seen objects, no network at the camera."""

import math
from functools import partial

import av

from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    B_FRAMES,
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
    also_at_dnn_size,
    answered,
)
from accmpeg.evaluation.methods.regions import (
    need_objects,
    packed_boxes,
    scored_boxes,
    unpacked_boxes,
)
from accmpeg.media.encoder import EncoderSettings
from accmpeg.steering.encoder import SteeredEncoder
from accmpeg.steering.feedback import ANSWERS, MARGIN_MACROBLOCKS, SPAN_QP, FeedbackMap

__all__ = ["ROWS", "FeedbackStream"]

ANSWERS_PER_SECOND = 10
LEAST_SCORE = 0.15


def _open(b_frames: int, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """CRF `quality` with aq-mode 1 inside the boxes of the last two answers, 8 coarser outside.

    ```
    ten decoded frames a second ─▶ server DNN ─▶ boxes that score above 0.15 ─▶ link ─▶ camera
    camera: union of the last two answers ─▶ grown by two macroblocks ─▶ +8 QP outside
    ```
    An answer is 4 bytes and 8 a box, and is used when the link has brought it, from the next frame on. The
    margin makes up for what has moved since. Before the first answer there is no map, nor while the last two
    hold no box: a server DNN that sees nothing would otherwise be shown even less. At a bitrate the map's
    mean is zero. Server DNNs without objects (segmentation) raise UsageError.
    """
    settings = stream.settings(point, aq_mode=1, steerable=True, b_frames=b_frames)
    return FeedbackStream(session, settings, point)


_KNOBS = {
    "answers_per_second": ANSWERS_PER_SECOND,
    "answers": ANSWERS,
    "least_score": LEAST_SCORE,
    "margin_macroblocks": MARGIN_MACROBLOCKS,
    "span_qp": SPAN_QP,
}
_FEEDBACK = Method(
    name="feedback",
    family="feedback",
    source="this project: boxes of the server's last answers, on aq-1",
    needs=frozenset({"boxes"}),
    knobs=_KNOBS,
    open=partial(_open, 0),
)
_B_FEEDBACK = Method(
    name="b2-feedback",
    family="feedback",
    source="this project: boxes of the server's last answers, on b2",
    needs=frozenset({"boxes"}),
    knobs={**_KNOBS, "b_frames": B_FRAMES},
    open=partial(_open, B_FRAMES),
)

ROWS = (*also_at_dnn_size(_FEEDBACK), *also_at_dnn_size(_B_FEEDBACK))


class FeedbackStream(SteeredStream):
    """A stream whose map is the boxes of the server's last answers; UsageError where these have none."""

    def __init__(
        self,
        session: Session,
        settings: EncoderSettings,
        point: OperatingPoint,
        *,
        strength: float = 1.0,
        margin_macroblocks: int = MARGIN_MACROBLOCKS,
    ) -> None:
        need_objects(session.context, "feedback")
        self._map = FeedbackMap(
            (session.clip.width_px, session.clip.height_px),
            # As far as QPs go.
            span_qp=min(SPAN_QP, 51 - round(point.quality or 0)),
            margin_macroblocks=margin_macroblocks,
            hold_s=0.0,
            clock_s=lambda: session.capture_s(max(0, session.index)),
        )
        super().__init__(session, SteeredEncoder(settings, None, strength=strength, feedback=self._map))
        self._every = math.ceil(session.clip.frame_rate / ANSWERS_PER_SECOND)

    def push(self, index: int, frame: av.VideoFrame) -> None:
        messages = self._session.arrived()
        if messages:
            with self._session.camera("policy"):
                for message in messages:
                    self._map.answer(unpacked_boxes(message)[1])
        super().push(index, frame)

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        session = self._session
        for frame in frames:
            if self._next % self._every == 0:
                boxes, scores = scored_boxes(answered(session, self._next, frame))
                message = packed_boxes(self._next, boxes[scores > LEAST_SCORE])
                session.feedback(message, len(message))
            else:
                session.deliver(self._next, frame)
            self._next += 1
