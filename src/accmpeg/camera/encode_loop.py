"""The encode thread: every captured frame's way through steering and encoder to the uplink.

```
frame ─▶ uplink.plan ─▶ encode under the map there is ─▶ publishers, uplink.deliver ─▶ the next frames' map
```
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from accmpeg.camera.capture import FrameSlot, TimedFrame
from accmpeg.camera.options import CameraOptions
from accmpeg.camera.publish import Publisher
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.accuracy import AccuracyCurve
from accmpeg.camera.uplink.adaptation import FramePlan
from accmpeg.camera.uplink.ladder import FULL
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.camera.uplink.uplink import NoUplink, Uplink
from accmpeg.errors import AccmpegError
from accmpeg.media.clock import SteadyClock
from accmpeg.media.codecs import find_codec
from accmpeg.media.encoder import AccessUnit, EncoderSettings
from accmpeg.steering.encoder import Scorer, SteeredEncoder
from accmpeg.steering.feedback import FeedbackMap

__all__ = ["EncodeLoop", "PlannedEncoder"]

_REOPEN_STEP, _LARGE_FALL = 0.2, 1 / 3
_REOPEN_AFTER_US = 2_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Coded:
    """An access unit of the frame that it codes, which B-frames make an earlier one than the last encoded."""

    unit: AccessUnit
    captured_us: int
    stages_ms: dict[str, float]
    size_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Setup:
    """How the full stream is made."""

    settings: EncoderSettings
    accmodel: Scorer | None
    options: CameraOptions


class PlannedEncoder:
    """A `SteeredEncoder` that follows plans: a bitrate is set, another level opens another encoder.

    `settings` are those of the full stream; `options` say how maps are made of the AccModel and of
    `feedback`, and whether the plan says how many B-frames there are. The first frame of another level is a
    keyframe.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        accmodel: Scorer | None,
        options: CameraOptions,
        *,
        feedback: FeedbackMap | None = None,
    ) -> None:
        self._setup = self._wanted = _Setup(settings, accmodel, options)
        self._b_frames = settings.b_frames
        self._feedback = feedback
        self._held: dict[int, tuple[int, dict[str, float]]] = {}
        """By timestamp, of the frames inside the encoder: when captured, and what each stage took."""
        self._level = FULL
        self._bitrate_bps = settings.bitrate_bps
        self._rate_set_us = 0
        self._curve_from: int | None = None
        """Timestamp of the first frame under a map whose curve was not told yet."""
        self.steered = self._open()

    def encode(
        self, timed: TimedFrame, plan: FramePlan, stages_ms: dict[str, float], *, keyframe: bool
    ) -> list[_Coded]:
        """Encodes one frame as planned; `stages_ms` is filled up with what it took."""
        done: list[_Coded] = []
        wanted = self._wanted
        b_frames = plan.b_frames if wanted.options.chooses_b_frames else wanted.settings.b_frames
        if plan.level != self._level or wanted is not self._setup or b_frames != self._b_frames:
            done = self.flush()
            self._setup, self._level, self._curve_from = wanted, plan.level, None
            self._b_frames = b_frames
            self._bitrate_bps, self._rate_set_us = plan.bitrate_bps or self._bitrate_bps, timed.captured_us
            self.steered.close()
            self.steered = self._open()
            size = f"{self.size_px[0]}x{self.size_px[1]}"
            changed = {"size": size, "every_nth_frame": plan.level.divisor, "b_frames": b_frames}
            log.info("stream changes", extra=changed)
        elif plan.bitrate_bps is not None and self._is_worth(plan.bitrate_bps, timed.captured_us):
            self._bitrate_bps, self._rate_set_us = plan.bitrate_bps, timed.captured_us
            self.steered.encoder.set_bitrate(plan.bitrate_bps)
        assert timed.frame.pts is not None  # capture gives every frame one
        assert timed.frame.time_base is not None
        at = self._stamp(timed.frame.pts, timed.frame.time_base)
        self._held[at] = timed.captured_us, stages_ms
        units = self.steered.encode(timed.frame, keyframe=keyframe)
        stages_ms |= self.steered.times.take()
        if self.steered.map_source != "accmodel":
            self._curve_from = None  # answers have no scores
        elif self.steered.map_renewed and self._curve_from is None:
            self._curve_from = at
        return done + self._coded(units)

    def adopt(self, settings: EncoderSettings, accmodel: Scorer | None, options: CameraOptions) -> None:
        """Another full stream, from the next frame on, which is a keyframe. May be called by any thread."""
        self._wanted = _Setup(settings, accmodel, options)

    def flush(self) -> list[_Coded]:
        """What the encoder still holds."""
        return self._coded(self.steered.flush())

    def _is_worth(self, bitrate_bps: int, now_us: int) -> bool:
        """Small moves of the rate cost the encoder more than they bring."""
        if self._bitrate_bps is None:
            return False
        change = bitrate_bps / self._bitrate_bps - 1
        if find_codec(self._setup.settings.codec, steerable=False).live_bitrate:
            return abs(change) > 0.02
        # Another rate opens this encoder anew, with a keyframe: at once only where a link breaks down.
        rested = now_us - self._rate_set_us >= _REOPEN_AFTER_US
        return change < -_LARGE_FALL or (abs(change) > _REOPEN_STEP and rested)

    def _coded(self, units: list[AccessUnit]) -> list[_Coded]:
        return [
            _Coded(unit, *self._held.pop(self._stamp(unit.pts, unit.time_base)), self.size_px)
            for unit in units
        ]

    def _stamp(self, pts: int, time_base: Fraction) -> int:
        """A timestamp in the encoder's time base, as it comes out of it."""
        return round(pts * time_base / self.steered.encoder.time_base)

    def curve(self, unit: AccessUnit) -> AccuracyCurve | None:
        """How predicted accuracy moves with the bitrate: told once of each map, by the first unit that can.

        A keyframe can't: its QP is not the one that the rate gives the others. Nor is a B-frame's, and with
        B-frames those come late that were encoded under the map before; both are of earlier times than the
        first that can.
        """
        scores, qp_offsets, since = self.steered.scores, self.steered.qp_offsets, self._curve_from
        if since is None or unit.pts < since:
            return None
        if unit.qp is None or unit.is_keyframe or self._bitrate_bps is None:
            return None
        assert scores is not None
        assert qp_offsets is not None
        self._curve_from = None
        return AccuracyCurve(scores.accgrad, qp_offsets, unit.qp, self._bitrate_bps)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the stream at the present level."""
        full = self._setup.settings
        return self._scaled(full.width_px), self._scaled(full.height_px)

    def _scaled(self, side_px: int) -> int:
        return side_px if self._level.scale == 1 else max(32, 2 * round(side_px * self._level.scale / 2))

    def _open(self) -> SteeredEncoder:
        width_px, height_px = self.size_px
        divisor, setup = self._level.divisor, self._setup
        settings = replace(
            setup.settings,
            width_px=width_px,
            height_px=height_px,
            frame_rate=Fraction(setup.settings.frame_rate) / divisor,
            bitrate_bps=self._bitrate_bps,
            b_frames=self._b_frames,
        )
        options = setup.options
        if self._feedback is not None:
            self._feedback.margin_macroblocks = options.map_margin
        return SteeredEncoder(
            settings,
            setup.accmodel,
            # What an AccModel's scores become while there are no answers.
            "graded" if options.policy in ("feedback", "none") else options.policy,
            every=max(1, options.every // divisor),
            strength=options.map_strength,
            feedback=self._feedback if options.follows_answers else None,
        )


class EncodeLoop(threading.Thread):
    """Takes frames from the slot, encodes those that the plan admits, and hands them on.

    `wanted_keyframe`: whoever needs a keyframe sets it. Raises nothing: what went wrong is in `error`.
    """

    def __init__(
        self,
        slot: FrameSlot,
        encoder: PlannedEncoder,
        publishers: Sequence[Publisher],
        uplink: Uplink | NoUplink,
        wanted_keyframe: threading.Event,
        clock: SteadyClock,
        stats: CameraStats,
    ) -> None:
        super().__init__(name="encode", daemon=True)
        self.error: AccmpegError | None = None
        self._slot = slot
        self._encoder = encoder
        self._publishers = publishers
        self._uplink = uplink
        self._wanted_keyframe = wanted_keyframe
        self._clock = clock
        self._stats = stats
        self._wanted_frames = 0

    def run(self) -> None:
        try:
            while (timed := self._slot.get()) is not None:
                self._one(timed)
            for coded in self._encoder.flush():
                self._hand_over(coded, self._clock.now_us())
            self._encoder.steered.close()
        except AccmpegError as error:
            self.error = error
        except Exception as error:
            log.exception("encoding failed")
            self.error = AccmpegError(f"encoding failed: {error}")
        finally:
            self._slot.end()

    def _one(self, timed: TimedFrame) -> None:
        frame = timed.frame
        assert frame.pts is not None  # capture gives every frame one
        assert frame.time_base is not None
        plan = self._uplink.plan(timed.captured_us, int(frame.pts * frame.time_base * 1_000_000))
        if plan.left_out is not None:
            self._stats.add(f"dropped_{plan.left_out}")
            return
        # Of those that are wanted: every second of all may be those that were left out.
        self._wanted_frames += 1
        if self._wanted_frames % plan.level.divisor:
            self._stats.add("dropped_rate")
            return
        if keyframe := self._wanted_keyframe.is_set():  # one that is wanted right now is for the next frame
            self._wanted_keyframe.clear()
        started_us = self._clock.now_us()
        stages_ms = {"wait": (started_us - timed.captured_us) / 1000}
        done = self._encoder.encode(timed, plan, stages_ms, keyframe=keyframe)
        encoded_us = self._clock.now_us()
        self._stats.set(map=self._encoder.steered.map_source)
        stages_ms["encode_wall"] = (encoded_us - started_us) / 1000
        for coded in done:
            self._hand_over(coded, encoded_us)
        # Not before: this frame's result would wait for it.
        self._encoder.steered.renew_map()

    def _hand_over(self, coded: _Coded, encoded_us: int) -> None:
        unit = coded.unit
        self._stats.add("encoded")
        for publisher in self._publishers:
            publisher.put(unit)
        rounded = {stage: round(spent_ms, 3) for stage, spent_ms in coded.stages_ms.items()}
        timed = TimedUnit(
            unit.data, unit.pts, unit.is_keyframe, coded.captured_us, encoded_us, coded.size_px, rounded
        )
        self._uplink.deliver(timed, self._encoder.curve(unit))
