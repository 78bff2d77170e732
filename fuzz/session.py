"""Fuzz targets of what lies behind the wire: a whole session at the server, the camera's client, and HTTP."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import atheris

with atheris.instrument_imports(include=["accmpeg"]):
    from accmpeg.camera.stats import CameraStats
    from accmpeg.camera.uplink.adaptation import Adaptation
    from accmpeg.camera.uplink.address import ServerAddress
    from accmpeg.camera.uplink.client import CameraClient
    from accmpeg.camera.uplink.clock import ClockSync
    from accmpeg.camera.uplink.connection import LinkState
    from accmpeg.camera.uplink.ledger import Ledger
    from accmpeg.camera.uplink.ratecontrol import DelayRate
    from accmpeg.camera.uplink.spool import Spool
    from accmpeg.dnn.base import ServerDnn, load_dnn
    from accmpeg.media.clock import SteadyClock
    from accmpeg.protocol.backoff import Backoff
    from accmpeg.protocol.wire import (
        SUBPROTOCOL,
        AccessUnitMessage,
        Feedback,
        Goodbye,
        Hello,
        Refused,
        ResultMessage,
        TimeReply,
        TimeRequest,
        Welcome,
        pack,
        unpack,
    )
    from accmpeg.server import Limits, ServerSettings, start_server
    from accmpeg.server.models import LoadedDnn, ModelIdentity
    from accmpeg.server.server import Server
    from accmpeg.server.web.app import make_app

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

from accmpeg.demo import assets_path
from accmpeg.errors import LinkError
from accmpeg.media.encoder import AccessUnit

__all__ = ["feedback", "hello", "http", "units"]

LIMIT_S = 20.0
Target = tuple[Callable[[bytes], None], list[bytes]]


class Errors(logging.Handler):
    """What the programs only log must end the fuzzing too: both go on after what they did not expect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._found: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(self.format(record))

    def check(self) -> None:
        assert not self._found, "\n".join(self._found)


class Recalled:
    """The demo's network, run once for each shape of its input: the frames do not matter here."""

    max_batch = None

    def __init__(self, real: ServerDnn) -> None:
        self._real = real.network
        self._outputs: dict[tuple[int, ...], list[Any]] = {}

    def run(self, batch: Any) -> list[Any]:
        shape = batch.shape[1:]
        if shape not in self._outputs:
            self._outputs[shape] = self._real.run(batch[:1])
        return [np.repeat(output, len(batch), axis=0) for output in self._outputs[shape]]


class Application:
    """The real application without its sockets, one conversation after the other."""

    def __init__(self) -> None:
        self._errors = Errors()
        card = assets_path() / "detector.card.toml"
        dnn = load_dnn(card, threads=1)
        dnn.network = Recalled(dnn)  # type: ignore[assignment]
        limits = Limits(max_pixels_per_s=1e12, max_units_per_s=1e6, handshake_s=5, damaged_in_a_row=20)
        settings = ServerSettings(dnns=(card,), limits=limits, drain_s=LIMIT_S)
        self._loop = asyncio.new_event_loop()
        self._app = self._loop.run_until_complete(self._make(settings, dnn))

    async def _make(self, settings: ServerSettings, dnn: ServerDnn) -> Any:
        identity = ModelIdentity(dnn.card.name, None, "cpu")
        return make_app(Server(settings, {dnn.card.name: LoadedDnn([dnn], identity)}))

    def talk(self, messages: list[bytes]) -> list[Any]:
        """What it answers to these messages of one connection; raises what is no answer."""
        answers = self._loop.run_until_complete(asyncio.wait_for(self._talk(messages), LIMIT_S))
        self._errors.check()
        return answers

    async def _talk(self, messages: list[bytes]) -> list[Any]:
        coming: list[dict[str, Any]] = [{"type": "websocket.connect"}]
        coming += [{"type": "websocket.receive", "bytes": data} for data in messages]
        answers: list[Any] = []
        ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if coming:
                return coming.pop(0)
            await ended.wait()
            return {"type": "websocket.disconnect", "code": 1000}

        async def send(event: Any) -> None:
            if event["type"] == "websocket.send":
                answers.append(unpack(event["bytes"]).message)
            if event["type"] == "websocket.close" or (answers and isinstance(answers[-1], Refused)):
                ended.set()

        scope = {
            "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"}, "scheme": "ws",
            "http_version": "1.1", "path": "/v1/stream", "raw_path": b"/v1/stream", "query_string": b"",
            "root_path": "", "headers": [(b"host", b"127.0.0.1")], "subprotocols": [SUBPROTOCOL],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8700), "state": {}, "extensions": {},
        }  # fmt: skip
        await self._app(scope, receive, send)
        return answers


