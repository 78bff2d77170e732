"""How cameras are opened: RTSP transports and passwords, proxies, pipes; what is said when they refuse."""

import base64
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest

from accmpeg.errors import SourceError, UsageError
from accmpeg.media.inputs import InputOptions
from accmpeg.media.source import open_source
from tests.media.rtsp_camera import RtspCamera

HARD = "p#a@s:s/w?o%rd"
ENCODED = "p%23a%40s%3As%2Fw%3Fo%25rd"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "socks_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accmpeg.media.opening.TIMEOUT_S", 1.0)
    monkeypatch.setattr("accmpeg.media.inputs.TIMEOUT_S", 1.0)


def read(address: str, count: int = 3, **asked: Any) -> list[av.VideoFrame]:
    with open_source(address, InputOptions(**asked)) as source:
        assert source.info.is_live
        return [frame for frame, _ in zip(source, range(count), strict=False)]


def refused(address: str, **asked: Any) -> str:
    """What is said; not even the traceback may show a password."""
    with pytest.raises(SourceError) as caught:
        open_source(address, InputOptions(**asked))
    assert "\n" not in str(caught.value)
    everything = "".join(traceback.format_exception(caught.value))
    for secret in ("s3cret", "p%23a", "p#a@s"):
        assert secret not in everything.replace(repr(secret), "")
    return str(caught.value)


@pytest.mark.parametrize("refusal", ["461 Unsupported Transport", "400 Bad Request", "406 Not Acceptable"])
def test_a_camera_that_has_udp_only_is_read_over_udp(refusal: str) -> None:
    with RtspCamera(transports=("udp",), refusal=refusal) as camera:
        assert len(read(camera.address())) == 3
    transports = [line.partition("RTSP/1.0 ")[2] for line in camera.asked if line.startswith("SETUP")]
    assert "TCP" in transports[0]
    assert "client_port" in transports[1]


@pytest.mark.parametrize(("transport", "mark"), [("auto", "TCP"), ("tcp", "TCP"), ("udp", "client_port")])
def test_the_transport_that_is_asked_for_is_taken(transport: str, mark: str) -> None:
    with RtspCamera() as camera:
        assert len(read(camera.address(), rtsp_transport=transport)) == 3
    (asked,) = [line for line in camera.asked if line.startswith("SETUP")]
    assert mark in asked


def test_a_transport_that_is_refused_names_the_other() -> None:
    with RtspCamera(transports=("udp",)) as camera:
        assert "--rtsp-transport udp" in refused(camera.address(), rtsp_transport="tcp")
        assert len([line for line in camera.asked if line.startswith("SETUP")]) == 1
    with RtspCamera(transports=("tcp",)) as camera:
        assert "--rtsp-transport tcp" in refused(camera.address(), rtsp_transport="udp")


@pytest.mark.parametrize("digest", [False, True])
def test_encoded_passwords_open_the_camera(digest: bool) -> None:
    with RtspCamera(login=("me", HARD), digest=digest) as camera:
        assert len(read(camera.address(f"me:{ENCODED}@"))) == 3


def test_some_signs_may_stand_in_a_password_as_they_are() -> None:
    with RtspCamera(login=("me", "a@b:c")) as camera:
        assert len(read(camera.address("me:a@b:c@"))) == 3


def test_a_wrong_password_says_what_to_encode() -> None:
    with RtspCamera(login=("me", HARD)) as camera:
        said = refused(camera.address("me:s3cret@"))
        assert "user or password is wrong" in said
        assert "# as %23" in said
        assert "USER:PASSWORD@127.0.0.1" in refused(camera.address())


@pytest.mark.parametrize("password", ["s3cret#1", "s3cret/1", "s3cret?1", "s3cret#@1", "1#s3cret"])
@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_a_password_that_breaks_the_address_is_never_looked_up(scheme: str, password: str) -> None:
    said = refused(f"{scheme}://me:{password}@127.0.0.1:1/live")
    assert "the password ends at its first #, / or ?" in said
    assert "# as %23" in said


def test_a_password_that_looks_like_a_port_is_suspected() -> None:
    assert "if the @ ends a password" in refused("rtsp://127.0.0.1:1/2s3cret@127.0.0.1/live")


def test_a_path_that_is_not_there() -> None:
    with RtspCamera(describes="404 Not Found") as camera:
        assert "404 Not Found: the host is there, but not this path" in refused(camera.address())


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("silent_at", ["CONNECT", "DESCRIBE", "SETUP", "PLAY"])
def test_a_silent_camera_is_no_damaged_video(silent_at: str) -> None:
    with RtspCamera(silent_at=silent_at) as camera:
        said = refused(camera.address())
    assert "no answer in time" in said
    assert "damaged" not in said


def test_a_camera_that_hangs_up() -> None:
    with RtspCamera(hangs_up=True) as camera:
        assert "it hung up, or does not speak RTSP" in refused(camera.address())


def test_an_ipv6_camera() -> None:
    with RtspCamera(host="::1") as camera:
        assert len(read(camera.address())) == 3


