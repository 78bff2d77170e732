"""A camera that sends what was encoded before: the load of many cameras without their encoders' CPU.

Everything from the spool to the answer is the real camera's code (`CameraClient`); only capture and encoding
are replaced by a list of access units, sent at their times.
"""

import asyncio
import threading
import uuid
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from accmpeg.camera.outputs import FrameResult
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.adaptation import Adaptation
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.client import CameraClient
from accmpeg.camera.uplink.clock import ClockSync
from accmpeg.camera.uplink.connection import LinkState
from accmpeg.camera.uplink.ledger import Ledger
from accmpeg.camera.uplink.ratecontrol import FixedRate
from accmpeg.camera.uplink.spool import Spool
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.media.clock import SteadyClock
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.protocol.wire import Hello
from live_programs import SceneFile

__all__ = ["Recording", "encoded", "replay"]

_HIGHEST_BPS = 1_000_000_000


@dataclass(frozen=True)
class Recording:
    """A coded clip that begins with a keyframe, so that it can be repeated."""

    units: tuple[AccessUnit, ...]
    parameter_sets: bytes
    width_px: int
    height_px: int
    frame_rate: int

    @property
    def bitrate_bps(self) -> float:
        """Its mean rate."""
        return sum(unit.size_bytes for unit in self.units) * 8 * self.frame_rate / len(self.units)


def encoded(scene: SceneFile, *, qp: int | None = None, bitrate_bps: int | None = None) -> Recording:
    """The scene by plain x264, at a constant QP or a bitrate."""
    settings = EncoderSettings(
        width_px=scene.width_px,
        height_px=scene.height_px,
        frame_rate=Fraction(scene.frame_rate),
        time_base=Fraction(1, scene.frame_rate),
        qp=qp,
        bitrate_bps=bitrate_bps,
        gop_frames=max(300, scene.period),
        steerable=False,
    )
    with av.open(str(scene.path)) as container, Encoder(settings) as encoder:
        units = [unit for frame in container.decode(video=0) for unit in encoder.encode(frame)]
        units += encoder.flush()
        sets = encoder.parameter_sets
    return Recording(tuple(units), sets, scene.width_px, scene.height_px, scene.frame_rate)


async def replay(
    recording: Recording,
    address: str,
    *,
    seconds: float,
    name: str = "camera",
    frame_rate: float | None = None,
    drop: str = "latest",
    first_after_s: float = 0.0,
    ca_file: Path | None = None,
) -> tuple[list[FrameResult], dict[str, int], SteadyClock]:
    """Sends the recording in a loop; returns results, counters and the clock that dates them.

    The loop begins anew where a keyframe is wanted, as after a reconnection. `address` is `host:port`, or
    has a scheme; `ca_file` trusts a server of one's own.
    `frame_rate` None is the recording's own. `drop` as for a camera: with `none` every frame is sent, however
    late; with `latest` the server may leave frames out (the camera can't, the frames are coded already).
    """
    rate = frame_rate or float(recording.frame_rate)
    clock, stats, stream_id = SteadyClock(), CameraStats(), uuid.uuid4().hex[:16]
    hello = Hello(
        camera=name,
        stream_id=stream_id,
        codec="h264",
        width_px=recording.width_px,
        height_px=recording.height_px,
        source_width_px=recording.width_px,
        source_height_px=recording.height_px,
        frame_rate=rate,
        time_base=(1, recording.frame_rate),
        drop="none" if drop == "none" else "latest",
        software="live_replay",
    )
    spool = Spool(None, repeats=drop == "none")
    spool.begin(hello, recording.parameter_sets)
    results: list[FrameResult] = []
    controller = FixedRate(10_000_000, highest_bps=_HIGHEST_BPS, newest_wins=False)
    state = LinkState(
        stream_id=stream_id,
        keeps=drop == "none",
        spool=spool,
        adaptation=Adaptation(controller, None, spooling=True),
        ledger=Ledger(clock, stats),
        sync=ClockSync(),
        clock=clock,
        stats=stats,
        wanted_keyframe=threading.Event(),
        on_result=results.append,
        on_offer=lambda offer: None,
    )
    url = address if "://" in address else f"ws://{address}"
    client = CameraClient(ServerAddress.parse(url, ca_file=ca_file), state)
    running = asyncio.create_task(client.run())
    loop = asyncio.get_running_loop()
    while not client.connected and not running.done():
        await asyncio.sleep(0.01)
    start_s = loop.time() + first_after_s
    place = 0
    for count in range(int(seconds * rate)):
        due_s = start_s + count / rate
        if (wait_s := due_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        if running.done():
            break
        if state.wanted_keyframe.is_set():
            state.wanted_keyframe.clear()
            place = 0
        unit = recording.units[place % len(recording.units)]
        place += 1
        # A program that wakes up late must not hide the delay: the frame was due when it was due.
        due_us = clock.now_us() - int((loop.time() - due_s) * 1e6)
        size_px = recording.width_px, recording.height_px
        spool.append(count, TimedUnit(unit.data, count, unit.is_keyframe, due_us, due_us, size_px, {}))
        client.wake()
    client.stop()
    sent = stats.get("sent")
    done, _ = await asyncio.wait([running], timeout=30)
    if not done:
        running.cancel()
        await asyncio.wait([running])
    if not running.cancelled() and (error := running.exception()) is not None:
        raise error
    counts = {
        "sent": sent,
        **{name: stats.get(name) for name in ("results", "dropped_server", "connections")},
    }
    return results, counts, clock
