"""What the methods of regions share: checks for objects, boxes, two-level maps."""

import struct
from typing import Any

import av
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.accmodel.runtime import AccModel
from accmpeg.errors import UsageError
from accmpeg.evaluation.methods.base import MethodContext, OperatingPoint
from accmpeg.steering import BinaryPolicy
from accmpeg.tasks.detection import confidence_of
from accmpeg.tasks.keypoints import boxes_of

__all__ = [
    "need_object_model",
    "need_objects",
    "object_mask",
    "packed_boxes",
    "region_policy",
    "scored_boxes",
    "unpacked_boxes",
]

_INDEX = struct.Struct("<I")

BoolMap = NDArray[np.bool_]
Boxes = NDArray[np.float32]


def need_objects(context: MethodContext, method: str) -> None:
    """Raises UsageError for a server DNN that reports no objects: its regions can't be boxes."""
    if context.dnn.task.name == "segmentation":
        raise UsageError(
            f"the method {method} follows objects, and {context.dnn.card.name} reports none "
            "(segmentation): leave the method out for this server DNN"
        )


def need_object_model(context: MethodContext, method: str) -> AccModel:
    """The AccModel as the camera's detector; raises UsageError where there are no objects to learn."""
    need_objects(context, method)
    accmodel = context.need_accmodel(method)
    if "objects" not in accmodel.card.outputs:
        raise UsageError(
            f"the method {method} detects with the AccModel's objects map, and {accmodel.card.name} has none "
            f"(its server DNN's task is {accmodel.card.dnn.task}): leave the method out"
        )
    return accmodel


def object_mask(accmodel: AccModel, frame: av.VideoFrame) -> BoolMap:
    """Macroblocks `(rows, cols)` that an object's box touches, as the AccModel sees it."""
    objects = accmodel.predict(frame).objects
    assert objects is not None
    return np.asarray(objects >= accmodel.object_threshold, np.bool_)


def region_policy(point: OperatingPoint, span_qp: int) -> BinaryPolicy:
    """Two levels: QP `quality` where the map is above 0, grown, and `span_qp` coarser elsewhere."""
    high = 30 if point.quality is None else round(point.quality)
    return BinaryPolicy(
        qp_high=high, qp_low=min(51, high + span_qp), threshold_log2=0.0, dilate_macroblocks=1
    )


def scored_boxes(result: Any) -> tuple[Boxes, NDArray[np.float32]]:
    """Boxes `(n, 4)` in source pixels and scores `(n,)` of all candidates of a result with objects."""
    if isinstance(result, sv.KeyPoints):
        scores = result.detection_confidence
        return boxes_of(result), np.ones(len(result), np.float32) if scores is None else scores
    return np.asarray(result.xyxy, np.float32).reshape(-1, 4), confidence_of(result)


def packed_boxes(index: int, boxes: Boxes) -> bytes:
    """A frame's number and its boxes in whole pixels: 4 bytes and 8 a box."""
    return _INDEX.pack(index) + np.rint(np.clip(boxes, 0, 65535)).astype("<u2").tobytes()


def unpacked_boxes(message: bytes) -> tuple[int, Boxes]:
    """What `packed_boxes` packed."""
    (index,) = _INDEX.unpack_from(message)
    return index, np.frombuffer(message, "<u2", offset=_INDEX.size).reshape(-1, 4).astype(np.float32)
