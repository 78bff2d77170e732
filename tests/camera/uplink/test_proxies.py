"""Proxies of the environment between camera and server: taken where they are meant, named when they fail."""

import base64
import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import accmpeg
from accmpeg.camera.uplink.address import ServerAddress, connection_problem
from accmpeg.camera.uplink.fetch import fetch
from accmpeg.cli.doctor_server import examine_server
from accmpeg.errors import LinkError, UsageError, WireError
from tests.camera.peer import Peer, peer
from tests.helpers import free_port

ELSEWHERE = "server.invalid:8700"
VARIABLES = ("http", "https", "all", "socks", "ws", "wss", "no")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Peer]:
    with peer() as running:
        yield running


class Proxy:
    """Answers CONNECT with `status`, and where that is 200 passes on to `port` of this machine."""

    def __init__(self, port: int, status: str = "200 OK") -> None:
        self.asked: list[str] = []
        self._to = port
        self._status = status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(4096)
                if not data:
                    return
                head += data
            self.asked.append(head.decode())
            client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
            if not self._status.startswith("200"):
                return
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                back = threading.Thread(target=_pass_on, args=[server, client], daemon=True)
                back.start()
                _pass_on(client, server)
                back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


Start = Callable[..., Proxy]


@pytest.fixture
def proxy() -> Iterator[Start]:
    running: list[Proxy] = []

    def start(port: int, status: str = "200 OK") -> Proxy:
        running.append(Proxy(port, status))
        return running[-1]

    yield start
    for each in running:
        each.close()


