"""TLS by certificate files."""

import contextlib
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets.sync.client import connect

import accmpeg
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.errors import LinkError, UsageError
from accmpeg.protocol.wire import SUBPROTOCOL, Welcome, pack, unpack
from accmpeg.server import ServerSettings, ServerThread, run
from accmpeg.server.web.certificate import certificate_problem
from accmpeg.server.web.transport import tls_context
from tests.helpers import WAIT_S, until
from tests.server.clients import hello_of

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


def test_a_camera_that_was_told_the_wrong_scheme_or_path_hears_of_it(
    start: Start, certificate: tuple[Path, Path]
) -> None:
    server = start(tls_certificate=certificate[0], tls_key=certificate[1])
    for address, said in (
        (server.websocket_url.replace("wss:", "ws:"), "is it a wss:// server?"),
        (f"{server.websocket_url}/video/", "answered HTTP 404 instead of a WebSocket: check the address"),
    ):
        with accmpeg.stream(small_scene, address, ca_file=certificate[0]) as camera:
            until(lambda camera=camera: camera.snapshot().get("last_problem"))
        assert said in camera.snapshot()["last_problem"]


def dated(folder: Path, not_before: str, not_after: str) -> tuple[Path, Path]:
    """A certificate of these days, `YYYYMMDD`, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    paths = folder / "dated.pem", folder / "dated.key"
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=a\n[a]\nnew_certs_dir=.\ndatabase=index\nserial=serial\ndefault_md=sha256\n"
        "policy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:127.0.0.1\n"
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("01")
    request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1"
    sign = "ca -batch -config ca.cnf -selfsign -notext"
    sign += f" -startdate {not_before}000000Z -enddate {not_after}000000Z"
    for line in (
        f"{request} -keyout {paths[1].name} -out request.pem",
        f"{sign} -keyfile {paths[1].name} -in request.pem -out {paths[0].name}",
    ):
        subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)
    return paths


def test_an_expired_certificate_is_a_warning_at_the_start_and_a_hint_at_the_camera(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = dated(tmp_path, "20200101", "20210101")
    with caplog.at_level("WARNING", logger="accmpeg"):
        server = start(tls_certificate=files[0], tls_key=files[1])
    (warning,) = [each for each in caplog.records if "certificate" in each.getMessage()]
    assert "expired on 2021-01-01" in warning.reason  # type: ignore[attr-defined]
    camera = accmpeg.stream(small_scene, server.websocket_url, ca_file=files[0], drop="none").start()
    until(lambda: camera.snapshot().get("last_problem"))
    assert re.search(
        r"has expired: renew it on the server, or set this machine's clock, which says \d{4}-",
        camera.snapshot()["last_problem"],
    )
    with contextlib.suppress(LinkError):
        camera.close()


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (("20200101", "20210101"), "expired on 2021-01-01"),
        (("20900101", "20910101"), "not valid before 2090-01-01"),
        (("20200101", "20260110"), "expires on 2026-01-10"),
        (("20200101", "20991231"), ""),
    ],
)
def test_dates_of_certificates(tmp_path: Path, days: tuple[str, str], says: str) -> None:
    files = dated(tmp_path, *days)
    problem = certificate_problem(files[0], datetime(2026, 1, 1, tzinfo=UTC))
    assert says in problem
    assert (says == "") == (problem == "")


def test_a_file_without_certificates_is_bad_use(tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    with pytest.raises(UsageError, match=r"--ca .*No such file"):
        ServerAddress.parse("wss://127.0.0.1", ca_file=file)
    file.write_text("nonsense")
    with pytest.raises(UsageError, match="no certificate"):
        ServerAddress.parse("wss://127.0.0.1", ca_file=file)


def test_which_of_the_two_files_is_wrong_is_said(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    good, key = certificate
    (_, other), none = dated(tmp_path, "20200101", "20991231"), tmp_path / "none.pem"
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked], check=True
    )

    def wrong(certificate: Path, key: Path) -> str:
        with pytest.raises(UsageError) as caught:
            tls_context(ServerSettings(tls_certificate=certificate, tls_key=key))
        return str(caught.value)

    assert re.match("--tls-certificate .* no certificate in it .*PEM", wrong(key, good))
    assert re.match(r"--tls-certificate .*none\.pem can't be read: No such file", wrong(none, key))
    assert re.match(r"--tls-key .*none\.pem can't be read: No such file", wrong(good, none))
    assert re.match("--tls-key .* no private key in it", wrong(good, good))
    assert re.match("--tls-key .* is encrypted.*openssl pkey", wrong(good, locked))
    assert "do not belong together" in wrong(good, other)
    chain = tmp_path / "authority-first.pem"
    chain.write_text((tmp_path / "dated.pem").read_text() + good.read_text())
    assert "the first certificate, which must be the server's own" in wrong(chain, key)


def test_a_renewed_certificate_needs_no_signal(
    start: Start, certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RENEW_EVERY_S", 0.05)
    pem, key = certificate
    server = start(tls_certificate=pem, tls_key=key)
    for renewed, path in zip(dated(tmp_path, "20200101", "20991231"), (pem, key), strict=True):
        path.write_text(renewed.read_text())
    host, port = server.url.removeprefix("https://").split(":")
    until(lambda: ssl.get_server_certificate((host, int(port))).strip() == pem.read_text().strip())


def test_a_certificate_that_is_none_is_named(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "none.pem"
    file.write_text("nonsense")
    with pytest.raises(UsageError, match=r"none\.pem"):
        start(tls_certificate=file, tls_key=file)
    with pytest.raises(UsageError, match="belong together"):
        start(tls_certificate=file)
