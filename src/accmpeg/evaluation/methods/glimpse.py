"""Glimpse: few frames are sent; the camera tracks the boxes that come back."""

from functools import partial
from typing import Any

import av
import cv2
import numpy as np
import supervision as sv

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, Stream, StreamFormat, keep_seen
from accmpeg.evaluation.methods.regions import scored_boxes
from accmpeg.evaluation.methods.skipping import ChosenFrames
from accmpeg.evaluation.methods.tracking import BoxTracker, Grey, grey_picture, moved_result, surest
from accmpeg.media.encoder import EncoderSettings

__all__ = ["ROWS", "changed_share"]

CHANGED_SHARE = 0.02
_CHANGED_LUMA = 35
_LEAST_KEPT_SHARE = 0.5
_CATCH_UP_STEPS = 4
_MOST_OBJECTS = 30
_OBJECT_BYTES = 12
"""On the way back: four 16-bit coordinates, class and score."""
_KEYPOINT_BYTES = 5


def _open(most_changed: float, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """Trigger frames at QP `quality`; between them the camera's own tracking of the boxes sent back.

    Chen et al., *Glimpse: Continuous, Real-Time Object Recognition on Mobile Devices*, SenSys 2015. A frame
    is sent when more than `most_changed` of its pixels differ by more than 35 grey levels from the last one
    sent, or when the tracker has lost half its points, and only while no other is under way. The 30 surest
    objects come back (12 bytes each, 5 more per keypoint). They belong to a frame of the past: the camera
    tracks them through frames that it kept (the active cache, at most 4 steps) to the present, then from
    frame to frame by sparse optical flow. All of it counts as the camera's work.

    Results live at the camera. That of a trigger frame counts as delivered when the objects have come back
    over the link; that of any other frame when the camera has tracked them. Frames captured before the very
    first objects are back get theirs then, late. The server needs no notice of frames left out.

    Departures; the authors' code is not public. They send JPEG pictures, we H.264 (the trigger frames as one
    stream at constant QP), as all methods here share one encoder. They choose cached frames by their
    differences, we spread them evenly. They judge tracking by how points scatter, we by points that do not
    return to where they came from. The paper gives no threshold of change that would suit all clips, so it
    is a knob. Needs boxes: detection and keypoints; a class map or instance masks can't be tracked so, which
    is a UsageError.
    """
    task = session.context.dnn.task.name
    if task not in ("detection", "keypoints"):
        raise UsageError(f"glimpse tracks boxes and has none in {task}: use detection or keypoints")
    return _Tracking(session, stream.settings(point, aq_mode=None), most_changed)


_GLIMPSE = Method(
    name="glimpse",
    family="skipping",
    source="Chen et al., SenSys 2015",
    needs=frozenset({"boxes"}),
    knobs={"change": CHANGED_SHARE},
    open=partial(_open, CHANGED_SHARE),
)

ROWS = (
    _GLIMPSE,
    *(_GLIMPSE.with_knob("change", share, partial(_open, share)) for share in (0.005, 0.05)),
)


def changed_share(a: Grey, b: Grey) -> float:
    """The share of pixels that differ by more than 35 grey levels."""
    _, changed = cv2.threshold(cv2.absdiff(a, b), _CHANGED_LUMA, 255, cv2.THRESH_BINARY)
    return cv2.countNonZero(changed) / a.size


class _Tracking:
    def __init__(self, session: Session, settings: EncoderSettings, most_changed: float) -> None:
        self._session, self._most_changed = session, most_changed
        self._frames = ChosenFrames(session, settings)
        self._size_px = (session.clip.width_px, session.clip.height_px)
        self._sent: Grey | None = None
        """The last trigger frame."""
        self._under_way: tuple[int, Any] | None = None
        self._cache: dict[int, Grey] = {}
        """Frames from the trigger that is under way on."""
        self._result: Any = None
        self._tracker: BoxTracker | None = None
        self._waiting: list[int] = []

    def push(self, index: int, frame: av.VideoFrame) -> None:
        session = self._session
        with session.camera("track"):
            picture = grey_picture(frame)
            if self._tracker is not None:
                self._tracker.follow(picture)
        if self._under_way is not None:
            self._cache[index] = picture
        for trigger, result in session.arrived():
            self._catch_up(trigger, result)
        if self._is_trigger(picture):
            self._send(index, frame, picture)
        elif self._tracker is None:
            self._waiting.append(index)
        else:
            self._deliver_moved(index)

    def finish(self) -> None:
        for index, frame in self._frames.finish():
            self._answer(index, frame)
        if self._waiting and self._under_way is not None:
            self._catch_up(*self._under_way)

    def _is_trigger(self, picture: Grey) -> bool:
        if self._under_way is not None:
            return False
        if self._sent is None or (self._tracker is not None and self._tracker.kept_share < _LEAST_KEPT_SHARE):
            return True
        with self._session.camera("difference"):
            return changed_share(picture, self._sent) > self._most_changed

    def _send(self, index: int, frame: av.VideoFrame, picture: Grey) -> None:
        self._sent, self._cache = picture, {index: picture}
        for sent, decoded in self._frames.send(index, frame):
            self._answer(sent, decoded)

    def _answer(self, index: int, frame: av.VideoFrame) -> None:
        """The server's side: objects of a trigger frame, back over the link."""
        session = self._session
        result = surest(session.infer(frame), _MOST_OBJECTS)
        self._under_way = (index, result)
        session.download(_size_bytes(result), self._under_way)
        keep_seen(session, index, frame)
        session.deliver_result(index, result, at="camera")

    def _catch_up(self, trigger: int, result: Any) -> None:
        """Tracks objects of a past frame to the newest one, and settles the frames that waited for them."""
        session = self._session
        with session.camera("track"):
            scale = np.asarray([*self._size_px, *self._size_px], np.float32)
            self._result = result
            self._tracker = BoxTracker(self._cache[trigger], scored_boxes(result)[0] / scale)
            behind = [index for index in sorted(self._cache) if index > trigger]
            steps = behind if self._waiting else _spread(behind, _CATCH_UP_STEPS)
        for index in steps:
            with session.camera("track"):
                self._tracker.follow(self._cache[index])
            if index in self._waiting:
                self._deliver_moved(index)
        self._waiting.clear()
        self._cache, self._under_way = {}, None

    def _deliver_moved(self, index: int) -> None:
        """The tracked objects are the result of the frame that the tracker is at."""
        session = self._session
        assert self._tracker is not None
        with session.camera("track"):
            boxes = self._tracker.boxes * np.asarray([*self._size_px, *self._size_px], np.float32)
            result = moved_result(self._result, boxes, self._size_px)
        if index in session.keep:
            session.seen[index] = session.frame(index)  # nobody decoded it: the camera has its own
        session.deliver_result(index, result, at="camera")


def _spread(indices: list[int], most: int) -> list[int]:
    """At most `most` of these, evenly, the last one always among them."""
    picked = np.linspace(0, len(indices), min(most, len(indices)) + 1).round().astype(int)[1:] - 1
    return [indices[i] for i in picked]


def _size_bytes(result: Any) -> int:
    keypoints = result.xy.shape[1] if isinstance(result, sv.KeyPoints) and len(result) else 0
    return len(result) * (_OBJECT_BYTES + keypoints * _KEYPOINT_BYTES)
