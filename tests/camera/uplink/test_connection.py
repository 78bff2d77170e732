"""Servers that fall silent, behind a relay that passes nothing on any more, or that talk nonsense."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import accmpeg
from accmpeg.camera import FrameResult
from accmpeg.errors import LinkError
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import NewOffer, Refused, pack
from tests.camera.peer import peer
from tests.helpers import free_port, until

SILENT_S, FIRST_WAIT_S = 0.5, 0.1
WAIT_S = 60.0
CLOSING_S = 2.0
"""What the camera's WebSocket allows for a closing."""


class Relay:
    """Passes bytes on until `freeze`: the connections of then stay open, and carry nothing any more.

    New ones pass, as they do at a balancer that has taken the lost server out.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._frozen = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._frozen.set()
        self._frozen = threading.Event()

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes its thread
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, there = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(*ends, self._frozen), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, frozen: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if frozen.is_set():
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with peer() as server, contextlib.closing(Relay(server.port)) as running:
        yield running


def test_a_server_that_falls_silent_is_left_without_waiting_for_a_closing(
    scene: Any, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accmpeg.camera.uplink.connection.SILENT_S", SILENT_S)
    monkeypatch.setattr(Backoff, "FIRST_S", FIRST_WAIT_S)
    results: list[FrameResult] = []
    with accmpeg.stream(scene(10_000), relay.url, on_result=results.append) as camera:
        until(lambda: len(results) >= 5)
        relay.freeze()
        frozen_s, had = time.monotonic(), len(results)
        until(lambda: camera.snapshot()["connections"] == 2)
        took_s = time.monotonic() - frozen_s
        until(lambda: len(results) > had + 5)
    assert SILENT_S / 2 < took_s < CLOSING_S


def test_a_flood_of_unreadable_offers_writes_few_lines_and_costs_no_answer(
    scene: Any, caplog: pytest.LogCaptureFixture
) -> None:
    flood = [pack(NewOffer(offer={"nonsense": number})) for number in range(2000)]
    results: list[FrameResult] = []
    with (
        caplog.at_level(logging.INFO, "accmpeg"),
        peer(says=flood) as server,
        accmpeg.stream(scene(10_000), server.url, on_result=results.append) as camera,
    ):
        until(lambda: len(results) >= 5)
        assert camera.snapshot()["connections"] == 1
    assert 1 <= sum(each.message == "offer refused" for each in caplog.records) < 10


def test_a_server_that_breaks_on_what_a_spool_kept_is_not_flooded(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = f"ws://127.0.0.1:{free_port()}"
    with accmpeg.stream(scene(5), away, spool=tmp_path, drain_s=0.5) as before:
        before.wait(WAIT_S)
    monkeypatch.setattr(Backoff, "FIRST_S", FIRST_WAIT_S)
    with peer(breaks=True) as server, accmpeg.stream(scene(10_000), server.url, spool=tmp_path) as camera:
        until(lambda: server.seen)
        had = len(server.seen)
        time.sleep(1.0)  # enough for ten of the first wait, with jitter for twenty
        assert len(server.seen) <= had + 21
        assert camera.snapshot()["connections"] >= 1


def test_footage_that_nobody_answered_is_an_error_and_one_that_was_stopped_is_none(scene: Any) -> None:
    address = f"ws://127.0.0.1:{free_port()}"
    camera = accmpeg.stream(scene(5), address, drop="none").start()
    with pytest.raises(LinkError, match=r"has not answered all of it \(nothing listens at .*--spool DIR"):
        camera.wait(WAIT_S)
    with accmpeg.stream(scene(10_000), address, drop="none") as stopped:
        until(lambda: stopped.snapshot().get("last_problem"))


@pytest.mark.parametrize(
    "said", [b"nonsense", pack(Refused(code="busy", reason="no", retry=True))], ids=["unreadable", "refused"]
)
def test_a_server_that_welcomes_and_then_refuses_is_come_back_to_ever_more_slowly(
    scene: Any, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", FIRST_WAIT_S)
    with peer(says=[said]) as server, accmpeg.stream(scene(10_000), server.url) as camera:
        until(lambda: camera.snapshot().get("connections") == 1)
        time.sleep(3.0)  # enough for thirty of the first wait, and for five that double
        assert 2 <= camera.snapshot()["connections"] <= 7
