"""A frame's way to the server and back.

```
encode thread:   plan ─▶ (steering, encode) ─▶ deliver ─▶ spool
network thread:  spool ─▶ connection ─▶ server ─▶ results, feedback ─▶ outputs, rate control
```
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from accmpeg.camera.options import CameraOptions
from accmpeg.camera.outputs import FrameResult, ResultOutputs
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.accuracy import AccuracyCurve
from accmpeg.camera.uplink.adaptation import Adaptation, FramePlan
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.client import CameraClient
from accmpeg.camera.uplink.clock import ClockSync
from accmpeg.camera.uplink.connection import LinkState
from accmpeg.camera.uplink.ladder import Ladder
from accmpeg.camera.uplink.ledger import Ledger
from accmpeg.camera.uplink.ratecontrol import DelayRate, FixedRate, RateController
from accmpeg.camera.uplink.spool import Spool
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.errors import AccmpegError, LinkError, UsageError
from accmpeg.media.clock import SteadyClock
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.source import SourceInfo
from accmpeg.protocol.wire import Hello, Offer
from accmpeg.steering.feedback import FeedbackMap
from accmpeg.version import __version__

__all__ = ["NoUplink", "Uplink", "make_controller", "make_hello"]

_WAITING_FRAMES = 30
"""So many may wait to be sent where footage is read as fast as it can be."""

log = logging.getLogger(__name__)


class NoUplink:
    """Leads to no server: the stream is only published, and stays as it is."""

    error: AccmpegError | None = None

    def __init__(self, bitrate_bps: int) -> None:
        self._bitrate_bps = bitrate_bps

    def start(self) -> None:
        """See `Uplink`."""

    def plan(self, captured_us: int, shown_us: int) -> FramePlan:
        """Every frame, as the stream began."""
        return FramePlan()

    def deliver(self, unit: TimedUnit, curve: AccuracyCurve | None) -> None:
        """See `Uplink`."""

    def refit(self, settings: EncoderSettings, highest_bps: int) -> None:
        """See `Uplink`."""

    def end(self, within_s: float, goes_on: Callable[[], bool] = lambda: False) -> None:
        """See `Uplink`."""

    def check_answered(self) -> None:
        """See `Uplink`."""

    def snapshot(self) -> dict[str, Any]:
        """Present values for the statistics."""
        return {"target_bps": self._bitrate_bps}


class Uplink:
    """Says what the link allows for each frame, sends what is coded of it, and takes what comes back.

    `plan` and `deliver` are the encode thread's; a thread of the uplink's own talks to the server. Frames go
    out from a keyframe on: where one is needed, `wanted_keyframe` is set. `spool` is closed by `end`. What
    ended it is in `error`. `on_offer` is called on that thread with each welcome's offer.
    """

    def __init__(
        self,
        server: ServerAddress,
        hello: Hello,
        parameter_sets: bytes,
        spool: Spool,
        options: CameraOptions,
        controller: RateController,
        outputs: ResultOutputs,
        feedback: FeedbackMap | None,
        on_offer: Callable[[Offer | None], None],
        wanted_keyframe: threading.Event,
        clock: SteadyClock,
        stats: CameraStats,
    ) -> None:
        self.error: AccmpegError | None = None
        self._options = options
        self._publishes = bool(options.publish)
        self._stream_id = hello.stream_id
        self._outputs = outputs
        self._feedback = feedback
        self._wanted_keyframe = wanted_keyframe
        self._clock = clock
        self._stats = stats
        ladder = None
        if options.adapt_size and options.bitrate_bps is None and not options.publish:
            every_frame = options.drop == "none"
            ladder = Ladder(hello.width_px, hello.height_px, hello.frame_rate, every_frame=every_frame)
        keeps = options.keeps_frames
        self._adaptation = Adaptation(controller, ladder, spooling=keeps, results_per_s=options.results_per_s)
        self._spool = spool
        spool.begin(hello, parameter_sets)
        self._ledger = Ledger(clock, stats)
        state = LinkState(
            stream_id=hello.stream_id,
            keeps=keeps,
            spool=self._spool,
            adaptation=self._adaptation,
            ledger=self._ledger,
            sync=ClockSync(),
            clock=clock,
            stats=stats,
            wanted_keyframe=wanted_keyframe,
            on_result=self._take,
            on_offer=on_offer,
        )
        self._client = CameraClient(server, state)
        self._sequence = 0
        self._needs_keyframe = True
        self._aborted = threading.Event()
        self._answered = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def plan(self, captured_us: int, shown_us: int) -> FramePlan:
        """What to do with the frame captured then; waits for room if none may be left out or paced.

        `shown_us` is its time in the source, which chooses it where footage is read faster than it was shot.
        """
        options, connected = self._options, self._client.connected
        is_unpaced = options.drop == "none" and not options.realtime
        now_us = self._clock.now_us()
        first_us = self._spool.peek_encoded_us(self._stream_id)
        waiting_ms = 0.0 if first_us is None else max(0.0, (now_us - first_us) / 1000)
        keeps = options.keeps_frames
        backlog = keeps and (waiting_ms > 1000 or not connected)
        plan = self._adaptation.before_frame(now_us / 1000, waiting_ms, connected=connected, backlog=backlog)
        if options.bitrate_bps is not None:
            plan = replace(plan, bitrate_bps=None)
        if plan.flush:  # whether this frame is wanted or not: there is no other for a while
            dropped = self._spool.drop_waiting(self._stream_id)
            self._stats.add("dropped_late", dropped)
            self._needs_keyframe |= dropped > 0
            self._wanted_keyframe.set()
        # Who watches what is published wants every frame.
        if not self._publishes and not self._adaptation.wants(shown_us if is_unpaced else captured_us):
            return replace(plan, left_out="unanswered")
        if keeps:
            if is_unpaced:
                self._wait_for_room()
        elif not connected:
            plan = replace(plan, left_out="offline")
            self._needs_keyframe = True  # what B-frames hold back is of no use to the next connection
        # Who only watches what is published does not care for the link.
        return replace(plan, left_out=None) if self._publishes else plan

    def deliver(self, unit: TimedUnit, curve: AccuracyCurve | None) -> None:
        """Takes a coded frame; `curve` comes with the first one that a new map steers and that can tell."""
        if curve is not None and self._options.bitrate_bps is None:
            self._adaptation.accuracy(curve, self._options.tolerance)
        if not self._options.keeps_frames and not self._client.connected:
            self._stats.add("dropped_offline")
            self._needs_keyframe = True
            return
        if self._needs_keyframe and not unit.is_keyframe:
            # It was asked for, by a connection or below: B-frames and a busy encoder hold it back.
            self._stats.add("dropped_offline")
            return
        self._needs_keyframe = not self._spool.append(self._sequence, unit)
        self._sequence += 1
        if self._needs_keyframe:
            self._wanted_keyframe.set()
        self._client.wake()

    def refit(self, settings: EncoderSettings, highest_bps: int) -> None:
        """The full stream is another one from now on. May be called by any thread."""
        options = self._options
        highest_bps = highest_bps if options.bitrate_bps is None else options.bitrate_bps
        self._adaptation.refit(settings.width_px, settings.height_px, float(settings.frame_rate), highest_bps)

    def end(self, within_s: float, goes_on: Callable[[], bool] = lambda: False) -> None:
        """Sends what is left, as far as that goes within so many seconds, and lets go of the spool.

        While `goes_on`, each answer gives it as much time again: a slow DNN has its backlog to do.
        """
        self._client.stop()
        had = -1
        while self._thread.is_alive() and (had < 0 or goes_on()):
            if (results := self._stats.get("results")) == had:
                break
            had = results
            self._thread.join(max(0.1, within_s))
        if self._thread.is_alive():
            self._aborted.set()
            self._client.abort()
            self._thread.join(3.0)
        self._answered = self._client.is_drained
        self._spool.close(keep=not self._answered or bool(self._client.set_aside))

    def check_answered(self) -> None:
        """After `end`: unanswered frames that must not be left out, and that nothing keeps, are an error."""
        options = self._options
        if self.error is None and options.drop == "none" and options.spool is None and not self._answered:
            why = self._stats.snapshot().get("last_problem") or "it took too long"
            self.error = LinkError(
                f"the footage has ended, and the server has not answered all of it ({why}): "
                "--spool DIR keeps such frames for the next start"
            )

    def snapshot(self) -> dict[str, Any]:
        """Present values for the statistics."""
        return {
            **self._adaptation.snapshot(),
            "held_bytes": self._spool.held_bytes,
            "disk_failures": self._spool.disk_failures,
            "dropped_spool": self._spool.dropped_frames,
        }

    def _take(self, result: FrameResult) -> None:
        if self._feedback is not None and not result.spooled:
            self._feedback.take(result.result)
        self._outputs.put(result)

    def _wait_for_room(self) -> None:
        """Footage that is read as fast as it can be sent must not pile up."""
        while self._spool.waiting_frames(self._stream_id) > _WAITING_FRAMES and not self._aborted.is_set():
            time.sleep(0.005)

    def _run(self) -> None:
        try:
            asyncio.run(self._talk())
        except AccmpegError as error:
            self.error = error
        except asyncio.CancelledError:
            pass
        except Exception as error:
            log.exception("the network thread failed")
            self.error = AccmpegError(f"the network thread failed: {error}")
        self._ledger.give_up()

    async def _talk(self) -> None:
        await self._outputs.open()
        try:
            await self._client.run()
        finally:
            await self._outputs.close()


def make_controller(options: CameraOptions, *, adaptive: bool) -> RateController:
    """The controller of the bitrate that options ask for; without a server to adapt to it stays.

    Raises UsageError for bounds that exclude each other; the default of the lower one gives way.
    """
    budget_ms, lowest_bps, highest_bps = options.delay_budget_ms, options.lowest_bps, options.highest_bps
    if highest_bps < lowest_bps != CameraOptions.lowest_bps:
        raise UsageError(
            f"--min-bitrate {lowest_bps} is above --max-bitrate {highest_bps}: give one that fits"
        )
    start_bps = options.start_bps if options.bitrate_bps is None else options.bitrate_bps
    kind = FixedRate
    if adaptive and options.bitrate_bps is None:
        kind, start_bps = DelayRate, min(max(start_bps, lowest_bps), highest_bps)
    return kind(
        start_bps,
        budget_ms=budget_ms,
        lowest_bps=min(lowest_bps, start_bps),
        highest_bps=max(highest_bps, start_bps),
    )


def make_hello(
    name: str, stream_id: str, options: CameraOptions, info: SourceInfo, encoder: Encoder
) -> Hello:
    """What the camera says of its stream. Raises UsageError for a source that can't be said on the wire."""
    try:
        return Hello(
            camera=name,
            stream_id=stream_id,
            dnn=options.dnn,
            codec=encoder.decoder_name,  # type: ignore[arg-type]  # checked here
            width_px=encoder.settings.width_px,
            height_px=encoder.settings.height_px,
            source_width_px=info.width_px,
            source_height_px=info.height_px,
            frame_rate=float(info.frame_rate),
            time_base=(encoder.time_base.numerator, encoder.time_base.denominator),
            # A spool promises that nothing is lost: then the server may leave out nothing either.
            drop="none" if options.keeps_frames else "latest",
            software=f"accmpeg {__version__}",
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UsageError(
            f"{info.name} can't be streamed to a server: {problem['loc'][0]} is {problem['input']}, "
            f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
        ) from error