def results_of(scene: Any, url: str) -> int:
    with accmpeg.stream(scene(5), url, drop="none") as camera:
        return len(list(camera))


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy", "socks_proxy", "ws_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machines_own_server_is_reached_directly(
    scene: Any, server: Peer, monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    address = ServerAddress.parse(f"ws://{host}:{server.port}")
    assert address.proxy() is None
    assert ServerAddress.parse("wss://[::1]:8700").proxy() is None
    if variable == "http_proxy":
        assert results_of(scene, address.url) == 5


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ws_proxy"])
def test_a_server_elsewhere_is_reached_through_the_proxy(
    scene: Any, server: Peer, proxy: Start, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    between = proxy(server.port)
    monkeypatch.setenv(variable, f"http://me:s3cret@{between.address}/")
    assert results_of(scene, f"ws://{ELSEWHERE}") == 5
    assert between.asked[0].startswith(f"CONNECT {ELSEWHERE} HTTP/1.1")
    assert base64.b64encode(b"me:s3cret").decode() in between.asked[0]


def test_a_proxys_password_is_decoded(
    scene: Any, server: Peer, proxy: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = proxy(server.port)
    monkeypatch.setenv("http_proxy", f"http://me:p%40s%3As%25@{between.address}")
    assert results_of(scene, f"ws://{ELSEWHERE}") == 5
    assert base64.b64encode(b"me:p@s:s%").decode() in between.asked[0]


@pytest.mark.parametrize(
    "exempt",
    ["server.invalid", ".invalid", "invalid", "a, *.invalid", "a b .invalid", "*", ELSEWHERE, "invalid:8700"],
)
def test_what_no_proxy_names_is_reached_directly(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert ServerAddress.parse(f"wss://{ELSEWHERE}").proxy() is not None
    monkeypatch.setenv("no_proxy", exempt)
    assert ServerAddress.parse(f"wss://{ELSEWHERE}").proxy() is None


def test_networks_of_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,fd00::/8,192.168.7.7")
    direct = ("10.1.2.3", "[fd00::9]", "192.168.7.7")
    assert [ServerAddress.parse(f"wss://{host}").proxy() for host in direct] == [None] * 3
    assert ServerAddress.parse("wss://11.1.2.3").proxy() is not None
    monkeypatch.setenv("NO_PROXY", "cam.example:443,11.1.2.3:8700,[2001:db8::1]:443")
    for host, is_direct in {"cam.example": 1, "[2001:db8::1]": 1, "11.1.2.3": 0, "xcam.example": 0}.items():
        assert (ServerAddress.parse(f"wss://{host}").proxy() is None) == is_direct, host


def test_http_proxies_are_not_for_encrypted_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert ServerAddress.parse(f"wss://{ELSEWHERE}").proxy() is None


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        ("407 Proxy Authentication Required", "wants another user or password (HTTP 407)"),
        ("403 Forbidden", "does not let us through to server.invalid:8700, it answered HTTP 403"),
    ],
)
def test_a_proxy_that_refuses_is_named(
    proxy: Start, monkeypatch: pytest.MonkeyPatch, status: str, complaint: str
) -> None:
    between = proxy(1, status)
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@{between.address}")
    finding = examine_server(ServerAddress.parse(f"ws://{ELSEWHERE}"))[-1]
    assert finding.state == "failed"
    said = f"{finding.detail}: {finding.way_out}"
    assert f"the proxy http://***@{between.address} (from http_proxy)" in said
    assert complaint in said
    assert "no_proxy=server.invalid" in said
    assert "s3cret" not in said


def test_doctor_checks_the_proxy_and_the_way_behind_it(
    server: Peer, proxy: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = proxy(server.port)
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@{between.address}")
    findings = {each.part: each for each in examine_server(ServerAddress.parse(f"ws://{ELSEWHERE}"))}
    assert findings["proxy"].detail.startswith(f"http://***@{between.address} (from http_proxy)")
    assert findings["handshake"].state == "ok"
    assert "DNS" not in findings


def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("https_proxy", f"http://me:s3cret@127.0.0.1:{port}")
    (finding,) = examine_server(ServerAddress.parse(f"wss://{ELSEWHERE}"))
    assert finding.part == "proxy"
    assert f"http://***@127.0.0.1:{port} (from https_proxy) can't be reached" in finding.detail
    assert "no_proxy=server.invalid" in finding.way_out


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("socks_proxy", "socks5://me:s3cret@127.0.0.1:1", "speaks SOCKS: pip install"),
        ("all_proxy", "socks://127.0.0.1:1/", "speaks SOCKS: pip install"),
        ("socks_proxy", "127.0.0.1:1", "speaks SOCKS: pip install"),
        ("https_proxy", "http://me:s3cret#@proxy:3128", "the password ends at its first #"),
        ("https_proxy", "http://me:s3cret%23@proxy:3128", "may hold no #, / or ?"),
        ("https_proxy", "http://me@proxy:3128", "can't be used"),
        ("https_proxy", "ftp://proxy", "can't be used"),
        ("https_proxy", "http://", "can't be used"),
        ("https_proxy", "proxy:99999", "can't be used"),
    ],
)
def test_a_proxy_that_can_not_be_used_ends_the_camera_with_one_line(
    scene: Any, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)  # as if it were not installed
    monkeypatch.setenv(variable, value)
    with (
        pytest.raises(LinkError) as caught,
        accmpeg.stream(scene(1000), f"ws://{ELSEWHERE}", drop="none") as camera,
    ):
        camera.wait()
    assert complaint in str(caught.value)
    assert variable in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_name_with_several_addresses_that_all_refuse() -> None:
    # What asyncio makes of localhost, which is ::1 and 127.0.0.1.
    both = OSError(
        "Multiple exceptions: [Errno 111] Connect call failed ('::1', 80, 0, 0), "
        "[Errno 111] Connect call failed ('127.0.0.1', 80)"
    )
    said = connection_problem(both, ServerAddress.parse("ws://localhost")).reason
    assert said.startswith("nothing listens at localhost:80: is the server running?")
    assert "Without a port in its address that means 80" in said


@pytest.mark.parametrize(
    "address", ["ws://[::1", "ws://a..b:8700", "ws://ho st", "ws://me:s3cret#x@host", "ws://", "ws://host:0"]
)
def test_server_addresses_that_can_not_be_meant(address: str) -> None:
    with pytest.raises(UsageError, match="no server address") as caught:
        ServerAddress.parse(address)
    assert "s3cret" not in str(caught.value)


def test_files_are_fetched_through_the_proxy(
    server: Peer, proxy: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = proxy(server.port)
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@{between.address}/")
    with pytest.raises(WireError, match="the server answered HTTP 426"):  # it speaks WebSockets only
        fetch(ServerAddress.parse(f"ws://{ELSEWHERE}"), "accmodel/0", 1)
    assert between.asked[0].startswith(f"CONNECT {ELSEWHERE} HTTP/1.")
    assert base64.b64encode(b"me:s3cret").decode() in between.asked[0]


@pytest.mark.parametrize("kind", ["https", "socks5"])
def test_a_proxy_that_files_can_not_take_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("all_proxy", f"{kind}://127.0.0.1:{free_port()}")
    with pytest.raises(LinkError, match=r"no_proxy=server\.invalid|pip install"):
        fetch(ServerAddress.parse(f"ws://{ELSEWHERE}"), "accmodel/0", 1)
