"""EAAR: high quality where earlier results, carried along by motion vectors, say that objects are."""

from collections import deque

import av
import numpy as np
from av.sidedata.motionvectors import MotionVectors
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.cache import CodedFrame
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
    answered,
)
from accmpeg.evaluation.methods.regions import need_objects, packed_boxes, region_policy, unpacked_boxes
from accmpeg.media.encoder import AccessUnit
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid
from accmpeg.steering import BinaryPolicy
from accmpeg.steering.policy import bit_weights

__all__ = ["ROWS", "MotionReader", "moved_boxes"]

_SPAN_QP = 10

Boxes = NDArray[np.float32]
Motion = NDArray[np.float32]
"""`(n, 5)`: centre x and y of a block in this frame, its shift in x and y since the frame before, its area;
all in pixels."""


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """QP `quality` around the objects that the server found some frames ago, 10 QP coarser elsewhere.

    Liu et al., "Edge Assisted Real-time Object Detection for Mobile Augmented Reality", MobiCom 2019, sends
    every frame at once. Of every frame the server sends its boxes back (8 bytes a box and 4 for the frame's
    number); when they have arrived, the camera moves them through the motion vectors of all frames coded
    since and goes on doing so until the next boxes. Regions grow by a macroblock. Until the first boxes
    come, the whole frame is a region.

    The vectors are the camera's own encoder's. FFmpeg's encoders do not hand them out, so the access
    units are parsed once more on the camera (no pixels are made); that is counted, as the stage
    "camera: motion vectors", and a hardware encoder would not need it.

    Departures: the authors' code is not public. They also cut frames into slices that are sent while the rest
    is still being encoded, send candidate regions of the network's first stage besides its results, and draw
    moved boxes where results are late; here a frame's result is what the server DNN says of that frame,
    and its delay is counted. A box moves by the median of its blocks' vectors. Server DNNs without objects
    (segmentation) raise UsageError.
    """
    need_objects(session.context, "eaar")
    settings = stream.settings(point, aq_mode=None, steerable=True)
    return _EaarStream(session, SteeredEncoder(settings, None), region_policy(point, _SPAN_QP))


ROWS = (
    Method(
        name="eaar",
        family="feedback",
        source="Liu et al., MobiCom 2019",
        needs=frozenset({"boxes"}),
        knobs={"span_qp": _SPAN_QP},
        open=_open,
    ),
)


class MotionReader:
    """The motion vectors inside access units of H.264, read without making pictures.

    They point to the frame before, given an encoder with one reference frame (x264's veryfast and faster);
    with more, FFmpeg does not say which one a block refers to.
    """

    def __init__(self) -> None:
        context = av.CodecContext.create("h264", "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        context.options = {"flags2": "+export_mvs", "skip_loop_filter": "all", "skip_idct": "all"}
        self._context = context

    def read(self, unit: AccessUnit) -> Motion:
        """The vectors of one frame; none for a keyframe, whose blocks come from nowhere."""
        frames = self._context.decode(av.Packet(unit.data))
        data = frames[-1].side_data.get("MOTION_VECTORS") if frames else None
        if not isinstance(data, MotionVectors) or len(data) == 0:
            return np.zeros((0, 5), np.float32)
        vectors = data.to_ndarray()
        scale = np.maximum(vectors["motion_scale"], 1).astype(np.float32)
        # `motion_x` points back to the source, so an object moves against it.
        shift_x, shift_y = -vectors["motion_x"] / scale, -vectors["motion_y"] / scale
        area = vectors["w"].astype(np.float32) * vectors["h"]
        return np.stack([vectors["dst_x"], vectors["dst_y"], shift_x, shift_y, area], axis=1).astype(
            np.float32
        )


def moved_boxes(boxes_xyxy: Boxes, motion: Motion) -> Boxes:
    """Boxes `(n, 4)` one frame on: each shifted by the area-weighted median of the blocks centred in it.

    >>> motion = np.array([[8, 8, 4, 0, 256], [24, 8, 4, 0, 256], [90, 90, 0, 0, 256]], np.float32)
    >>> moved_boxes(np.array([[0, 0, 32, 16]], np.float32), motion).tolist()
    [[4.0, 0.0, 36.0, 16.0]]
    """
    moved = boxes_xyxy.copy()
    for box in moved:
        inside = (
            (motion[:, 0] >= box[0])
            & (motion[:, 0] <= box[2])
            & (motion[:, 1] >= box[1])
            & (motion[:, 1] <= box[3])
        )
        if inside.any():
            blocks = motion[inside]
            box += np.tile([_median(blocks[:, axis], blocks[:, 4]) for axis in (2, 3)], 2)
    return moved


def _median(values: NDArray[np.float32], weights: NDArray[np.float32]) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])


class _EaarStream(SteeredStream):
    def __init__(self, session: Session, steered: SteeredEncoder, policy: BinaryPolicy) -> None:
        super().__init__(session, steered)
        self._policy = policy
        self._grid = MacroblockGrid(steered.settings.width_px, steered.settings.height_px)
        self._reader = MotionReader()
        self._boxes: Boxes | None = None
        self._motions: deque[tuple[int, Motion]] = deque()

    def push(self, index: int, frame: av.VideoFrame) -> None:
        session, steered = self._session, self._steered
        with session.camera("track"):
            self._take_feedback()
        with session.camera("policy"):
            inside = np.ones(self._grid.shape, np.bool_)
            if self._boxes is not None:
                inside = self._grid.cover_boxes(self._boxes)
            weights = None
            if steered.settings.bitrate_bps is not None:
                weights = bit_weights(plane_view(frame, 0), *self._grid.shape)
            scores = np.where(inside, 1.0, -1.0).astype(np.float32)
            steered.qp_offsets = self._policy.qp_offsets(scores, None, weights)
        super().push(index, frame)

    def _send(self, coded: CodedFrame) -> None:
        for unit in coded.units:
            with self._session.camera("motion vectors"):
                motion = self._reader.read(unit)
            with self._session.camera("track"):
                self._motions.append((self._session.index, motion))
                if self._boxes is not None:
                    self._boxes = moved_boxes(self._boxes, motion)
        super()._send(coded)

    def _take_feedback(self) -> None:
        for message in self._session.arrived():
            index, self._boxes = unpacked_boxes(message)
            while self._motions and self._motions[0][0] <= index:
                self._motions.popleft()
            for _, motion in self._motions:
                self._boxes = moved_boxes(self._boxes, motion)

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        session = self._session
        for frame in frames:
            result = answered(session, self._next, frame)
            boxes = session.context.dnn.task.object_boxes(result)
            assert boxes is not None
            message = packed_boxes(self._next, boxes)
            session.feedback(message, len(message))
            self._next += 1
