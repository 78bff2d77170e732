"""A map of the server's own last answers: finer where it has just seen objects, no network at the camera.

```
answers ─▶ boxes of the last few ─▶ union, grown by the margin ─▶ `span_qp` coarser outside
```
It needs no training, and nothing but an array operation per answer. What it can't know (the first second,
what is new in the picture, a server that is away) is an AccModel's part.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from accmpeg.media.grid import MacroblockGrid, dilate
from accmpeg.options import Option

__all__ = ["ANSWERS", "MARGIN_MACROBLOCKS", "SPAN_QP", "FeedbackMap", "MapMargin"]

ANSWERS = 2
"""At least so many of the last answers count: an object that one of them misses is seldom gone."""
HOLD_S = 0.15
"""And all answers of so long, because those to neighbouring frames miss the same objects."""
MARGIN_MACROBLOCKS = 2
SPAN_QP = 8
STALE_S = 2.0
"""Older answers say nothing of the picture any more."""
_FARTHEST_PX = 1e6

MapMargin = Annotated[
    int, Option("Keep so many macroblocks about the boxes of the server's answers fine, too.", min=0, max=10)
]

FloatMap = NDArray[np.float32]
Boxes = NDArray[np.float32]


class FeedbackMap:
    """QP offsets from answers as they come. `answer` may be called by another thread than the rest.

    The margin makes up for what has moved since the frame of an answer: two macroblocks suit 200 ms, three
    half a second.

    Args:
        source_px: The size of the frames that boxes are in pixels of.
        span_qp: How much coarser it is outside the boxes.
        margin_macroblocks: By how much boxes grow.
        hold_s: Answers this young count, and the last two in any case.
        stale_s: How long they count if no other comes.
        clock_s: Says what time it is.
    """

    def __init__(
        self,
        source_px: tuple[int, int],
        *,
        span_qp: int = SPAN_QP,
        margin_macroblocks: int = MARGIN_MACROBLOCKS,
        hold_s: float = HOLD_S,
        stale_s: float = STALE_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source_px = source_px
        self._span_qp, self.margin_macroblocks = span_qp, margin_macroblocks
        self._hold_s, self._stale_s, self._clock_s = hold_s, stale_s, clock_s
        self._lock = Lock()
        self._answers: deque[tuple[float, Boxes]] = deque()
        self._version = 0

    def answer(self, boxes_xyxy_px: NDArray[np.floating]) -> None:
        """The boxes `(n, 4)` that the server DNN saw, in source pixels; none is an answer, too."""
        boxes = np.asarray(boxes_xyxy_px, np.float32).reshape(-1, 4)
        now_s = self._clock_s()
        with self._lock:
            self._answers.append((now_s, boxes))
            while len(self._answers) > ANSWERS and now_s - self._answers[0][0] > self._hold_s:
                self._answers.popleft()
            self._version += 1

    def take(self, result: dict[str, Any] | None) -> None:
        """A result as it comes; one without objects (of segmentation, of a dropped frame) is no answer.

        Nor is one whose boxes can't be read: a server that is wrong must not end the stream.
        """
        if result is not None and isinstance(objects := result.get("objects"), list):
            with suppress(KeyError, TypeError, ValueError):
                boxes = np.asarray([each["box_xyxy"] for each in objects], np.float64).reshape(-1, 4)
                self.answer(np.clip(boxes, -_FARTHEST_PX, _FARTHEST_PX))

    @property
    def version(self) -> int:
        """Goes up with every answer; 0 without any young enough to go by."""
        with self._lock:
            if not self._answers or self._clock_s() - self._answers[-1][0] > self._stale_s:
                return 0
            return self._version

    def qp_offsets(self, grid: MacroblockGrid, *, rate_controlled: bool = False) -> FloatMap | None:
        """Offsets `(rows, cols)`: 0 in and about the boxes, `span_qp` elsewhere; of mean zero if asked.

        None without answers, and where the last ones hold no box: a server DNN that sees nothing would
        otherwise be shown even less.
        """
        with self._lock:
            boxes = [each for _, each in self._answers if len(each)]
        if not boxes:
            return None
        scale = grid.width_px / self._source_px[0], grid.height_px / self._source_px[1]
        scaled = np.concatenate(boxes) * np.asarray([*scale, *scale], np.float32)
        offsets = np.where(
            dilate(grid.cover_boxes(scaled), self.margin_macroblocks), 0, self._span_qp
        ).astype(np.float32)
        if rate_controlled:
            offsets -= np.float32(round(float(offsets.mean())))
        return offsets