def test_schemes_may_be_written_in_capital_letters(web: Any) -> None:
    with RtspCamera() as camera:
        assert len(read(camera.address().replace("rtsp://", "RTSP://"))) == 3
    assert len(read(f"Http://127.0.0.1:{web.server_port}/live")) == 3


def test_a_file_may_be_named_as_file_managers_do(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    clip = make_clip().rename(tmp_path / "sören 100% ok.mp4")
    for address in (
        f"file://{clip}",
        clip.as_uri(),
        f"FILE://localhost{clip.as_uri().removeprefix('file://')}",
    ):
        with open_source(address) as source:
            assert source.info.name == clip.name


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("rtsp:///live", "no host"),
        ("rtsp://camera:99999/live", "from 1 to 65535"),
        ("rtsp://camera:/live", "from 1 to 65535"),
        ("rtsp://a..b/live", "no name of a host"),
        ("rtsp://[::1/live", "no name of a host"),
        ("rtsp://::1/live", "brackets"),
        ("udp://239.0.0.1", "no port"),
        ("rtsp:/me:s3cret@camera/live", "begins with rtsp://"),
        ("me:s3cret@camera/live", "begins with rtsp://"),
    ],
)
def test_addresses_that_can_not_be_meant(address: str, complaint: str) -> None:
    assert complaint in refused(address)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("rtsp://camera/live", {"pixel_format": "mjpeg"}),
        ("clip.mp4", {"size_px": (640, 480)}),
        ("clip.mp4", {"rtsp_transport": "udp"}),
        ("/dev/video0", {"rtsp_transport": "udp"}),
        ("/dev/video0", {"pixel_format": "nonsense"}),
    ],
)
def test_options_of_another_kind_of_source(address: str, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        open_source(address, InputOptions(**asked))


class Pictures(BaseHTTPRequestHandler):
    """Sends a clip, whoever's address is asked for: so it is a camera and a proxy in one."""

    def do_GET(self) -> None:
        login = self.headers["Proxy-Authorization"]
        self.server.asked.append((self.path, login))
        if self.path.startswith("http:") and login is None:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.clip)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def web(make_clip: Callable[..., Path]) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.clip, server.asked = make_clip("clip.ts", 30).read_bytes(), []
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
def test_this_machine_is_never_reached_through_a_proxy(
    web: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch, host: str, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port}")
    assert len(read(f"http://{host}:{web.server_port}/live")) == 3


@pytest.mark.parametrize("scheme", ["rtsps", "rtmps", "https", "rtmpt"])
def test_neither_are_encrypted_and_tunnelled_streams(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("no_proxy", "elsewhere.invalid")

    def greet(listener: socket.socket, heard: list[bytes]) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as camera, socket.create_server(("127.0.0.1", 0)) as proxy:
        to_camera: list[bytes] = []
        to_proxy: list[bytes] = []
        threading.Thread(target=greet, args=[camera, to_camera], daemon=True).start()
        threading.Thread(target=greet, args=[proxy, to_proxy], daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert "proxy" not in refused(f"{scheme}://127.0.0.1:{camera.getsockname()[1]}/live/x")
    assert to_camera
    assert not to_proxy


def test_elsewhere_the_proxy_is_taken_with_its_password(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{ENCODED}@127.0.0.1:{web.server_port}")
    assert len(read("http://camera.invalid/live")) == 3
    login = base64.b64encode(f"me:{HARD}".encode()).decode()
    assert web.asked[-1] == ("http://camera.invalid:80/live", f"Basic {login}")


@pytest.mark.parametrize("exempt", ["camera.invalid", "invalid", ".invalid", "*", "a, *.invalid"])
def test_hosts_of_no_proxy_are_reached_directly(
    web: Any, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.server_port}")
    monkeypatch.setenv("no_proxy", exempt)
    assert "proxy" not in refused("http://camera.invalid/live")
    assert not web.asked


def test_a_proxy_that_is_away_is_named(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{closed_port}")
    said = refused("http://camera.invalid/live")
    assert f"through the proxy http://***@127.0.0.1:{closed_port} (from http_proxy)" in said
    assert "no_proxy=camera.invalid" in said


def test_a_proxy_that_can_not_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:s3cret#@proxy:3128")
    assert "the proxy of http_proxy can't be used" in refused("http://camera.invalid/live")


def test_a_named_pipe_is_live(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    clip, pipe = make_clip("clip.ts", 12).read_bytes(), tmp_path / "camera"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(clip))
    writer.start()
    assert len(read(str(pipe), 12)) == 12
    writer.join()


def test_standard_input_is_live_and_ends_with_its_writer(make_clip: Callable[..., Path]) -> None:
    program = (
        "from accmpeg.media.source import open_source\n"
        "with open_source('-') as source: print(len(list(source)), source.info.is_live, source.info.reopens)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        said, _ = reader.communicate(make_clip("clip.ts", 12).read_bytes(), timeout=30)
    assert said.split() == [b"12", b"True", b"False"]
