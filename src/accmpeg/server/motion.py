"""Results between seen frames: the last one, its objects moved on by their own speed.

```
result, capture time ─▶ see ─▶ BoT-SORT: who is who ─▶ a speed for each object
                               at(time) ─▶ the last result, every object moved
```
Pure: time is an argument, in seconds of capture.
"""

from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.errors import MissingExtraError

__all__ = ["Motion"]

MOST_OBJECTS = 200
"""Only so many of a result are tracked, the surest: the others stay where they are."""
LOST_S = 1.0
"""An object that was not seen for so long is another one when it is back."""
BELIEVED_SHARE = 0.7
"""Of a speed: seen boxes jitter, and moving by all of it made some clips worse than not to move at all."""
_TRACKER_HZ = 30.0
"""What the tracker counts its speeds in: pixels in a thirtieth of a second."""


class Motion:
    """The objects of one camera's stream, whose frames come in order; for one thread at a time.

    The tracker is BoT-SORT's without its camera motion. Its noise grows with the box, which ByteTrack's does
    not. Boxes move and keep their size, because the speeds of their sides are mostly jitter.

    Args:
        size_px: Of the frames that boxes are in pixels of: what has left them is gone.

    Raises:
        MissingExtraError: The tracker's library is not installed.
    """

    def __init__(self, size_px: tuple[int, int]) -> None:
        try:
            from trackers import BoTSORTTracker
        except ImportError as error:
            raise MissingExtraError("--publish-per-second", "tracking") from error
        self._tracker: Any = BoTSORTTracker(
            lost_track_buffer=round(LOST_S * _TRACKER_HZ),
            frame_rate=_TRACKER_HZ,
            minimum_consecutive_frames=1,
            enable_cmc=False,
        )
        self._size_px = size_px
        self._seen: dict[str, Any] = {"objects": []}
        self._seen_s = float("-inf")
        self._px_per_s: NDArray[np.float64] = np.zeros((0, 2))

    def see(self, document: dict[str, Any], captured_s: float) -> None:
        """The result of a frame, as `tasks.result_json` writes it; that of an earlier frame says nothing.

        One that is earlier by `LOST_S` is no earlier frame: the camera's clock was set back.
        """
        if 0 <= self._seen_s - captured_s < LOST_S:
            return
        if captured_s < self._seen_s:
            self._tracker.reset()
        objects = document["objects"]
        surest = sorted(range(len(objects)), key=lambda i: -objects[i]["score"])[:MOST_OBJECTS]
        boxes = np.asarray([objects[i]["box_xyxy"] for i in surest], np.float32).reshape(-1, 4)
        # Without scores: what the server DNN is not sure of is not among its results.
        found = self._tracker.update(
            sv.Detections(xyxy=boxes, data={"index": np.asarray(surest, int)}), timestamp=captured_s
        )
        self._seen, self._seen_s, self._px_per_s = document, captured_s, np.zeros((len(objects), 2))
        if len(found):
            # The filter's state is the box's centre and size, then how they change.
            speeds = {each.tracker_id: each.state_estimator.kf.state[4:6, 0] for each in self._tracker.tracks}
            for index, name in zip(found.data["index"], found.tracker_id, strict=True):
                if name in speeds:
                    self._px_per_s[index] = BELIEVED_SHARE * _TRACKER_HZ * speeds[name]

    def at(self, captured_s: float) -> dict[str, Any]:
        """What the last result has become by then. An object that was seen only once has not moved."""
        shifts = (self._px_per_s * (captured_s - self._seen_s)).tolist()
        moved = (
            _moved(each, x_px, y_px, self._size_px)
            for each, (x_px, y_px) in zip(self._seen["objects"], shifts, strict=True)
        )
        return self._seen | {"objects": [each for each in moved if each is not None]}


def _moved(
    found: dict[str, Any], x_px: float, y_px: float, size_px: tuple[int, int]
) -> dict[str, Any] | None:
    """An object elsewhere, its keypoints and mask with it; None where it has left the frame."""
    (width_px, height_px), (x0, y0, x1, y1) = size_px, found["box_xyxy"]
    left, right = max(0.0, x0 + x_px), min(float(width_px), x1 + x_px)
    top, bottom = max(0.0, y0 + y_px), min(float(height_px), y1 + y_px)
    if right - left < 1 or bottom - top < 1:
        return None
    moved = found | {"box_xyxy": [round(side, 1) for side in (left, top, right, bottom)]}
    if "keypoints" in found:
        moved["keypoints"] = [
            [round(x + x_px, 1), round(y + y_px, 1), seen] for x, y, seen in found["keypoints"]
        ]
    if "mask" in found:
        mask = found["mask"]
        offsets = zip(mask["offset_px"], (x_px, y_px), mask["size_px"], size_px, strict=True)
        # Whole within the frame: a mask can't be cut without unrolling it.
        inside = [min(max(0, round(at + by)), most - side) for at, by, side, most in offsets]
        moved["mask"] = mask | {"offset_px": inside}
    return moved
