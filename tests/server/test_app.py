"""What browsers, subscribers, Prometheus and administrators see, over real HTTP."""

import http.client
import ipaddress
import json
import re
import shutil
import socket
import struct
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from accmpeg.errors import UsageError
from accmpeg.protocol.wire import Goodbye
from accmpeg.server import ServerSettings, ServerThread, run, start_server
from tests.helpers import WAIT_S, until
from tests.server.clients import ADMIN, VIEWER, Camera, Recorded, tokens

Start = Callable[..., ServerThread]


def ask(
    server: ServerThread, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT_S)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_a_started_server_ends_with_its_block(card: Path) -> None:
    with start_server(ServerSettings(dnns=(card,), port=0, threads=1)) as server:
        assert ask(server, "/healthz")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/healthz")


def test_pages_are_self_contained_and_guarded(server: ServerThread) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/dashboard.js", "text/javascript"),
        ("/dashboard.css", "text/css"),
        ("/docs", "text/html"),
        ("/docs.js", "text/javascript"),
    ):
        status, headers, body = ask(server, path)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert b"http://" not in body, "nothing from elsewhere"
        assert b"https://" not in body
        absolute = rb"""(href=|src=|fetch\(|URL\(|WebSocket\()["`]/"""
        assert not re.search(absolute, body), "a proxy may have put the pages below a path"
    assert ask(server, "/../pyproject.toml")[0] == 404
    assert ask(server, "/nothing")[0] == 404


