"""`accmpeg doctor --server`: the way from this camera to a server, one step after another.

Every step is tried for real: name, TCP, TLS, WebSocket handshake with the token, a stream of its own with a
few pictures of noise, which give round trip, clock offset and upload goodput. A step that fails ends it.
"""

import asyncio
import socket
import time
import uuid
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from accmpeg.camera.naming import checked_name, default_name
from accmpeg.camera.uplink.address import ServerAddress, connection_problem
from accmpeg.camera.uplink.clock import ClockSync
from accmpeg.camera.uplink.handshake import ANSWER_TIMEOUT_S, connection_to
from accmpeg.cli.finding import Finding
from accmpeg.errors import LinkError, WireError
from accmpeg.media.clock import SteadyClock
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.frames import plane_view
from accmpeg.media.proxies import Proxy
from accmpeg.protocol.wire import (
    AccessUnitMessage,
    Feedback,
    Goodbye,
    Hello,
    Refused,
    TimeReply,
    TimeRequest,
    Welcome,
    pack,
    unpack,
)

__all__ = ["examine_server"]

_FRAMES = 20
_SIZE_PX = (640, 360)
_TIME_SAMPLES = 8


def examine_server(address: ServerAddress, name: str | None = None) -> list[Finding]:
    """Tries every step; never raises for what fails, but says it with the way out.

    `name` is the camera's, for a token that only it may use; its own stream goes on undisturbed. Raises
    `UsageError` for a name that none can have.
    """
    name = checked_name(name, "--name") if name is not None else default_name("doctor")
    findings: list[Finding] = []
    try:
        proxy = address.proxy()
    except LinkError as error:
        return [_failed("proxy", error, address)]
    steps: list[tuple[str, Callable[[], str]]]
    if proxy is not None:  # which then does the rest, and may be the only one that can
        steps = [("proxy", lambda: _reach_proxy(proxy))]
    else:
        steps = [("DNS", lambda: _resolve(address)), ("TCP", lambda: _reach(address.host, address.port))]
        if address.secure:
            steps.append(("TLS", lambda: _encrypt(address)))
    for part, step in steps:
        try:
            findings.append(Finding(part, "ok", step()))
        except (OSError, WebSocketException, LinkError) as error:
            findings.append(_failed(part, error, address))
            return findings
    if not address.secure:
        findings.append(Finding("TLS", "missing", "ws:// is not encrypted", "use wss:// beyond this machine"))
    asyncio.run(_talk(address, name, findings))
    return findings


def _failed(part: str, error: BaseException, address: ServerAddress) -> Finding:
    reason = connection_problem(error, address).reason
    what, _, way_out = reason.partition(": ")
    return Finding(part, "failed", what if way_out else reason, way_out or "see the server's log")


def _resolve(address: ServerAddress) -> str:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return ", ".join(sorted({str(each[4][0]) for each in found}))


def _reach(host: str, port: int) -> str:
    start_s = time.monotonic()
    socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S).close()
    return f"{host}:{port} in {(time.monotonic() - start_s) * 1000:.0f} ms"


def _reach_proxy(proxy: Proxy) -> str:
    found = proxy.location
    port = found.port or proxy.default_port
    return f"{proxy.shown}: {_reach(found.host, port)}"