def _hello(**changes: Any) -> Hello:
    values: dict[str, Any] = {
        "camera": "gate", "stream_id": "run-1", "codec": "h264", "width_px": 160, "height_px": 96,
        "source_width_px": 320, "source_height_px": 192, "frame_rate": 30.0, "time_base": (1, 30),
    }  # fmt: skip
    return Hello(**{**values, **changes})


def hello() -> Target:
    """Whatever comes first is welcomed or refused."""
    server = Application()

    def one(data: bytes) -> None:
        answers = server.talk([data, pack(Goodbye(reason="enough"))])
        assert answers
        assert isinstance(answers[0], Welcome | Refused)

    return one, [
        pack(_hello(), b"\0\0\1\x67"),
        pack(_hello(drop="none", answered=3, dnn="accmpeg-demo-detector")),
        pack(_hello(probe=True, codec="hevc", stream_id="run-2")),
        pack(_hello(width_px=8192, height_px=8192, codec="vp9")),
        pack(Goodbye(reason="")),
    ]


def units(encoded: list[AccessUnit], mutated: Callable[[bytes, Any], bytes]) -> Target:
    """Every frame is answered once, whatever it is, or the connection is refused."""
    server = Application()
    runs = 0

    def one(data: bytes) -> None:
        nonlocal runs
        runs += 1
        choices = atheris.FuzzedDataProvider(data)
        drop = choices.PickValueInList(["latest", "none"])
        messages = [pack(_hello(stream_id=f"run-{runs}", drop=drop))]
        sequence, expected = 0, []
        for unit in encoded * 2:
            kind = choices.ConsumeIntInRange(0, 9)
            if kind == 0:
                messages.append(choices.ConsumeBytes(choices.ConsumeIntInRange(0, 100)))
            elif kind == 1:
                messages.append(
                    pack(TimeRequest(sent_us=choices.ConsumeIntInRange(-(1 << 62), (1 << 62) - 1)))
                )
            elif kind == 2:
                messages.append(choices.PickValueInList(messages))
            else:
                sequence += choices.ConsumeIntInRange(0, 3)
                size_px = None
                if choices.ConsumeProbability() < 0.05:
                    size_px = (choices.ConsumeIntInRange(16, 512), choices.ConsumeIntInRange(16, 512))
                message = AccessUnitMessage(
                    sequence=sequence,
                    pts=choices.ConsumeIntInRange(-(1 << 62), (1 << 62) - 1),
                    is_keyframe=unit.is_keyframe or choices.ConsumeProbability() < 0.1,
                    captured_us=choices.ConsumeIntInRange(-(1 << 62), (1 << 62) - 1),
                    encoded_us=0,
                    size_px=size_px,
                    camera_ms={"encode": choices.ConsumeFloatInRange(0, 1e9)},
                )
                messages.append(pack(message, mutated(unit.data, choices)))
                expected.append(sequence)
                sequence += 1
        answers = server.talk([*messages, pack(Goodbye(reason="enough"))])
        answered = [each.sequence for each in answers if isinstance(each, ResultMessage)]
        assert len(answered) == len(set(answered)), answered
        assert set(answered) <= set(expected)
        if not any(isinstance(each, Refused) for each in answers):
            assert sorted(answered) == sorted(set(expected)), (answered, expected)

    return one, [b"", bytes(200), bytes(range(256)) * 4, b"\x05" * 400]


