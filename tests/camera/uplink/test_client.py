"""What an earlier run left in the spool, tokens that change, and answers that lead elsewhere."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import accmpeg
from accmpeg.camera import Camera, FrameResult
from accmpeg.camera.uplink import handshake
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import Refused
from tests.camera.peer import peer
from tests.helpers import WAIT_S, free_port, until

GONE = "an-old-dnn"


@pytest.fixture(autouse=True)
def _quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.1)


def leave_behind(scene: Any, spool: Path, **options: Any) -> str:
    """A run whose server is away, and which leaves its five frames behind."""
    away = f"ws://127.0.0.1:{free_port()}"
    with accmpeg.stream(scene(5), away, spool=spool, drain_s=0.3, **options) as before:
        before.wait(WAIT_S)
    assert list(spool.glob("*.gop"))
    return before.stream_id


def test_an_earlier_run_that_is_refused_neither_ends_the_camera_nor_is_lost(
    scene: Any, tmp_path: Path
) -> None:
    earlier = leave_behind(scene, tmp_path, dnn=GONE)
    results: list[FrameResult] = []
    refusal = Refused(code="dnn", reason=f"no server DNN {GONE} here", retry=False)
    with (
        peer(refuse=refusal, refused_dnn=GONE) as server,
        accmpeg.stream(scene(5), server.url, spool=tmp_path, on_result=results.append) as camera,
    ):
        camera.wait(WAIT_S)
    assert [each.stream_id for each in results] == [camera.stream_id] * 5
    with (
        peer() as server,  # it has that DNN again
        accmpeg.stream(scene(5), server.url, spool=tmp_path, on_result=results.append) as camera,
    ):
        camera.wait(WAIT_S)
    assert [each.sequence for each in results if each.stream_id == earlier] == list(range(5))
    assert not list(tmp_path.glob("*.gop"))


def test_a_token_that_is_refused_for_a_while_costs_no_frame_of_an_earlier_run(
    scene: Any, tmp_path: Path
) -> None:
    earlier = leave_behind(scene, tmp_path)
    results: list[FrameResult] = []
    with (
        peer(token="right") as server,
        accmpeg.stream(
            scene(10_000), server.url, token="right", spool=tmp_path, on_result=results.append
        ) as camera,
    ):
        server.answers = False
        until(lambda: server.seen and len(server.seen[0].units) == 5)
        server.kill()
        server.token = "another"
        server.start()
        until(lambda: "refused the token" in str(camera.snapshot().get("last_problem")))
        server.kill()
        server.token, server.answers = "right", True
        server.start()
        until(lambda: any(each.stream_id == camera.stream_id for each in results))
    assert [each.sequence for each in results if each.stream_id == earlier] == list(range(5))


def test_a_token_file_is_read_again_where_the_connection_broke(scene: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    with peer(token="first-token") as server:
        address = ServerAddress.parse(server.url, token="first-token", token_file=file)
        with Camera(scene(10_000), address, None) as camera:
            until(lambda: camera.stats.get("results") > 0)
            server.kill()
            file.write_text("second-token\n")
            server.token = "second-token"
            server.start()
            until(lambda: camera.stats.get("connections") == 2)


def test_a_dead_address_of_a_name_does_not_keep_the_camera_from_the_next(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with peer() as server, contextlib.ExitStack() as opened:
        dead = ("127.0.0.2", server.port)
        listener = opened.enter_context(socket.create_server(dead, backlog=0))
        for _ in range(3):  # with a full queue the kernel answers nobody any more
            waits = opened.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(listener.getsockname())
        resolve = socket.getaddrinfo

        def both(host: Any, *args: Any, **named: Any) -> Any:
            hosts = ["127.0.0.2", "127.0.0.1"] if host == "server.test" else [host]
            return [found for each in hosts for found in resolve(each, *args, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", both)
        monkeypatch.setattr(handshake, "ANSWER_TIMEOUT_S", 2.0)
        monkeypatch.setenv("no_proxy", "*")
        with accmpeg.stream(scene(10_000), f"ws://server.test:{server.port}") as camera:
            until(lambda: camera.stats.get("connections"))


@pytest.fixture
def sent_on() -> Iterator[list[str]]:
    """An HTTP server whose address comes first, and that sends everybody to what comes second."""
    found = ["", ""]

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(301)
            self.send_header("Location", found[1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        found[0] = f"ws://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def test_a_token_is_not_taken_to_where_an_answer_leads(scene: Any, sent_on: list[str]) -> None:
    with peer() as elsewhere:
        sent_on[1] = f"{elsewhere.url}/v1/stream"
        with accmpeg.stream(scene(10_000), sent_on[0], token="s3cret") as camera:
            until(lambda: camera.snapshot().get("last_problem"))
        assert f"sends us on to {sent_on[1]} (HTTP 301)" in camera.snapshot()["last_problem"]
        assert not elsewhere.authorization
