"""Frame in, access units out: what feeds the map, policy and encoder in one pass.

```
frame ─▶ resize to the stream's size ─▶ encode ─▶ access units
              │ every k-th, once it is sent ▲
              └─▶ AccModel ─▶ policy ───────┤ QP offsets, for the frames after it until the next map
   the server's answers ─▶ FeedbackMap ─────┘ while there are young ones
```
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from accmpeg.accmodel.runtime import Scores
from accmpeg.media.closing import Closing
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid
from accmpeg.options import Option
from accmpeg.steering.feedback import FeedbackMap
from accmpeg.steering.policy import QualityPolicy, bit_weights
from accmpeg.steering.registry import make_policy

__all__ = ["Every", "MapSource", "MapStrength", "Scorer", "StageTimes", "SteeredEncoder"]

Every = Annotated[int, Option("Renew the quality map every so many frames.", min=1)]
MapStrength = Annotated[float, Option("Multiply the quality map's QP offsets by this.", min=0.1, max=3)]
MapSource = Literal["none", "accmodel", "answers"]


class Scorer(Protocol):
    """What makes scores of a frame: an `AccModel`, or anything that can stand in for one."""

    @property
    def object_threshold(self) -> float:
        """The object probability above which an object counts as likely."""
        ...

    def predict(self, frame: av.VideoFrame) -> Scores: ...


class StageTimes:
    """CPU time of this process spent in each stage, in milliseconds."""

    def __init__(self) -> None:
        self.total_ms: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the CPU time of the block to `stage`."""
        start = time.process_time_ns()
        try:
            yield
        finally:
            self.total_ms[stage] = self.total_ms.get(stage, 0.0) + (time.process_time_ns() - start) / 1e6

    def take(self) -> dict[str, float]:
        """What each stage has taken since the last call."""
        taken, self.total_ms = self.total_ms, {}
        return taken

    def per_frame_ms(self, frames: int) -> dict[str, float]:
        """Mean CPU milliseconds per frame of each stage."""
        return {stage: total / max(1, frames) for stage, total in self.total_ms.items()}


class SteeredEncoder(Closing):
    """Encodes a stream whose macroblock quality follows an AccModel.

    Every `every`-th frame has a new map, made from the frame before it: no frame waits for the AccModel but
    the first one, and the first after the server's answers stopped, which have no other map to go by. Whether
    `renew_map` is called in between or not, the stream is the same. Frames of another size are scaled to that
    of `settings`. With `feedback`, answers of the server make the map as soon as there are any, and the
    AccModel only before and where they stop. Without an `accmodel` and `feedback` the stream is plain.
    `strength` multiplies the offsets of every map.

    Raises EncoderError for settings the encoder refuses, MapIgnoredError where it would drop the maps.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        accmodel: Scorer | None,
        policy: QualityPolicy | str = "graded",
        *,
        every: int = 10,
        strength: float = 1.0,
        times: StageTimes | None = None,
        feedback: FeedbackMap | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"a map every {every} frames: give 1 or more")
        self.settings = settings
        self.times = times or StageTimes()
        self.scores: Scores | None = None
        self.qp_offsets: NDArray[np.float32] | None = None
        self.map_renewed = False
        """Whether the last `encode` was the first under these `scores`."""
        self.map_source: MapSource = "none"
        """What the present map comes from."""
        self._is_new = False
        self._feedback = feedback
        self._answered = 0
        self._accmodel = accmodel
        self._every = every
        self._strength = strength
        self._frames = 0
        self._next_map_of: av.VideoFrame | None = None
        """Of which frame a map is due, if one is."""
        self._grid = MacroblockGrid(settings.width_px, settings.height_px)
        if isinstance(policy, str) and accmodel is not None:
            policy = make_policy(policy, object_threshold=accmodel.object_threshold)
        self._policy = policy if not isinstance(policy, str) else None
        with self.times.measure("open"):
            self._encoder = Encoder(settings)
        self._scaler = VideoReformatter()

    @property
    def encoder(self) -> Encoder:
        """The encoder below, for its parameter sets and its bitrate."""
        return self._encoder

    def encode(self, frame: av.VideoFrame, *, keyframe: bool = False) -> list[AccessUnit]:
        """Encodes one yuv420p frame, which must not change before the next one or `renew_map`."""
        if (frame.width, frame.height) != (self.settings.width_px, self.settings.height_px):
            with self.times.measure("resize"):
                frame = self._resized(frame)
        by_answers = self._feedback is not None and self._follow_answers(self._feedback)
        steers = self._accmodel is not None and not by_answers
        if steers and self.map_source == "none":
            self._next_map_of = frame
        if steers:
            self.renew_map()
        self.map_renewed = steers and self._is_new
        self._is_new = False
        self._frames += 1
        self._next_map_of = frame if steers and self._frames % self._every == 0 else None
        with self.times.measure("encode"):
            return self._encoder.encode(frame, self.qp_offsets, keyframe=keyframe)

    def renew_map(self) -> None:
        """Makes the next frame's map if a new one is due; `encode` does so where nobody has before it.

        For who has handed on a frame's access units, and has time until the next frame comes.
        """
        if self._next_map_of is not None:
            self._make_map(self._next_map_of)
            self._next_map_of = None

    def flush(self) -> list[AccessUnit]:
        """The access units still inside the encoder; encode nothing after it."""
        with self.times.measure("encode"):
            return self._encoder.flush()

    def close(self) -> None:
        """Frees the encoder; safe to call twice."""
        self._encoder.close()

    def _resized(self, frame: av.VideoFrame) -> av.VideoFrame:
        # From 1280x720 to 640x360 0.4 ms of CPU; 1.0 by a scaler of the frame's own (benchmarks/scaler.py).
        resized = self._scaler.reformat(
            frame, self.settings.width_px, self.settings.height_px, interpolation="AREA", threads=1
        )
        resized.pts, resized.time_base = frame.pts, frame.time_base
        return resized

    def _follow_answers(self, feedback: FeedbackMap) -> bool:
        """Takes the map from new answers; whether there are any to go by."""
        answered, before = feedback.version, self._answered
        self._answered = answered
        if answered == before:
            return answered > 0
        self.map_source = "answers" if answered else "none"
        with self.times.measure("policy"):
            rate_controlled = self.settings.bitrate_bps is not None
            offsets = feedback.qp_offsets(self._grid, rate_controlled=rate_controlled) if answered else None
            # What went stale would protect where objects were long ago.
            self.qp_offsets = None if offsets is None else self._scaled(offsets)
        return answered > 0

    def _make_map(self, frame: av.VideoFrame) -> None:
        self.map_source = "accmodel"
        assert self._accmodel is not None
        assert self._policy is not None
        with self.times.measure("accmodel"):
            self.scores = self._accmodel.predict(frame)
        with self.times.measure("policy"):
            weights = None
            if self.settings.bitrate_bps is not None:
                weights = bit_weights(plane_view(frame, 0), *self._grid.shape)
            offsets = self._policy.qp_offsets(self.scores.accgrad, self.scores.objects, weights)
            self.qp_offsets = self._scaled(offsets)
        self._is_new = True

    def _scaled(self, qp_offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.rint(self._strength * qp_offsets), np.float32)
