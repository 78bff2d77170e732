"""A live camera: source, AccModel, encoder, link, spool, publishing and results under one roof.

```python
import accmpeg

with accmpeg.stream("/dev/video0", "ws://127.0.0.1:8700", accmodel="cheap.card.toml") as camera:
    for result in camera:
        print(result.delay_ms, result.result)
```
"""

import asyncio
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import ValidationError

from accmpeg.accmodel.runtime import AccModel
from accmpeg.camera.naming import checked_name, default_name
from accmpeg.camera.outputs import LiveResult, ResultQueue, ResultSocket
from accmpeg.camera.pipeline import Capture, CodedFrame, EncodeLoop, FrameSlot
from accmpeg.camera.publish import Publisher
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.accuracy import AccuracyCurve
from accmpeg.camera.uplink.adaptation import Adaptation
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.client import CameraClient
from accmpeg.camera.uplink.ladder import Ladder, Level
from accmpeg.camera.uplink.ratecontrol import DelayRate, FixedRate, RateController
from accmpeg.camera.uplink.spool import Spool
from accmpeg.errors import AccmpegError, UsageError
from accmpeg.media.clock import SteadyClock
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.source import Source, SourceInfo, open_source
from accmpeg.protocol.wire import AccessUnitMessage, Hello
from accmpeg.steering.encoder import Scorer, SteeredEncoder
from accmpeg.version import __version__

__all__ = ["Camera", "CameraOptions", "stream"]

