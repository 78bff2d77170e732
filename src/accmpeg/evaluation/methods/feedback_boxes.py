"""A map of the server's own last answers: finer where it has just seen objects, no network at the camera."""

from collections import deque
from functools import partial

import av
import numpy as np

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
    answered,
)
from accmpeg.evaluation.methods.regions import (
    Boxes,
    need_objects,
    packed_boxes,
    region_policy,
    scored_boxes,
    unpacked_boxes,
)
from accmpeg.media.encoder import EncoderSettings
from accmpeg.media.grid import MacroblockGrid

__all__ = ["ROWS", "FeedbackStream"]

EVERY_FRAMES = 3
ANSWERS = 2
LEAST_SCORE = 0.15
MARGIN_MACROBLOCKS = 2
SPAN_QP = 8


def _open(b_frames: int, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """CRF `quality` with aq-mode 1 inside the boxes of the last two answers, 8 coarser outside.

    ```
    every third decoded frame ─▶ server DNN ─▶ boxes that score above 0.15 ─▶ link ─▶ camera
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
    "every_frames": EVERY_FRAMES,
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

    def __init__(self, session: Session, settings: EncoderSettings, point: OperatingPoint) -> None:
        need_objects(session.context, "feedback")
        super().__init__(session, SteeredEncoder(settings, None))
        self._policy = region_policy(point, SPAN_QP, grown_macroblocks=MARGIN_MACROBLOCKS)
        self._grid = MacroblockGrid(settings.width_px, settings.height_px)
        scale = settings.width_px / session.clip.width_px, settings.height_px / session.clip.height_px
        self._scale = np.asarray([*scale, *scale], np.float32)
        """From source pixels, which boxes are in, to the stream's."""
        self._answers: deque[Boxes] = deque(maxlen=ANSWERS)

    def push(self, index: int, frame: av.VideoFrame) -> None:
        messages = self._session.arrived()
        if messages:
            with self._session.camera("policy"):
                self._answers.extend(unpacked_boxes(message)[1] * self._scale for message in messages)
                self._renew_map()
        super().push(index, frame)

    def _renew_map(self) -> None:
        boxes = np.concatenate(self._answers)
        if not len(boxes):
            self._steered.qp_offsets = None
            return
        inside = np.where(self._grid.cover_boxes(boxes), 1.0, -1.0).astype(np.float32)
        weights = None
        if self._steered.settings.bitrate_bps is not None:
            weights = np.ones(self._grid.shape, np.float32)
        self._steered.qp_offsets = self._policy.qp_offsets(inside, None, weights)

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        session = self._session
        for frame in frames:
            if self._next % EVERY_FRAMES == 0:
                boxes, scores = scored_boxes(answered(session, self._next, frame))
                message = packed_boxes(self._next, boxes[scores > LEAST_SCORE])
                session.feedback(message, len(message))
            else:
                session.deliver(self._next, frame)
            self._next += 1
