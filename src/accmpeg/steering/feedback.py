"""A map of the server's own last answers: finer where it has just seen objects, no network at the camera.

```
answers ─▶ boxes of the last two ─▶ union, grown by the margin ─▶ `span_qp` coarser outside
```
It needs no training, and nothing but an array operation per answer. What it can't know (the first second,
what is new in the picture, a server that is away) is an AccModel's part.
"""

from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from accmpeg.media.grid import MacroblockGrid, dilate
from accmpeg.steering.policy import centred

__all__ = ["FeedbackMap"]

ANSWERS = 2
MARGIN_MACROBLOCKS = 2
SPAN_QP = 8
STALE_US = 2_000_000
"""Older answers say nothing of the picture any more."""

FloatMap = NDArray[np.float32]
Boxes = NDArray[np.float32]


class FeedbackMap:
    """QP offsets from answers as they come. `answer` may be called by another thread than the rest.

    Boxes are in pixels of a frame of `source_px`, `grid` is the stream's. The margin makes up for what has
    moved since the frame of an answer: two macroblocks suit 200 ms, three half a second.
    """

    def __init__(
        self,
        grid: MacroblockGrid,
        source_px: tuple[int, int],
        *,
        span_qp: int = SPAN_QP,
        margin_macroblocks: int = MARGIN_MACROBLOCKS,
        stale_us: int = STALE_US,
    ) -> None:
        scale = grid.width_px / source_px[0], grid.height_px / source_px[1]
        self._grid = grid
        self._scale = np.asarray([*scale, *scale], np.float32)
        self._span_qp, self._margin, self._stale_us = span_qp, margin_macroblocks, stale_us
        self._lock = Lock()
        self._answers: deque[tuple[int, Boxes]] = deque(maxlen=ANSWERS)
        self._renewed = False

    def answer(self, boxes_xyxy_px: Boxes, captured_us: int) -> None:
        """The boxes `(n, 4)` of an answer, in source pixels, to the frame captured then; late ones are passed
        over."""
        with self._lock:
            if self._answers and captured_us <= self._answers[-1][0]:
                return
            boxes = np.asarray(boxes_xyxy_px, np.float32).reshape(-1, 4) * self._scale
            self._answers.append((captured_us, boxes))
            self._renewed = True

    def renewed(self) -> bool:
        """Whether answers have come since it was last asked."""
        with self._lock:
            renewed, self._renewed = self._renewed, False
            return renewed

    def is_fresh(self, now_us: int) -> bool:
        """Whether there are answers young enough to go by."""
        with self._lock:
            return bool(self._answers) and now_us - self._answers[-1][0] <= self._stale_us

    def qp_offsets(self, *, rate_controlled: bool = False) -> FloatMap | None:
        """Offsets `(rows, cols)`: 0 in and about the boxes, `span_qp` elsewhere; of mean zero if asked.

        None without answers, and where the last ones hold no box: a server DNN that sees nothing would
        otherwise be shown even less.
        """
        with self._lock:
            boxes = [each for _, each in self._answers if len(each)]
        if not boxes:
            return None
        near = dilate(self._grid.cover_boxes(np.concatenate(boxes)), self._margin)
        offsets = np.where(near, 0, self._span_qp).astype(np.float32)
        if rate_controlled:
            span = self._span_qp + 1
            offsets += np.float32(round(centred(offsets.ravel(), -span, span)))
        return offsets
