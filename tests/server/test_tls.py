"""TLS by certificate files."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from live_clients import WAIT_S, hello_of
from websockets.sync.client import connect

import accmpeg
from accmpeg.camera.address import ServerAddress
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.errors import LinkError, UsageError
from accmpeg.server import ServerThread
from accmpeg.wire import SUBPROTOCOL, Welcome, pack, unpack

Start = Callable[..., ServerThread]


def test_a_camera_connects_by_wss(start: Start, certificate: tuple[Path, Path]) -> None:
    server = start(tls_certificate=certificate[0], tls_key=certificate[1])
    assert server.url.startswith("https://")
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    with connect(
        f"{server.websocket_url}/v1/stream",
        ssl=trust,
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
        open_timeout=WAIT_S,
    ) as socket:
        socket.send(pack(hello_of()))
        data = socket.recv(timeout=WAIT_S)
    assert isinstance(data, bytes)
    assert isinstance(unpack(data).message, Welcome)


def small_scene() -> SceneSource:
    return SceneSource(SceneSpec(3, frame_count=4, width_px=320, height_px=180))


def test_the_camera_trusts_the_file_it_is_given(start: Start, certificate: tuple[Path, Path]) -> None:
    server = start(tls_certificate=certificate[0], tls_key=certificate[1])
    with accmpeg.stream(small_scene, server.websocket_url, ca_file=certificate[0], drop="none") as camera:
        assert [result.sequence for result in camera] == [0, 1, 2, 3]


def test_the_camera_gives_up_on_an_authority_that_it_does_not_know(
    start: Start, certificate: tuple[Path, Path]
) -> None:
    server = start(tls_certificate=certificate[0], tls_key=certificate[1])
    camera = accmpeg.stream(small_scene, server.websocket_url, drop="none").start()
    with pytest.raises(LinkError, match=r"not trusted .*--ca"):
        camera.wait(WAIT_S)


def test_a_file_without_certificates_is_bad_use(tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    with pytest.raises(UsageError, match=r"--ca .*No such file"):
        ServerAddress.parse("wss://127.0.0.1", ca_file=file)
    file.write_text("nonsense")
    with pytest.raises(UsageError, match="no certificate"):
        ServerAddress.parse("wss://127.0.0.1", ca_file=file)


def test_a_certificate_that_is_none_is_named(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    file.write_text("nonsense")
    with pytest.raises(UsageError, match=r"none\.pem"):
        start(tls_certificate=file, tls_key=file)
    with pytest.raises(UsageError, match="belong together"):
        start(tls_certificate=file)
