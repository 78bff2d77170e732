"""OneAdapt's idea for maps: the server backpropagates on what it received and sends the gradients back."""

import struct
import zlib
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
    answered,
)
from accmpeg.media.decoder import encode_still
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid
from accmpeg.steering import GradedPolicy
from accmpeg.steering.policy import bit_weights

if TYPE_CHECKING:
    from accmpeg.dnn.base import DifferentiableDnn

__all__ = ["ROWS"]

_COARSER_QP = 10
_QP_WITHOUT_QUALITY = 40
_STEPS_PER_OCTAVE = 2
_PEAK = struct.Struct("<f")

FloatMap = NDArray[np.float32]


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """CRF `quality` on aq-mode 1, steered by gradients that the server took a second ago.

    Du et al., "OneAdapt: Fast Adaptation for Deep Learning Applications via Backpropagation", SoCC 2023,
    whose gradient is that of the DNN's accuracy by its input times that of the input by a knob of the
    camera; the knob here is the quality of each macroblock.

    It sends every frame at once. Once a second the server takes the gradient of one received frame, beside
    the DNN that answers: no result waits for it. It sends the gradient back: log2 AccGrad below the frame's
    peak in steps of half an octave, int8, deflated, and the peak. When that has arrived the camera makes the
    graded policy's map of it and keeps it until the next one. Before the first one the stream is plain.

    The server has no source frame, so H is the frame as received and L is H coded again 10 QP coarser (at QP
    40 where the stream has a bitrate); the reference is its own result on H, and the gradient is taken at
    H, where the camera stands: how much the result would move if a macroblock got that much worse. What H has
    lost already can't be seen: a macroblock sent too coarse stays underestimated.

    Departures from the authors' system: they adapt frame rate, resolution and QP by steps of gradient ascent,
    and measure the input's gradient at the camera; ours sets the whole map at once by the policy that our
    own camera uses, so that the two differ in where the gradients come from. Objects are not used.
    Works on every task; a server DNN that can't be differentiated raises NoGradientError.
    """
    coarser = _QP_WITHOUT_QUALITY if point.quality is None else min(51, round(point.quality) + _COARSER_QP)
    settings = stream.settings(point, aq_mode=1, steerable=True)
    return _OneAdaptStream(session, SteeredEncoder(settings, None), coarser)


ROWS = (
    Method(
        name="oneadapt",
        family="feedback",
        source="Du et al., SoCC 2023",
        needs=frozenset({"gradient"}),
        knobs={"period_s": 1.0, "coarser_qp": _COARSER_QP},
        open=_open,
    ),
)


class _OneAdaptStream(SteeredStream):
    def __init__(self, session: Session, steered: SteeredEncoder, coarser_qp: int) -> None:
        super().__init__(session, steered)
        self._coarser_qp = coarser_qp
        self._period = max(1, round(float(session.clip.frame_rate)))
        self._policy = GradedPolicy()
        self._grid = MacroblockGrid(steered.settings.width_px, steered.settings.height_px)
        self._dnn = _differentiable(session)

    def push(self, index: int, frame: av.VideoFrame) -> None:
        session, steered = self._session, self._steered
        for message in session.arrived():
            with session.camera("policy"):
                weights = None
                if steered.settings.bitrate_bps is not None:
                    weights = bit_weights(plane_view(frame, 0), *self._grid.shape)
                accgrad_log2 = _unpacked(message, self._grid.shape)
                steered.qp_offsets = self._policy.qp_offsets(accgrad_log2, None, weights)
        super().push(index, frame)

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        session = self._session
        for frame in frames:
            if self._next % self._period == 0:
                result = answered(session, self._next, frame)
                with session.server("gradient", beside=True):
                    message = _packed(self._gradient(frame, result))
                session.feedback(message, len(message))
            else:
                session.deliver(self._next, frame)
            self._next += 1

    def _gradient(self, received: av.VideoFrame, result: Any) -> FloatMap:
        from accmpeg.training.gradient import accuracy_gradient
        from accmpeg.training.labeller import log2_accgrad

        coarser, _ = encode_still(received, self._coarser_qp)
        task = self._session.context.dnn.task
        return log2_accgrad(accuracy_gradient(self._dnn, task, result, received, coarser, at="high"))


def _differentiable(session: Session) -> "DifferentiableDnn":
    """The server DNN in PyTorch, made once for a clip: it takes seconds."""
    context = session.context
    if "oneadapt" not in context.shared:
        context.shared["oneadapt"] = context.dnn.differentiable()
    return cast("DifferentiableDnn", context.shared["oneadapt"])


def _packed(accgrad_log2: FloatMap) -> bytes:
    peak = float(accgrad_log2.max())
    steps = np.rint(np.maximum((accgrad_log2 - peak) * _STEPS_PER_OCTAVE, -127)).astype(np.int8)
    return _PEAK.pack(peak) + zlib.compress(steps.tobytes(), 9)


def _unpacked(message: bytes, shape: tuple[int, int]) -> FloatMap:
    (peak,) = _PEAK.unpack_from(message)
    steps = np.frombuffer(zlib.decompress(message[_PEAK.size :]), np.int8).reshape(shape)
    return (steps.astype(np.float32) / _STEPS_PER_OCTAVE + np.float32(peak)).astype(np.float32)