START_BITRATE_BPS = 1_000_000
_STATISTICS_EVERY_S = 10.0
_SOURCE_TIMEOUT_S = 12.0  # a dead network lets go of its reader after 10 s
_CODECS: dict[str, Literal["h264", "hevc", "vp9"]] = {"h264": "h264", "hevc": "hevc", "vp9": "vp9"}
_RESULTS_HELD = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How a camera streams; every field has the default that suits an unattended camera.

    `bitrate_bps` None adapts to the link within `lowest_bps` and `highest_bps`, holding `delay_budget_ms`
    from capture to arrival; a number fixes it. `drop`: `latest` leaves frames out where machine or link
    fall behind, `none` leaves none out (footage is then read only as fast as it can be sent). `spool` is
    the folder that keeps frames of an outage, `spool_limit_bytes` its bound. `publish` are further
    addresses for the same stream; size and frame rate then stay as they are. `tolerance` is the share of
    predicted accuracy that is not worth more bits. `drain_s` bounds the end.
    """

    name: str | None = None
    """None is made of this machine's name and the source's, see `default_name`."""
    dnn: str | None = None
    policy: str = "graded"
    every: int = 10
    codec: str = "libx264"
    preset: str = "veryfast"
    gop_frames: int = 300
    size_px: tuple[int, int] | None = None
    bitrate_bps: int | None = None
    start_bps: int = START_BITRATE_BPS
    lowest_bps: int = 100_000
    highest_bps: int = 8_000_000
    delay_budget_ms: float = 300.0
    adapt_size: bool = True
    tolerance: float = 0.02
    drop: Literal["latest", "none"] = "latest"
    realtime: bool = True
    loop: bool = False
    """Begin footage again when it ends."""
    limit: int | None = None
    spool: Path | None = None
    spool_limit_bytes: int = 256 << 20
    publish: Sequence[str] = ()
    drain_s: float = 10.0
    statistics_every_s: float = _STATISTICS_EVERY_S


@dataclass
class _Ending:
    requested: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)


class Camera:
    """Streams from `start` (or `with`) until the source ends, `stop`, or a failure; iterate over its results.

    `source`: an address as `open_source` takes it, or a function that opens a `Source` (called again when a
    live one breaks off). `to` is the server, None to publish only. Raises UsageError for options that
    can't be meant, and at the end (`wait`, leaving `with`) whatever stopped it: SourceError, EncoderError,
    LinkError.
    """

    def __init__(
        self,
        source: str | Path | Callable[[], Source],
        to: ServerAddress | None,
        accmodel: Scorer | None,
        options: CameraOptions | None = None,
        *,
        on_result: Callable[[LiveResult], None] | None = None,
        sockets: Sequence[ResultSocket] = (),
        controller: RateController | None = None,
    ) -> None:
        self.options = options = options or CameraOptions()
        if to is None and not options.publish:
            raise UsageError("nowhere to stream to: give a server (--to) or an address (--publish)")
        if options.spool is not None and to is None:
            raise UsageError("--spool keeps frames for a server: give --to as well")
        if options.name is not None:
            checked_name(options.name, "--name")
        if options.dnn is not None:
            checked_name(options.dnn, "--dnn")
        self.name = options.name or ""
        """What it is called at the server; without a name in the options, from `start` on."""
        self.stats = CameraStats()
        self.clock = SteadyClock()
        self.stream_id = uuid.uuid4().hex[:16]
        self._open: Callable[[], Source] = source if callable(source) else lambda: open_source(source)
        self._to = to
        self._accmodel = accmodel
        self._sockets = list(sockets)
        self._results: queue.Queue[LiveResult | None] = queue.Queue(_RESULTS_HELD)
        self._callback = ResultQueue(on_result) if on_result is not None else None
        self._end = _Ending()
        self._sequence = 0
        self._controller = controller or self._make_controller()
        self._adaptation: Adaptation | None = None
        self._spool: Spool | None = None
        self._client: CameraClient | None = None
        self._publishers: list[Publisher] = []
        self._network: threading.Thread | None = None
        self._supervisor: threading.Thread | None = None
        self._error: AccmpegError | None = None
        self._finished = threading.Event()
        self._saw_keyframe = False

    def start(self) -> Self:
        """Opens everything and begins. Raises what can't be opened at once, except the server, which may be
        away: SourceError, EncoderError, SinkError, LinkError for the spool."""
        options = self.options
        source = self._open()
        try:
            info = source.info
            self.name = self.name or default_name(info.name)
            width_px, height_px = options.size_px or (info.width_px, info.height_px)
            self._settings = EncoderSettings.for_source(
                info,
                width_px=width_px,
                height_px=height_px,
                codec=options.codec,
                preset=options.preset,
                gop_frames=options.gop_frames,
                bitrate_bps=self._controller.bitrate_bps,
                # A keyframe as large as this buffer takes the budget to send: keep it below.
                vbv_buffer_ms=max(100, int(0.8 * options.delay_budget_ms)),
                steerable=self._accmodel is not None,
            )
            slot = FrameSlot(lossless=options.drop == "none")
            self._ladder = None
            if options.adapt_size and options.bitrate_bps is None and not options.publish:
                self._ladder = Ladder(width_px, height_px, float(info.frame_rate))
            self._adaptation = Adaptation(
                self._controller, self._ladder, spooling=options.spool is not None or options.drop == "none"
            )
            self._capture = Capture(
                source, self._open, slot, self.clock, self.stats,
                paced=options.realtime, loop=options.loop, limit=options.limit,
            )  # fmt: skip
            self._encode = EncodeLoop(
                slot, self._settings, self._accmodel, lambda: options.policy, self.clock, self.stats,
                every=options.every, plan=self._plan, deliver=self._deliver, scored=self._scored,
            )  # fmt: skip
            encoder = self._encode.encoder.encoder
            for address in options.publish:
                publisher = Publisher(address, encoder, self.stats, self._encode.request_keyframe)
                self._publishers.append(publisher)
            if self._to is not None:
                hello = self._hello(info, encoder)
                keeps = options.spool is not None or options.drop == "none"
                self._spool = Spool(options.spool, options.spool_limit_bytes, repeats=keeps)
                self._spool.begin(hello, encoder.parameter_sets)
                self._client = CameraClient(
                    self._to, self._spool, self._adaptation, self.clock, self.stats,
                    stream_id=self.stream_id,
                    keeps=keeps,
                    on_result=self._take_result,
                    request_keyframe=self._encode.request_keyframe,
                )  # fmt: skip
                self._network = threading.Thread(target=self._run_network, name="network", daemon=True)
                self._network.start()
        except BaseException:
            source.close()
            if self._spool is not None:
                self._spool.close(keep=True)
            raise
        log.info(
            "camera starts",
            extra={
                "source": info.name,
                "camera": self.name,
                "size": f"{width_px}x{height_px}",
                "stream": self.stream_id,
            },
        )
        for remark in info.remarks:
            log.info("not all of the source comes through", extra={"source": info.name, "remark": remark})
        for publisher in self._publishers:
            publisher.start()
        self._encode.start()
        self._capture.start()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()
        return self

    def _hello(self, info: SourceInfo, encoder: Encoder) -> Hello:
        options = self.options
        width_px, height_px = options.size_px or (info.width_px, info.height_px)
        try:
            return Hello(
                camera=self.name,
                stream_id=self.stream_id,
                dnn=options.dnn,
                codec=_CODECS[encoder.decoder_name],
                width_px=width_px,
                height_px=height_px,
                source_width_px=info.width_px,
                source_height_px=info.height_px,
                frame_rate=float(info.frame_rate),
                time_base=(encoder.time_base.numerator, encoder.time_base.denominator),
                # A spool promises that nothing is lost: then the server may leave out nothing either.
                drop="none" if options.spool is not None else options.drop,
                software=f"accmpeg {__version__}",
            )
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise UsageError(
                f"{info.name} can't be streamed to a server: {problem['loc'][0]} is {problem['input']}, "
                f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
            ) from error

    def stop(self) -> None:
        """Ends in good order: the encoder is flushed, what is coded is sent, the server gets a goodbye."""
        self._end.requested.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the end; returns whether it has come. Raises what stopped the camera."""
        done = self._finished.wait(timeout_s)
        if done and self._error is not None:
            raise self._error
        return done

    def close(self) -> None:
        """`stop` and `wait`."""
        self.stop()
        self.wait()

    def __iter__(self) -> Iterator[LiveResult]:
        """Results as they come, until the end. At most 1000 wait; the oldest are left out beyond that."""
        while (result := self._results.get()) is not None:
            yield result

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._finished.wait(self.options.drain_s + 10)
        if error is None and self._error is not None:
            raise self._error

    def snapshot(self) -> dict[str, Any]:
        """Counters and present values."""
        found = self.stats.snapshot()
        if self._adaptation is not None:
            found |= self._adaptation.snapshot()
        if self._spool is not None:
            found |= {"held_bytes": self._spool.held_bytes, "disk_failures": self._spool.disk_failures}
            found["dropped_spool"] = self._spool.dropped_frames
        if self._callback is not None:
            found["results_unread"] = self._callback.dropped
        return found

    def _make_controller(self) -> RateController:
        options = self.options
        adaptive = options.bitrate_bps is None and self._to is not None
        kind = DelayRate if adaptive else FixedRate
        start_bps = options.bitrate_bps if options.bitrate_bps is not None else options.start_bps
        return kind(
            min(max(start_bps, options.lowest_bps), options.highest_bps) if adaptive else start_bps,
            budget_ms=options.delay_budget_ms,
            lowest_bps=min(options.lowest_bps, start_bps),
            highest_bps=max(options.highest_bps, start_bps),
        )

    def _plan(self) -> tuple[int | None, Level, str | None]:
        """Asked by the encode thread before each frame."""
        full = Level(1, 1)
        if self._client is None or self._spool is None or self._adaptation is None:
            return None, full, None
        now_us = self.clock.now_us()
        first_us = self._spool.peek_encoded_us(self.stream_id)
        waiting_ms = 0.0 if first_us is None else max(0.0, (now_us - first_us) / 1000)
        keeps = self.options.spool is not None or self.options.drop == "none"
        backlog = keeps and (waiting_ms > 1000 or not self._client.connected)
        plan = self._adaptation.before_frame(now_us / 1000, waiting_ms, backlog=backlog)
        bitrate_bps = plan.bitrate_bps if self.options.bitrate_bps is None else None
        if keeps:
            if self.options.drop == "none" and not self.options.realtime:
                self._wait_for_room()
            return bitrate_bps, plan.level, None
        if not self._client.connected:
            return bitrate_bps, plan.level, None if self._publishers else "offline"
        if plan.flush:
            self.stats.add("dropped_late", self._spool.drop_waiting(self.stream_id))
            self._encode.request_keyframe()
        if not plan.admit and not self._publishers:
            return bitrate_bps, plan.level, "link"
        return bitrate_bps, plan.level, None

    def _wait_for_room(self) -> None:
        """Footage that is read as fast as it can be sent must not pile up."""
        assert self._spool is not None
        while self._spool.waiting_frames(self.stream_id) > 30 and not self._end.aborted.is_set():
            time.sleep(0.005)

    def _deliver(self, coded: CodedFrame) -> None:
        """Called by the encode thread with each coded frame."""
        for publisher in self._publishers:
            publisher.put(coded.unit)
        if self._client is None or self._spool is None:
            return
        keeps = self.options.spool is not None or self.options.drop == "none"
        if not keeps and not self._client.connected:
            self.stats.add("dropped_offline")
            self._saw_keyframe = False
            return
        if not self._saw_keyframe and not coded.unit.is_keyframe:
            self.stats.add("dropped_offline")
            self._encode.request_keyframe()
            return
        self._saw_keyframe = True
        message = AccessUnitMessage(
            sequence=self._sequence,
            pts=coded.unit.pts,
            is_keyframe=coded.unit.is_keyframe,
            captured_us=coded.captured_us,
            encoded_us=coded.encoded_us,
            size_px=coded.size_px if coded.unit.is_keyframe else None,
            camera_ms=coded.stages_ms,
        )
        self._sequence += 1
        self._spool.append(message, coded.unit.data)
        self._client.wake()

    def _scored(self, encoder: SteeredEncoder, unit: AccessUnit) -> None:
        """After a new map: where would more bits stop paying?"""
        if self._adaptation is None or encoder.scores is None or encoder.qp_offsets is None:
            return
        if unit.qp is None or unit.is_keyframe or self._encode.times.runs["encode"] % self.options.every != 1:
            return
        if self.options.bitrate_bps is not None or encoder.settings.bitrate_bps is None:
            return
        target_bps = self._adaptation.snapshot()["target_bps"]
        curve = AccuracyCurve(encoder.scores.accgrad, encoder.qp_offsets, unit.qp, target_bps)
        self._adaptation.accuracy(curve, self.options.tolerance)

    def _take_result(self, result: LiveResult) -> None:
        """Called by the network thread with each result."""
        for each in self._sockets:
            each.put(result)
        if self._callback is not None:
            self._callback.put(result)
        if self._results.full():
            self._results.get_nowait()
        self._results.put_nowait(result)

    def _run_network(self) -> None:
        try:
            asyncio.run(self._network_main())
        except AccmpegError as error:
            self._error = self._error or error
        except asyncio.CancelledError:
            pass
        except Exception as error:
            log.exception("the network thread failed")
            self._error = self._error or AccmpegError(f"the network thread failed: {error}")
        self._end.requested.set()

    async def _network_main(self) -> None:
        assert self._client is not None
        for each in self._sockets:
            await each.open()
        try:
            await self._client.run()
        finally:
            for each in self._sockets:
                await each.close()

    def _supervise(self) -> None:
        """Watches over the threads, writes the statistics, and ends everything in order."""
        next_s = time.monotonic() + self.options.statistics_every_s
        while self._encode.is_alive() and not self._end.requested.wait(0.05):
            if any(each.error is not None for each in self._publishers) and self._to is None:
                break
            if time.monotonic() >= next_s:
                next_s += self.options.statistics_every_s
                log.info("statistics", extra=self.snapshot())
        self._capture.halt()
        self._encode.join(self.options.drain_s)
        # A thread that is inside a library when Python ends takes the whole process down with it.
        self._capture.join(_SOURCE_TIMEOUT_S)
        self._error = self._error or self._encode.error or self._capture.error
        deadline_s = time.monotonic() + self.options.drain_s
        for publisher in self._publishers:
            publisher.end()
        if self._client is not None and self._network is not None:
            self._client.stop()
            self._network.join(max(0.1, deadline_s - time.monotonic()))
            if self._network.is_alive():
                self._end.aborted.set()
                self._client.abort()
                self._network.join(3.0)
        for publisher in self._publishers:
            publisher.join(max(0.5, deadline_s - time.monotonic()))
            self._error = self._error or publisher.error
        if self._spool is not None and self._client is not None:
            self._spool.close(keep=not self._client.is_drained)
        if self._callback is not None:
            self._callback.close()
        log.info("camera ended", extra=self.snapshot())
        self._finished.set()
        if self._results.full():
            self._results.get_nowait()
        self._results.put_nowait(None)


def stream(
    source: str | Path | Callable[[], Source],
    to: str | None,
    *,
    accmodel: str | Path | Scorer | None = None,
    token: str | None = None,
    ca_file: Path | None = None,
    insecure: bool = False,
    on_result: Callable[[LiveResult], None] | None = None,
    **options: Any,
) -> Camera:
    """A `Camera` in one line; `options` are the fields of `CameraOptions`. Enter it to start.

    Raises UsageError for an address or option that can't be meant, CardError or WeightsError for the
    AccModel.
    """
    address = None
    if to is not None:
        address = ServerAddress.parse(to, token=token, ca_file=ca_file, insecure=insecure)
    try:
        chosen = CameraOptions(**options)
    except TypeError as error:
        raise UsageError(f"a camera has no such option: {error}") from None
    model = AccModel.load(accmodel) if isinstance(accmodel, str | Path) else accmodel
    return Camera(source, address, model, chosen, on_result=on_result)