def _encrypt(address: ServerAddress) -> str:
    context = address.tls()
    assert context is not None
    with (
        socket.create_connection((address.host, address.port), timeout=ANSWER_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secured,
    ):
        certificate: Any = secured.getpeercert() or {}
        return f"{secured.version()}, certificate valid until {certificate.get('notAfter', 'unknown')}"


async def _talk(address: ServerAddress, name: str, findings: list[Finding]) -> None:
    part = "handshake"
    try:
        async with connection_to(address) as connection:
            findings.append(Finding(part, "ok", f"WebSocket {connection.subprotocol}"))
            part = "token"
            units, hello, parameter_sets = _noise(name)
            await connection.send(pack(hello, parameter_sets))
            welcome = await _next(connection, (Welcome,))
            assert isinstance(welcome, Welcome)
            token = "accepted" if address.token else "none given, none needed"
            findings.append(Finding(part, "ok", f"{token}; server DNN {welcome.dnn} ({welcome.task})"))
            part = "round trip"
            findings += await _clock(connection)
            part = "upload"
            findings.append(await _upload(connection, units))
            await connection.send(pack(Goodbye(reason="doctor")))
    except (OSError, WebSocketException, LinkError, WireError) as error:
        findings.append(_failed(part, error, address))


async def _next(connection: ClientConnection, kinds: tuple[type, ...]) -> object:
    """The next message of these kinds; others are passed over."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        while True:
            data = await connection.recv()
            if isinstance(data, str):
                raise WireError("the server sent text, not binary messages")
            message = unpack(data).message
            if isinstance(message, Refused):
                raise LinkError(f"the server refused the stream ({message.code}): {message.reason}")
            if isinstance(message, kinds):
                return message


async def _clock(connection: ClientConnection) -> list[Finding]:
    clock, sync = SteadyClock(), ClockSync()
    for _ in range(_TIME_SAMPLES):
        await connection.send(pack(TimeRequest(sent_us=clock.now_us())))
        reply = await _next(connection, (TimeReply,))
        assert isinstance(reply, TimeReply)
        sync.add(reply.sent_us, reply.received_us, reply.replied_us, clock.now_us())
    found = sync.estimate(clock.now_us())
    if found is None:
        return [Finding("clock", "failed", "the clocks jumped while they were read", "try again")]
    # Adding 0 makes a rounded "-0.0" a "+0.0".
    ahead_ms = round(found.offset_us / 1000, 1) + 0.0
    return [
        Finding("round trip", "ok", f"{found.round_trip_us / 1000:.1f} ms, the shortest of {_TIME_SAMPLES}"),
        Finding(
            "clock",
            "ok",
            f"the server's is {ahead_ms:+.1f} ms ahead, ± {found.error_us / 1000:.1f} ms",
        ),
    ]


def _noise(name: str) -> tuple[list[AccessUnit], Hello, bytes]:
    """Pictures that don't compress: some hundred kilobytes that any server decodes."""
    width_px, height_px = _SIZE_PX
    settings = EncoderSettings(
        width_px=width_px, height_px=height_px, frame_rate=Fraction(30), qp=36, steerable=False
    )
    random = np.random.default_rng(0)
    units: list[AccessUnit] = []
    with Encoder(settings) as encoder:
        for _ in range(_FRAMES):
            frame = av.VideoFrame(width_px, height_px, "yuv420p")
            for index in range(3):
                plane = plane_view(frame, index)
                plane[:] = random.integers(64, 192, plane.shape, dtype=np.uint8)
            units += encoder.encode(frame)
        parameter_sets = encoder.parameter_sets
        base = encoder.time_base
    hello = Hello(
        camera=name,
        stream_id=uuid.uuid4().hex[:16],
        codec="h264",
        width_px=width_px,
        height_px=height_px,
        source_width_px=width_px,
        source_height_px=height_px,
        frame_rate=30.0,
        time_base=(base.numerator, base.denominator),
        probe=True,
    )
    return units, hello, parameter_sets


async def _upload(connection: ClientConnection, units: list[AccessUnit]) -> Finding:
    clock = SteadyClock()
    total_bytes = sum(unit.size_bytes for unit in units)
    start_s = time.monotonic()

    async def send() -> None:
        for sequence, unit in enumerate(units):
            now_us = clock.now_us()
            message = AccessUnitMessage(
                sequence=sequence,
                pts=unit.pts,
                is_keyframe=unit.is_keyframe,
                captured_us=now_us,
                encoded_us=now_us,
            )
            await connection.send(pack(message, unit.data))

    sending = asyncio.create_task(send())
    received_bytes = 0
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while received_bytes < total_bytes:
                feedback = await _next(connection, (Feedback,))
                assert isinstance(feedback, Feedback)
                received_bytes = feedback.received_bytes
    except TimeoutError:
        pass
    finally:
        sending.cancel()
    rate_bps = received_bytes * 8 / (time.monotonic() - start_s)
    detail = f"{rate_bps / 1e6:.2f} Mbit/s ({received_bytes / 1000:.0f} kB arrived)"
    if rate_bps < 100_000:
        return Finding(
            "upload", "failed", detail, "thinner than the least bitrate of 100 kbit/s: see the link"
        )
    return Finding("upload", "ok", detail)
