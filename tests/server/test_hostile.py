"""Clients that do everything wrong, one by one, against one server that must go on serving the good ones."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from accmpeg.errors import UsageError
from accmpeg.protocol.wire import (
    MESSAGE_LIMIT_BYTES,
    SUBPROTOCOL,
    Refused,
    TimeReply,
    TimeRequest,
    Welcome,
    pack,
    unpack,
)
from accmpeg.quiet import NEWS
from accmpeg.server import Limits, ServerThread, Tokens
from tests.helpers import WAIT_S, until
from tests.server.clients import Camera, Recorded, hello_of, record, tokens, unit_message


@pytest.fixture(autouse=True)
def _others_are_undisturbed(server: ServerThread, recorded: Recorded) -> Iterator[None]:
    with Camera(server, recorded, camera="good", stream_id=f"run-{time.monotonic_ns()}") as good:
        good.welcome()
        yield
        good.send_frames(0, 2)
        assert [each.dropped for each in good.results(2)] == [None, None]


def raw(server: ServerThread) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=WAIT_S)


def closed(camera: Camera) -> bool:
    """Whether the server closes the connection, after whatever it still says; else `recv` times out."""
    try:
        while True:
            camera.receive()
    except ConnectionClosed:
        return True


def refusal_of(camera: Camera) -> Refused:
    message = camera.wait_for(Refused)
    assert isinstance(message, Refused)
    assert closed(camera)
    return message


def test_another_version_is_told_so(server: ServerThread) -> None:
    with Camera(server) as camera:
        data = bytearray(pack(hello_of()))
        data[2] = 9
        camera.socket.send(bytes(data))
        refusal = refusal_of(camera)
    assert refusal.code == "version"
    assert "wire version 9" in refusal.reason


def test_another_subprotocol_is_told_so(server: ServerThread) -> None:
    with connect(f"{server.websocket_url}/v1/stream", compression=None) as connection:
        data = connection.recv(timeout=WAIT_S)
    assert isinstance(data, bytes)
    message = unpack(data).message
    assert isinstance(message, Refused)
    assert message.code == "version"
    assert SUBPROTOCOL in message.reason


def test_an_oversize_message_is_cut_off(server: ServerThread) -> None:
    with Camera(server, camera="huge") as camera:
        camera.welcome()
        with contextlib.suppress(ConnectionClosed):
            camera.socket.send(bytes(MESSAGE_LIMIT_BYTES + 1))
        assert closed(camera)


@pytest.mark.parametrize(
    "garbage", [b"", b"AM", b"\xff" * 100, b"AM\x02\x04\xff\xff\xff\xff", b"GET / HTTP/1.1"]
)
def test_garbage_in_place_of_messages_is_refused(server: ServerThread, garbage: bytes) -> None:
    with Camera(server, camera="garbage") as camera:
        camera.welcome()
        camera.socket.send(garbage)
        assert refusal_of(camera).code == "protocol"


def test_garbage_in_place_of_video_is_answered_and_then_refused(server: ServerThread) -> None:
    with Camera(server, camera="noise") as camera:
        camera.welcome()
        some = record(width_px=160, height_px=90, frames=1).units[0]
        for sequence in range(10):  # the server's limit of damage in a row
            camera.send(unit_message(sequence, some, is_keyframe=True), bytes([sequence]) * 500)
        assert refusal_of(camera).code == "damaged"
    answers = [each for each in camera.others if hasattr(each, "dropped")]
    assert [getattr(each, "dropped", None) for each in answers] == ["undecodable"] * 10


def test_a_bitstream_larger_than_its_hello_is_never_decoded(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, camera="bomb", width_px=64, height_px=64) as camera:
        camera.recorded = recorded  # 320x180
        camera.welcome()
        camera.send_frames(0, 1)
        assert camera.results(1)[0].dropped == "undecodable"


@pytest.mark.parametrize("size", [(8192, 8192), (1936, 1088)])
def test_a_size_beyond_the_limit_is_refused(
    server: ServerThread, recorded: Recorded, size: tuple[int, int]
) -> None:
    with Camera(server, camera="large", width_px=size[0], height_px=size[1]) as camera:
        answer = camera.greet()
    assert isinstance(answer, Refused)
    assert answer.code == "size"
    with Camera(server, recorded, camera="grows") as camera:
        camera.welcome()
        camera.send(unit_message(0, recorded.units[0], size_px=size), recorded.units[0].data)
        assert refusal_of(camera).code == "size"


def test_a_sequence_that_falls_is_refused(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="falls") as camera:
        camera.welcome()
        camera.send_frames(0, 2)
        camera.send_frames(0, 1)
        assert refusal_of(camera).code == "protocol"


def test_a_second_hello_is_refused(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="again") as camera:
        camera.welcome()
        camera.send(hello_of(recorded))
        assert refusal_of(camera).code == "protocol"


def test_an_unknown_dnn_is_refused(server: ServerThread) -> None:
    with Camera(server, dnn="nosuch") as camera:
        answer = camera.greet()
    assert isinstance(answer, Refused)
    assert (answer.code, "accmpeg-demo-detector" in answer.reason) == ("dnn", True)


def test_silence_after_the_handshake_is_cut_off(server: ServerThread) -> None:
    with Camera(server) as camera:
        assert refusal_of(camera).reason.startswith("no hello")


def test_a_websocket_key_that_is_no_text_is_a_bad_request(
    server: ServerThread, caplog: pytest.LogCaptureFixture
) -> None:
    with raw(server) as connection:
        connection.sendall(
            b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xff\xff\xff\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert not [each for each in caplog.records if each.exc_info]


def test_endless_headers_are_cut_off(server: ServerThread) -> None:
    with raw(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        answer = b""
        try:
            for _ in range(10_000):
                connection.sendall(b"X-More: " + b"a" * 1000 + b"\r\n")
            answer = connection.recv(4096)
        except ConnectionError:
            return
        assert answer == b"" or b" 400 " in answer or b" 431 " in answer


def test_a_slow_sender_of_headers_is_cut_off(server: ServerThread) -> None:
    with raw(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127")
        assert connection.recv(1) == b"", "closed by the server"


@pytest.mark.slow  # the server gives up on it only when its pings go unanswered
def test_a_reader_that_never_reads_is_slowed_not_buffered(server: ServerThread, recorded: Recorded) -> None:
    core = server.running.core
    with Camera(server, recorded, camera="deaf", drop="latest") as camera:
        camera.welcome()
        for sequence in range(2000):
            unit = recorded.units[sequence % 40]
            try:
                camera.socket.socket.settimeout(0.2)
                camera.send(unit_message(sequence, unit), unit.data)
            except (TimeoutError, ConnectionClosed):
                break
        record = core.book.records["deaf"]
        assert record.waiting + len(record.stream("run-1").unsent) <= 2 * core.limits.unanswered
    for _ in range(3):
        with contextlib.suppress(AssertionError):
            until(lambda: "deaf" not in server.running.sessions)
    assert "deaf" not in server.running.sessions


def test_wrong_tokens_are_refused(start: object, recorded: Recorded) -> None:
    server = start(tokens=tokens(gate="gate-token-0123456789", roof="roof-token-0123456789"))  # type: ignore[operator]
    for token, camera_name in (
        (None, "gate"),
        ("wrong-token-0123456789", "gate"),
        ("roof-token-0123456789", "gate"),
        ("viewer-token-0123456789", "gate"),
    ):
        with Camera(server, recorded, token=token, camera=camera_name) as camera:
            answer = camera.greet()
            assert isinstance(answer, Refused)
            assert (answer.code, answer.retry) == ("auth", False)
    with Camera(server, recorded, token="gate-token-0123456789", camera="gate") as camera:
        assert isinstance(camera.greet(), Welcome)


def test_more_cameras_than_allowed_are_told_to_come_later(start: object, recorded: Recorded) -> None:
    server = start(limits=Limits(max_cameras=1))  # type: ignore[operator]
    with (
        Camera(server, recorded, camera="first") as first,
        Camera(server, recorded, camera="second") as second,
    ):
        first.welcome()
        answer = second.greet()
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry) == ("busy", True)


def test_probes_of_one_camera_take_the_place_of_one(start: object, recorded: Recorded) -> None:
    server = start(limits=Limits(max_cameras=2))  # type: ignore[operator]
    with ExitStack() as stack:
        for i in range(4):
            probe = Camera(server, recorded, camera="gate", stream_id=f"probe-{i}", probe=True)
            stack.enter_context(probe).welcome()
        stack.enter_context(Camera(server, recorded, camera="roof")).welcome()


def test_a_flood_of_questions_is_slowed(start: object, recorded: Recorded) -> None:
    server = start(limits=Limits(max_units_per_s=2))  # type: ignore[operator]
    with Camera(server, recorded) as camera:
        camera.welcome()
        start_s = time.monotonic()
        for sent_us in range(4):  # a burst of two is free, and the fourth is read when the third is paid
            camera.send(TimeRequest(sent_us=sent_us))
            camera.wait_for(TimeReply)
        assert time.monotonic() - start_s > 0.4


@pytest.mark.parametrize(("meanwhile", "code"), [("drains", "busy"), ("revokes", "auth")])
def test_a_camera_that_waits_for_its_old_connection_is_let_in_only_if_it_still_may(
    start: object, recorded: Recorded, meanwhile: str, code: str
) -> None:
    waits = threading.Event()

    class Noted(asyncio.Event):
        async def wait(self) -> Literal[True]:
            waits.set()
            return await super().wait()

    token = "gate-token-0123456789"
    server = start(tokens=tokens(gate=token))  # type: ignore[operator]
    running = server.running
    with (
        Camera(server, recorded, token=token, stream_id="run-1") as old,
        Camera(server, recorded, token=token, stream_id="run-2") as new,
        ThreadPoolExecutor(1) as threads,
    ):
        old.welcome()
        running.sessions["gate"].finished = Noted()
        answer = threads.submit(new.greet)
        assert waits.wait(WAIT_S)
        if meanwhile == "drains":
            running.draining = True
        else:
            running.core.settings = replace(
                running.core.settings, tokens=tokens(gate="another-token-0123456789")
            )
        old.close()
        refusal = answer.result(WAIT_S)
    assert isinstance(refusal, Refused)
    assert refusal.code == code


def test_a_camera_whose_token_is_exchanged_may_come_back_with_the_new_one(
    start: object, recorded: Recorded
) -> None:
    token = "gate-token-0123456789"
    server = start(tokens=tokens(gate=token))  # type: ignore[operator]
    running = server.running
    with Camera(server, recorded, token=token) as camera:
        camera.welcome()
        settings = replace(running.core.settings, tokens=tokens(gate="another-token-0123456789"))
        running.sessions["gate"]._line._loop.call_soon_threadsafe(running.reload, settings)
        refusal = camera.wait_for(Refused)
    assert (refusal.code, refusal.retry) == ("auth", True)


def test_a_reload_does_not_open_a_server_that_others_reach(start: object) -> None:
    known = tokens(gate="gate-token-0123456789")
    server = start(host="0.0.0.0", tokens=known, insecure=True)  # type: ignore[operator]
    core = server.running.core
    # These are safe for a server on loopback, which this one will be after its next start.
    with pytest.raises(UsageError, match=r"0\.0\.0\.0 lets others in"):
        server.running.reload(replace(core.settings, host="127.0.0.1", tokens=Tokens()))
    assert core.settings.tokens


def test_the_log_never_shows_a_token(
    start: object, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="accmpeg"):  # the test's own client would log them
        server = start(tokens=tokens(gate="gate-token-0123456789"))  # type: ignore[operator]

        def tried(token: str) -> str:
            with Camera(server, recorded, token=token) as camera:
                camera.greet()
            return json.dumps(
                [str(each.__dict__) for each in caplog.records if each.name.startswith("accmpeg")]
            )

        tried("gate-token-0123456789")
        # A cause is written once a second, and a test before this one may just have been refused.
        until(lambda: "camera refused" in tried("wrong-token-0123456789"))
        written = tried("wrong-token-0123456789")
    assert "token-0123456789" not in written


def test_a_camera_that_comes_and_goes_without_end_does_not_fill_the_log(
    server: ServerThread, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="accmpeg.server.session")
    for _ in range(3 * NEWS):
        with Camera(server, camera="restless") as camera:
            camera.welcome()
    until(lambda: not server.running.core.book.record("restless").connected)
    said = Counter(each.message for each in caplog.records if getattr(each, "camera", "") == "restless")
    assert 0 < said["camera connected"] <= NEWS
    assert 0 < said["camera left"] <= NEWS
