"""Connections that never ask for anything: they are counted when they come, and leave room for the others."""

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.protocol import State

from accmpeg.protocol import wire
from accmpeg.server import Limits, ServerSettings, ServerThread
from accmpeg.server.web.transport import WebSockets, uvicorn_config
from tests.helpers import WAIT_S, until
from tests.server.clients import hello_of

Start = Callable[..., ServerThread]


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[socket.socket]]]:
    """Opens silent connections, and closes them in the end."""
    with ExitStack() as stack:

        def connect(server: ServerThread, count: int, address: str = "127.0.0.1") -> list[socket.socket]:
            port = urlsplit(server.url).port or 0
            return [
                stack.enter_context(
                    socket.create_connection(("127.0.0.1", port), WAIT_S, source_address=(address, 0))
                )
                for _ in range(count)
            ]

        yield connect


def status_of(server: ServerThread, path: str = "/healthz", address: str = "127.0.0.1") -> int:
    parts = urlsplit(server.url)
    where = (parts.hostname or "", parts.port)
    if parts.scheme == "https":
        unchecked = ssl._create_unverified_context()
        connection: HTTPConnection = HTTPSConnection(
            *where, timeout=WAIT_S, context=unchecked, source_address=(address, 0)
        )
    else:
        connection = HTTPConnection(*where, timeout=WAIT_S, source_address=(address, 0))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "HTTP"])
def test_silent_connections_give_way_to_whoever_asks(
    start: Start, certificate: tuple[Path, Path], crowd: Callable[..., list[socket.socket]], tls: bool
) -> None:
    files = {"tls_certificate": certificate[0], "tls_key": certificate[1]} if tls else {}
    server = start(limits=Limits(max_connections=20, handshake_s=WAIT_S), **files)
    silent = crowd(server, 100)
    until(lambda: sum(map(is_open, silent)) == 20)
    assert status_of(server) == 200, "the oldest silent one went for it"


@pytest.mark.slow
def test_all_cameras_of_a_lost_zone_get_in_at_once_beside_silent_connections(
    start: Start, certificate: tuple[Path, Path], crowd: Callable[..., list[socket.socket]]
) -> None:
    cameras, addresses = 400, [f"127.0.0.{number}" for number in range(2, 7)]
    limits = Limits(max_connections=cameras + 100, max_cameras=cameras, handshake_s=WAIT_S)
    server = start(
        tls_certificate=certificate[0], tls_key=certificate[1], limits=limits, memory_bytes=4 << 30
    )
    silent = crowd(server, 200, "127.0.0.9")
    context = ssl.create_default_context(cafile=certificate[0])

    async def camera(number: int, all_answered: asyncio.Barrier) -> type[wire.Message]:
        hello = hello_of(camera=f"camera{number}", width_px=64, height_px=64)
        async with connect(
            f"{server.websocket_url}/v1/stream",
            ssl=context,
            subprotocols=[wire.SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            open_timeout=WAIT_S,
            local_addr=(addresses[number % len(addresses)], 0),
        ) as connection:
            await connection.send(wire.pack(hello))
            answer = wire.unpack(await connection.recv(decode=False)).message
            await all_answered.wait()
            return type(answer)

    async def storm() -> set[type[wire.Message]]:
        all_answered = asyncio.Barrier(cameras)
        return set(await asyncio.gather(*(camera(number, all_answered) for number in range(cameras))))

    assert asyncio.run(storm()) == {wire.Welcome}
    assert sum(map(is_open, silent)) <= 100, "they went for the cameras"
    assert status_of(server, address="127.0.0.8") == 200


def test_a_silent_tls_client_has_the_handshakes_time(
    start: Start, certificate: tuple[Path, Path], crowd: Callable[..., list[socket.socket]]
) -> None:
    server = start(tls_certificate=certificate[0], tls_key=certificate[1], limits=Limits(handshake_s=0.5))
    (silent,) = crowd(server, 1)
    silent.settimeout(WAIT_S)
    assert silent.recv(1) == b"", "closed by the server"
    until(lambda: b'refused_total{code="tls"} 1.0' in server.running.core.metrics.text())


def test_one_address_does_not_take_all_places(start: Start) -> None:
    server = start(limits=Limits(max_connections=8, max_connections_per_address=3))
    with ExitStack() as stack:
        parts = urlsplit(server.url)
        asking = []
        for _ in range(3):
            connection = HTTPConnection(
                parts.hostname or "", parts.port, timeout=WAIT_S, source_address=("127.0.0.2", 0)
            )
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
            asking.append(connection)
        with pytest.raises(OSError):  # noqa: PT011 - reset or closed
            status_of(server, address="127.0.0.2")
        assert status_of(server, address="127.0.0.3") == 200
        asking[0].close()
        until(lambda: answers(server, "127.0.0.2"))


def answers(server: ServerThread, address: str) -> bool:
    try:
        return status_of(server, address=address) == 200
    except OSError:
        return False


def test_http_to_a_tls_port_is_named_in_the_log(
    start: Start, certificate: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    server = start(tls_certificate=certificate[0], tls_key=certificate[1])
    parts = urlsplit(server.url)
    with (
        caplog.at_level("WARNING", logger="accmpeg"),
        socket.create_connection((parts.hostname or "", parts.port or 0), WAIT_S) as plain,
    ):
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(100)
        line = until(lambda: next((e for e in caplog.records if e.getMessage() == "no TLS"), None))
    assert (line.client, line.code) == ("127.0.0.1", "HTTP_REQUEST")


PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
from accmpeg.cli.logs import set_up_logs
from accmpeg.demo import assets_path
from accmpeg.server import ServerSettings, ServerThread
set_up_logs()
with ServerThread(ServerSettings(dnns=(assets_path() / "detector.card.toml",), port=0, threads=1)) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_a_process_out_of_descriptors_says_so_once_a_second_and_lives(
    crowd: Callable[..., list[socket.socket]],
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "300"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        address = urlsplit(program.stdout.readline().strip())
        silent = [
            socket.create_connection((address.hostname or "", address.port or 0), WAIT_S) for _ in range(600)
        ]
        connection = HTTPConnection(address.hostname or "", address.port, timeout=WAIT_S)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        for each in silent:
            each.close()
        _, written = program.communicate("", timeout=WAIT_S)
    assert program.returncode == 0
    assert "allows fewer connections" in written
    assert written.count("too many connections") < 20


def test_a_camera_that_is_not_read_is_not_taken_for_dead() -> None:
    """Its pong waits behind frames for which a slow DNN has no time yet."""

    async def work() -> None:
        config = uvicorn_config(lambda *_: None, ServerSettings())
        config.load()
        here, there = socket.socketpair()
        with there:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: WebSockets(config, ServerState(), {}), sock=here
            )
            protocol.conn.state = State.OPEN
            for read_paused in (True, False):
                protocol.read_paused = read_paused
                protocol.send_keepalive_ping()
                protocol.keepalive_timeout()
                assert transport.is_closing() is not read_paused

    asyncio.run(work())
