"""A camera: capture, steering, encoder, publishing and the uplink to the server under one roof.

```python
import accmpeg

with accmpeg.stream("/dev/video0", "ws://127.0.0.1:8700", accmodel="cheap.card.toml") as camera:
    for result in camera:
        print(result.delay_ms, result.result)
```
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from accmpeg.accmodel.runtime import AccModel
from accmpeg.camera.cache import OfferCache, default_folder
from accmpeg.camera.capture import Capture, FrameSlot
from accmpeg.camera.encode_loop import EncodeLoop, PlannedEncoder
from accmpeg.camera.naming import address_name, checked_name, default_name
from accmpeg.camera.offers import Adopted, OfferTaker
from accmpeg.camera.options import CameraKeywords, CameraOptions
from accmpeg.camera.outputs import FrameResult, ResultOutputs, ResultSocket
from accmpeg.camera.publish import Publisher
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.spool import Spool
from accmpeg.camera.uplink.uplink import NoUplink, Uplink, make_controller, make_hello
from accmpeg.errors import AccmpegError, UsageError
from accmpeg.media.clock import SteadyClock
from accmpeg.media.source import Source, SourceInfo, open_source
from accmpeg.protocol.wire import Offer
from accmpeg.steering.encoder import Scorer
from accmpeg.steering.feedback import FeedbackMap

__all__ = ["Camera", "stream"]

_SOURCE_TIMEOUT_S = 12.0  # a dead network lets go of its reader after 10 s

log = logging.getLogger(__name__)


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
        on_result: Callable[[FrameResult], None] | None = None,
        sockets: Sequence[ResultSocket] = (),
    ) -> None:
        self.options = options = options or CameraOptions()
        if to is None and not options.publish:
            raise UsageError("nowhere to stream to: give a server (--to) or an address (--publish)")
        if options.follows_answers and to is None:
            raise UsageError("--policy feedback follows a server's answers: give a server (--to)")
        if options.policy == "none":
            accmodel = None
        if options.spool is not None and to is None:
            raise UsageError("--spool keeps frames for a server: give --to as well")
        if options.name is not None:
            checked_name(options.name, "--name")
        if options.dnn is not None:
            checked_name(options.dnn, "--dnn")
        self.name = options.name or address_name(source) or ""
        """What it is called at the server; without a name in the options, from `start` on."""
        self.stats = CameraStats()
        self.clock = SteadyClock()
        self.stream_id = uuid.uuid4().hex[:16]
        self._open: Callable[[], Source] = source if callable(source) else lambda: open_source(source)
        self._to = to
        self._accmodel = accmodel
        self._controller = make_controller(options, adaptive=to is not None)
        self._outputs = ResultOutputs(on_result, list(sockets))
        self._publishers: list[Publisher] = []
        self._uplink: Uplink | NoUplink = NoUplink(self._controller.bitrate_bps)
        self._offers: OfferTaker | None = None
        self._error: AccmpegError | None = None
        self._stopping = threading.Event()
        self._finished = threading.Event()

    def start(self) -> Self:
        """Opens everything and begins. Raises what can't be opened at once, except the server, which may be
        away: SourceError, EncoderError, SinkError, LinkError for the spool."""
        options = self.options
        with contextlib.ExitStack() as undo:
            # First, for a large one takes a while to read, and a live source that waits loses frames.
            limit_bytes, repeats = options.spool_limit_bytes, options.keeps_frames
            spool = Spool(options.spool, limit_bytes=limit_bytes, repeats=repeats)
            undo.callback(spool.close, keep=True)
            source = self._open()
            undo.callback(source.close)
            info = source.info
            self.name = self.name or default_name(info.name)
            settings = options.encoder_settings(
                info,
                self._controller.bitrate_bps,
                steerable=self._accmodel is not None or options.follows_answers,
            )
            takes_offers = self._to is not None and bool(options.adopts) and not options.publish
            may_follow = options.follows_answers or takes_offers
            feedback = FeedbackMap((info.width_px, info.height_px)) if may_follow else None
            planned = PlannedEncoder(settings, self._accmodel, options, feedback=feedback)
            encoder = planned.steered.encoder
            wanted_keyframe = threading.Event()
            self._publishers = [
                Publisher(address, encoder, self.stats, wanted_keyframe) for address in options.publish
            ]
            if self._to is not None:
                if takes_offers:
                    self._offers = self._taker(self._to, info, planned)
                self._uplink = Uplink(
                    self._to, make_hello(self.name, self.stream_id, options, info, encoder),
                    encoder.parameter_sets, spool, options, self._controller, self._outputs, feedback,
                    self._ignore if self._offers is None else self._offers.take,
                    wanted_keyframe, self.clock, self.stats,
                )  # fmt: skip
            undo.pop_all()
        slot = FrameSlot(lossless=options.drop == "none")
        self._encode = EncodeLoop(
            slot, planned, self._publishers, self._uplink, wanted_keyframe, self.clock, self.stats
        )
        self._capture = Capture(
            source, self._open, slot, self.clock, self.stats,
            paced=options.realtime, loop=options.loop, limit=options.limit,
        )  # fmt: skip
        said: dict[str, object] = {"source": info.name, "camera": self.name, "stream": self.stream_id}
        said |= {"size": f"{settings.width_px}x{settings.height_px}", "keyframe_every": settings.gop_frames}
        log.info("camera starts", extra=said)
        for remark in info.remarks:
            log.info("not all of the source comes through", extra={"source": info.name, "remark": remark})
        supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        offers = [] if self._offers is None else [self._offers]
        for part in (*self._publishers, *offers, self._uplink, self._encode, self._capture, supervisor):
            part.start()
        return self

    def _taker(self, server: ServerAddress, info: SourceInfo, planned: PlannedEncoder) -> OfferTaker:
        options = self.options

        def adopt(adopted: Adopted) -> None:
            planned.adopt(adopted.settings, adopted.accmodel, adopted.options)
            self._uplink.refit(adopted.settings, adopted.options.highest_bps)

        cache = OfferCache(options.cache or default_folder(), f"{server.url} {options.dnn or ''}")
        return OfferTaker(server, options, info, self._controller.bitrate_bps, cache, adopt, self.stats)

    def _ignore(self, offer: Offer | None) -> None:
        if offer is not None and self.stats.snapshot().get("offer") != "ignored":
            self.stats.set(offer="ignored")
            log.info("offer ignored: this camera has settings of its own, or publishes its stream")

    def stop(self) -> None:
        """Ends in good order: the encoder is flushed, what is coded is sent, the server gets a goodbye."""
        self._stopping.set()

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

    def __iter__(self) -> Iterator[FrameResult]:
        """Results as they come, until the end. At most 1000 wait; the oldest are left out beyond that."""
        return iter(self._outputs)

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
        return {**self.stats.snapshot(), **self._uplink.snapshot(), **self._outputs.snapshot()}

    def _supervise(self) -> None:
        """Watches over the threads, and whatever happens, the camera has an end."""
        try:
            self._watch()
            self._wind_up()
        except Exception as error:
            log.exception("ending the camera failed")
            self._error = AccmpegError(f"ending the camera failed: {error}")
        finally:
            self._outputs.end()
            self._finished.set()

    def _watch(self) -> None:
        """Writes the statistics until the stream ends, is stopped or fails."""
        options = self.options
        next_s = time.monotonic() + options.statistics_every_s
        while self._encode.is_alive() and self._uplink.error is None and not self._stopping.wait(0.05):
            if self._to is None and any(each.error is not None for each in self._publishers):
                break
            if time.monotonic() >= next_s:
                next_s += options.statistics_every_s
                log.info("statistics", extra=self.snapshot())

    def _wind_up(self) -> None:
        """Ends everything in order."""
        options = self.options
        if self._offers is not None:
            self._offers.end()
        self._capture.halt()
        self._encode.join(options.drain_s)
        # A thread that is inside a library when Python ends takes the whole process down with it.
        self._capture.join(_SOURCE_TIMEOUT_S)
        deadline_s = time.monotonic() + options.drain_s
        for publisher in self._publishers:
            publisher.end()
        # Footage that has ended is to be answered, however long that takes; who stops it waits no longer.
        self._uplink.end(options.drain_s, lambda: options.drop == "none" and not self._stopping.is_set())
        for publisher in self._publishers:
            publisher.join(max(0.5, deadline_s - time.monotonic()))
        if not self._stopping.is_set():
            self._uplink.check_answered()
        parts = (self._uplink, self._encode, self._capture, *self._publishers)
        self._error = next((part.error for part in parts if part.error is not None), None)
        log.info("camera ended", extra=self.snapshot())


def stream(
    source: str | Path | Callable[[], Source],
    to: str | None,
    *,
    accmodel: str | Path | Scorer | None = None,
    token: str | None = None,
    ca_file: Path | None = None,
    insecure: bool = False,
    on_result: Callable[[FrameResult], None] | None = None,
    **options: Unpack[CameraKeywords],
) -> Camera:
    """A `Camera` in one line. Enter it to start.

    Args:
        source: An address as `open_source` takes it, or a function that opens a `Source` (called again when
            a live one breaks off).
        to: The server, such as `wss://host:8700`; None to publish only.
        accmodel: The AccModel that steers, or its card or ONNX file; None streams plainly.
        token: The camera's bearer token.
        ca_file: Certificates to trust, for a server with one of its own.
        insecure: Lets the token cross the network unencrypted.
        on_result: Called with each result, on a thread of its own.
        **options: The fields of `CameraOptions`.

    Returns:
        The camera, not started; iterate over it for results.

    Raises:
        UsageError: An address or option can't be meant.
        CardError: The AccModel's card is not valid.
        WeightsError: Its weights are not those of the card.
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