def feedback() -> Target:
    """Whatever a server says, the client connects again or ends; nothing else comes out of it."""
    Backoff.FIRST_S = 0.0
    errors = Errors()
    loop = asyncio.new_event_loop()
    saying: list[bytes] = []
    client: CameraClient | None = None

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        for data in saying:
            await connection.send(data)
        if client is not None:
            client.stop()

    async def listen() -> int:
        server = await serve(handle, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None)  # type: ignore[list-item]
        return int(next(iter(server.sockets)).getsockname()[1])

    address = ServerAddress.parse(f"ws://127.0.0.1:{loop.run_until_complete(listen())}")

    async def run() -> None:
        nonlocal client
        spool = Spool(None, _hello())
        controller = DelayRate(1_000_000, budget_ms=300.0, lowest_bps=100_000, highest_bps=8_000_000)
        clock, stats = SteadyClock(), CameraStats()
        state = LinkState(
            stream_id="run-1", keeps=False, spool=spool,
            adaptation=Adaptation(controller, None, spooling=False), ledger=Ledger(clock, stats),
            sync=ClockSync(), clock=clock, stats=stats, wanted_keyframe=threading.Event(),
            on_result=lambda result: None,
        )  # fmt: skip
        client = CameraClient(address, state)
        try:
            async with asyncio.timeout(LIMIT_S):
                await client.run()
        except LinkError:
            pass
        finally:
            spool.close(keep=False)

    def one(data: bytes) -> None:
        # Each message is framed by its length, so that messages of the corpus can be joined.
        saying.clear()
        while data:
            size = int.from_bytes(data[:2], "big")
            saying.append(data[2 : 2 + size])
            data = data[2 + size :]
        loop.run_until_complete(run())
        errors.check()

    result = {"task": "detection", "objects": [{"class": "car", "score": 0.5, "box_xyxy": [1, 2, 3, 4]}]}
    welcome = pack(Welcome(dnn="net", task="detection", resume_after=7))
    later = [
        pack(Feedback(highest_sequence=0, received_bytes=9, received_us=5, waiting=1, needs_keyframe=True)),
        pack(ResultMessage(sequence=0, pts=3, captured_us=1, result=result, server_ms={"infer": 9.0})),
        pack(TimeReply(sent_us=1, received_us=2, replied_us=3)),
        pack(Goodbye(reason="later")),
        pack(Refused(code="busy", reason="later", retry=True)),
    ]
    framed = [len(each).to_bytes(2, "big") + each for each in (welcome, *later)]
    return one, [framed[0] + each for each in framed[1:]] + [b"".join(framed), framed[-1]]


def http() -> Target:
    """Any bytes are answered below 500, or not at all."""
    errors = Errors()
    card = assets_path() / "detector.card.toml"
    server = start_server(ServerSettings(dnns=(card,), port=0, threads=1, limits=Limits(handshake_s=5)))
    parts = urlsplit(server.url)
    where = (parts.hostname or "", parts.port or 0)

    def one(data: bytes) -> None:
        answer = b""
        with socket.create_connection(where, LIMIT_S) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(1 << 16):
                    answer += part
            except (ConnectionError, BrokenPipeError):
                pass
        errors.check()
        for line in answer.split(b"\r\n"):
            assert not (line.startswith(b"HTTP/1.1 5") and line[9:12].isdigit()), line

    host = b"Host: 127.0.0.1\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: accmpeg.1\r\n"
    requests = [
        b"GET / HTTP/1.1", b"GET /metrics HTTP/1.1", b"GET /v1/cameras HTTP/1.1", b"GET /readyz HTTP/1.1",
        b"PUT /v1/dnns/net?card=%00 HTTP/1.1", b"DELETE /v1/cameras/gate HTTP/1.1",
        b"POST /v1/session HTTP/1.1\r\nAuthorization: Bearer x\r\nCookie: accmpeg_viewer=y",
    ]  # fmt: skip
    sockets = [
        b"GET " + path + b" HTTP/1.1\r\n" + host + upgrade + b"\r\n"
        for path in (b"/v1/stream", b"/v1/results?camera=gate", b"/v1/view")
    ]
    masked = b"\x82\x84\x00\x00\x00\x00AM\x02\x01"
    return one, [each + b"\r\n" + host + b"\r\n" for each in requests] + [each + masked for each in sockets]