def test_health_and_openapi(server: ServerThread) -> None:
    assert json.loads(ask(server, "/healthz")[2]) == {"status": "ok"}
    assert ask(server, "/readyz")[0] == 200
    schema = json.loads(ask(server, "/openapi.json")[2])
    assert {"/healthz", "/readyz", "/metrics", "/v1/cameras", "/v1/dnns/{name}"} <= set(schema["paths"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/cameras", "/"])
def test_who_asks_for_the_header_alone_gets_it(server: ServerThread, path: str) -> None:
    """Balancers do, and 405 looks like a server that is down."""
    request = urllib.request.Request(server.url + path, method="HEAD")
    with urllib.request.urlopen(request, timeout=WAIT_S) as got:
        assert (got.status, got.read()) == (200, b"")
        assert int(got.headers["content-length"]) > 0


def test_the_kernel_does_not_hold_results_back(card: Path) -> None:
    with (
        run._listen(ServerSettings(dnns=(card,), port=0)) as listener,
        socket.create_connection(listener.getsockname()[:2]),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["[::1]", "::1", "localhost"])
def test_hosts_of_this_machine_are_listened_on(card: Path, host: str) -> None:
    settings = ServerSettings(dnns=(card,), host=host, port=0)
    settings.check()
    with run._listen(settings) as listener:
        socket.create_connection(listener.getsockname()[:2], WAIT_S).close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_all_addresses_are_those_of_both_kinds(card: Path, address: str) -> None:
    with run._listen(ServerSettings(dnns=(card,), host="::", port=0)) as listener:
        socket.create_connection((address, listener.getsockname()[1]), WAIT_S).close()


def test_an_address_of_a_link_keeps_its_interface(card: Path) -> None:
    lines = Path("/proc/net/if_inet6").read_text().splitlines() if Path("/proc/net/if_inet6").exists() else []
    found = [line.split() for line in lines if line.startswith("fe80")]
    if not found:
        pytest.skip("this machine has no link-local IPv6 address")
    address, interface = ipaddress.IPv6Address(int(found[0][0], 16)), found[0][-1]
    host = f"{address}%{interface}"
    with run._listen(ServerSettings(dnns=(card,), host=host, port=0)) as listener:
        socket.create_connection((host, listener.getsockname()[1]), WAIT_S).close()


@pytest.mark.parametrize("host", ["gate..local", "a" * 64, "é" * 70])
def test_hosts_that_can_not_be_meant_are_one_line(card: Path, host: str) -> None:
    with pytest.raises(UsageError, match="is no name of a host, nor an IP address"):
        run.serve(ServerSettings(dnns=(card,), host=host, port=0, insecure=True, tokens=tokens()))


def test_a_draining_server_is_not_ready(start: Start) -> None:
    server = start()
    server.running.draining = True
    assert ask(server, "/readyz")[0] == 503
    assert ask(server, "/healthz")[0] == 200


def test_metrics_and_status_count_what_came(start: Start, recorded: Recorded) -> None:
    server = start()
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 4)
        camera.send_frames(12, 1, sequence=4)  # what it refers to is missing: decoded, wrongly or not
        camera.send(Goodbye(reason="so that what never comes out of the decoder is answered too"))
        camera.results(5)
        (summary,) = json.loads(ask(server, "/v1/cameras")[2])["cameras"]
    assert summary["frames"] == 5
    assert summary["results"] + sum(summary["dropped"].values()) == 5
    assert (summary["size_px"], summary["codec"]) == ([320, 180], "h264")
    assert {"p50", "p95", "p99"} == set(summary["stages_ms"]["infer"])
    text = ask(server, "/metrics")[2].decode()
    for line in (
        'accmpeg_camera_frames_total{camera="gate"} 5.0',
        'accmpeg_camera_stage_ms{camera="gate",quantile="0.95",stage="decode"}',
        'accmpeg_stage_seconds_bucket{dnn="accmpeg-demo-detector",le="0.01",stage="queue"}',
        'accmpeg_queue_frames{dnn="accmpeg-demo-detector"} 0.0',
        'accmpeg_batch_frames_count{dnn="accmpeg-demo-detector"}',
    ):
        assert line in text


def test_subscribers_get_every_result_in_order(start: Start, recorded: Recorded) -> None:
    server = start()
    with (
        connect(f"{server.websocket_url}/v1/results?camera=gate", compression=None) as one,
        connect(f"{server.websocket_url}/v1/results", compression=None) as every,
        Camera(server, recorded) as gate,
        Camera(server, recorded, camera="roof") as roof,
    ):
        gate.welcome()
        roof.welcome()
        gate.send_frames(0, 6)
        roof.send_frames(0, 6)
        events = [json.loads(one.recv(timeout=WAIT_S)) for _ in range(6)]
        both = [json.loads(every.recv(timeout=WAIT_S)) for _ in range(12)]
    assert [event["sequence"] for event in events] == list(range(6))
    assert {event["camera"] for event in events} == {"gate"}
    assert {event["camera"] for event in both} == {"gate", "roof"}
    assert events[0]["captured_us"] == 0
    assert events[0]["size_px"] == [640, 360]
    assert events[0]["result"]["task"] == "detection"


def test_a_viewer_gets_pictures_with_results_and_maps_and_costs_nothing_before(
    start: Start, recorded: Recorded
) -> None:
    server = start(snapshots_per_s=30)
    core = server.running.core
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        camera.results(5)
        assert core.metrics.snapshots._value.get() == 0, "nobody watched"
        with connect(f"{server.websocket_url}/v1/view", compression=None, max_size=None) as viewer:
            viewer.send(json.dumps({"watch": ["gate"], "maps": ["gate"]}))
            until(lambda: core.gallery.wants_map("gate"))
            camera.send_frames(5, 5)
            message = viewer.recv(timeout=WAIT_S)
    assert isinstance(message, bytes)
    (length,) = struct.unpack_from(">I", message)
    header = json.loads(message[4 : 4 + length])
    jpeg = message[4 + length : 4 + length + header["jpeg_bytes"]]
    qps = message[4 + length + header["jpeg_bytes"] :]
    assert jpeg[:3] == b"\xff\xd8\xff"
    assert (header["camera"], header["result"]["task"]) == ("gate", "detection")
    assert (header["map_cols"], header["map_rows"], header["map_sequence"]) == (20, 12, 0)
    assert len(qps) == 20 * 12
    assert 1 < sum(qps) / len(qps) < 51, "QPs near the stream's CRF of 28"


def test_nonsense_from_a_viewer_ends_it(server: ServerThread) -> None:
    for nonsense in ("{", "[]", '{"watch": 3, "maps": []}', "x" * 20_000, "[" * 10_000):
        with connect(f"{server.websocket_url}/v1/view", compression=None) as viewer:
            viewer.send(nonsense)
            with pytest.raises(ConnectionClosed):
                viewer.recv(timeout=WAIT_S)


def test_viewers_need_a_token_or_its_cookie(start: Start) -> None:
    server = start(tokens=tokens(gate="gate-token-0123456789"))
    for path in ("/metrics", "/v1/cameras", "/v1/dnns"):
        assert ask(server, path)[0] == 401
        assert ask(server, path, Authorization="Bearer gate-token-0123456789")[0] == 401
        assert ask(server, path, Authorization=f"Bearer {VIEWER}")[0] == 200
    for path in ("/", "/healthz", "/readyz"):
        assert ask(server, path)[0] == 200
    with pytest.raises(InvalidStatus), connect(f"{server.websocket_url}/v1/results"):
        pass
    assert ask(server, "/v1/session", "POST", Authorization="Bearer wrong")[0] == 401
    status, headers, _ = ask(server, "/v1/session", "POST", Authorization=f"Bearer {VIEWER}")
    assert status == 204
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert VIEWER not in cookie
    pair = cookie.split(";")[0]
    assert ask(server, "/v1/cameras", Cookie=pair)[0] == 200
    with connect(f"{server.websocket_url}/v1/view", additional_headers={"Cookie": pair}):
        pass


def test_pages_of_other_sites_are_kept_out(server: ServerThread) -> None:
    assert ask(server, "/v1/cameras", Host="evil.example")[0] == 403, "a name pointed at this machine"
    assert ask(server, "/v1/session", "POST", Origin="http://evil.example")[0] == 403
    with (
        pytest.raises(InvalidStatus),
        connect(f"{server.websocket_url}/v1/results", origin="http://evil.example"),  # type: ignore[arg-type]
    ):
        pass
    with connect(f"{server.websocket_url}/v1/results", origin=server.url):  # type: ignore[arg-type]
        pass
    behind_proxy = {"Host": "localhost:443", "Origin": "https://localhost"}
    assert ask(server, "/v1/session", "DELETE", **behind_proxy)[0] == 204
    assert ask(server, "/v1/session", "DELETE", **behind_proxy | {"Host": "localhost:444"})[0] == 403


def test_a_dnn_is_exchanged_while_a_camera_streams(
    start: Start, recorded: Recorded, card: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dnns"
    folder.mkdir()
    text = card.read_text().replace("score_threshold = 0.3", "score_threshold = 0.999")
    (folder / "sure.card.toml").write_text(text)
    shutil.copy(card.parent / "detector.onnx", folder)
    (tmp_path / "outside.card.toml").write_text(text)
    server = start(tokens=tokens(gate="gate-token-0123456789"), dnn_folder=folder)
    admin = {"Authorization": f"Bearer {ADMIN}"}
    path = "/v1/dnns/accmpeg-demo-detector?card="
    with Camera(server, recorded, token="gate-token-0123456789") as camera:
        camera.welcome()
        camera.send_frames(0, 3)
        before = camera.results(3)
        assert ask(server, path + "sure.card.toml", "PUT", Authorization=f"Bearer {VIEWER}")[0] == 401
        strange = ("%00", "a%00.card.toml", "x" * 400 + ".card.toml", "%0a.card.toml", "")
        for wrong in ("../outside.card.toml", "/etc/passwd", "nosuch.card.toml", "detector.onnx", *strange):
            assert ask(server, path + wrong, "PUT", **admin)[0] == 400
        assert ask(server, path + "sure.card.toml", "PUT", **admin)[0] == 200
        camera.send_frames(3, 3)
        after = camera.results(3)
    assert any(each.result and each.result["objects"] for each in before)
    assert not any(each.result and each.result["objects"] for each in after), "nothing is that sure"


def test_a_camera_that_is_away_can_be_forgotten(start: Start, recorded: Recorded) -> None:
    server = start(tokens=tokens(gate="gate-token-0123456789"))
    viewer, admin = ({"Authorization": f"Bearer {token}"} for token in (VIEWER, ADMIN))
    with Camera(server, recorded, token="gate-token-0123456789") as camera:
        camera.welcome()
        assert ask(server, "/v1/cameras/gate", "DELETE", **viewer)[0] == 401
        assert ask(server, "/v1/cameras/gate", "DELETE", **admin)[0] == 409, "it is here"
        assert ask(server, "/v1/cameras/nosuch", "DELETE", **admin)[0] == 404
    until(lambda: ask(server, "/v1/cameras/gate", "DELETE", **admin)[0] == 204)
    assert json.loads(ask(server, "/v1/cameras", **viewer)[2])["cameras"] == []
    assert 'camera="gate"' not in ask(server, "/metrics", **viewer)[2].decode()


def test_cameras_that_are_away_for_long_vanish(start: Start, recorded: Recorded) -> None:
    server = start(forget_s=0.0)
    with Camera(server, recorded) as camera:
        camera.welcome()
        assert len(json.loads(ask(server, "/v1/cameras")[2])["cameras"]) == 1
    until(lambda: json.loads(ask(server, "/v1/cameras")[2])["cameras"] == [])
    assert 'camera="gate"' not in ask(server, "/metrics")[2].decode()


def test_wrong_tokens_are_counted_logged_with_their_address_and_slowed(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accmpeg.server.web.logins.FIRST_WAIT_S", 0.2)
    server = start(tokens=tokens(gate="gate-token-0123456789"))
    with caplog.at_level("WARNING", logger="accmpeg.server.web.logins"):
        begun_s = time.monotonic()
        for _ in range(5):
            status, _, _ = ask(server, "/v1/session", "POST", Authorization="Bearer wrong-0123456789")
            assert status == 401
        assert time.monotonic() - begun_s > 0.2 + 0.4, "the fourth and fifth wait"
    assert caplog.records
    assert (caplog.records[0].client, caplog.records[0].door) == ("127.0.0.1", "viewer")  # type: ignore[attr-defined]
    assert "wrong-" not in str([each.__dict__ for each in caplog.records])
    viewer = {"Authorization": f"Bearer {VIEWER}"}
    status, _, body = ask(server, "/metrics", **viewer)
    assert status == 200, "who knows a token is let in at once"
    assert 'accmpeg_failed_logins_total{door="viewer"} 5.0' in body.decode()
    assert ask(server, "/v1/cameras")[0] == 401
    assert 'door="viewer"} 5.0' in ask(server, "/metrics", **viewer)[2].decode(), "no token is no guess"
