"""Everything that breaks between cameras and their server, with the real programs and real sockets.

Always: no result comes twice or out of order for a camera, a spool's frames are all delivered, and the other
cameras notice nothing.
"""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

import accmpeg
from accmpeg.evaluation.link.link import Link
from accmpeg.protocol.wire import MESSAGE_LIMIT_BYTES, SUBPROTOCOL, AccessUnitMessage, Hello, pack
from tests.helpers import free_port, until
from tests.live.programs import Program, Serve, Stream, Thin, sequences


@contextlib.contextmanager
def bystander(footage: Path, url: str, name: str = "bystander") -> Iterator[accmpeg.Camera]:
    """Another camera at the same server; at the end every frame of it has been answered, in order, on one
    connection, without any damage."""
    results: list[Any] = []
    options: dict[str, Any] = {"name": name, "drop": "none", "loop": True, "drain_s": 60}
    with accmpeg.stream(footage, url, on_result=results.append, **options) as camera:
        until(lambda: results)
        yield camera
    told = camera.snapshot()
    assert [each.sequence for each in results] == list(range(told["encoded"]))
    assert [each.dropped for each in results] == [None] * len(results)
    assert told["connections"] == 1
    assert "dropped_machine" not in told


def test_a_killed_server_costs_no_frame(footage: Path, card: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    with Stream(tmp_path, footage, url, "--spool", tmp_path / "spool") as camera:
        with Serve(tmp_path, card=card, port=port) as server:
            until(lambda: len(camera.results()) >= 5)
            server.kill()
        camera.wait_for_more(10)
        with Serve(tmp_path, card=card, port=port):
            camera.wait_until_answered()
            camera.terminate()
    assert sum(each["spooled"] for each in camera.results()) >= 5
    (found,) = sequences(camera.results()).values()
    assert found == list(range(camera.statistics()["encoded"]))


@pytest.mark.parametrize("cut_s", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_cut_link_costs_no_frame_with_a_spool(
    footage: Path, card: Path, tmp_path: Path, cut_s: float
) -> None:
    with (
        Serve(tmp_path, card=card) as server,
        bystander(footage, server.url),
        Thin(server.port) as link,
        Stream(tmp_path, footage, link.url, "--spool", tmp_path / "spool", "--name", "gate") as camera,
    ):
        until(lambda: len(camera.results()) >= 5)
        with link.cut():
            time.sleep(cut_s)
            captured_us = time.time_ns() // 1000
        until(lambda: camera.results()[-1]["captured_us"] > captured_us)
        camera.wait_until_answered()
        camera.terminate()
        told = camera.statistics()
        assert list(sequences(camera.results()).values()) == [list(range(told["encoded"]))]
        assert list(sequences(server.results("gate")).values()) == [list(range(told["encoded"]))]
        assert told["encoded"] == told["captured"]


@pytest.mark.parametrize("cut_s", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_cut_link_without_a_spool_goes_on_with_new_frames(
    footage: Path, card: Path, tmp_path: Path, cut_s: float
) -> None:
    with (
        Serve(tmp_path, card=card) as server,
        bystander(footage, server.url),
        Thin(server.port) as link,
        Stream(tmp_path, footage, link.url, "--name", "gate") as camera,
    ):
        until(lambda: len(camera.results()) >= 5)
        with link.cut():
            time.sleep(cut_s)
            captured_us = time.time_ns() // 1000
        until(lambda: camera.results()[-1]["captured_us"] > captured_us)
        camera.wait_until_answered()
        camera.terminate()
        assert len(sequences(camera.results())) == len(sequences(server.results("gate"))) == 1
        assert not any(each["spooled"] for each in camera.results())


@pytest.mark.slow
def test_results_that_were_on_their_way_come_after_a_break(footage: Path, card: Path, tmp_path: Path) -> None:
    # A second each way: the break takes some frames and as many results with it.
    far = Link(bandwidth_bps=20e6, propagation_ms=1000)
    spool = tmp_path / "spool"
    with (
        Serve(tmp_path, card=card) as server,
        Thin(server.port, far) as link,
        Stream(tmp_path, footage, link.url, "--spool", spool, "--name", "gate") as camera,
    ):
        for _ in range(2):
            camera.wait_for_more(8, "results")
            link.reset()
        camera.wait_for_more(5, "results")
        camera.terminate()
        expected = list(range(camera.statistics()["encoded"]))
        assert list(sequences(camera.results()).values()) == [expected]
        assert list(sequences(server.results("gate")).values()) == [expected]


def test_loss_and_jitter_cost_no_frame(footage: Path, card: Path, tmp_path: Path) -> None:
    bad = Link(bandwidth_bps=5e6, propagation_ms=10, loss=0.05, jitter_ms=200)
    with (
        Serve(tmp_path, card=card) as server,
        bystander(footage, server.url),
        Thin(server.port, bad) as link,
        Stream(tmp_path, footage, link.url, "--drop", "none", "--limit", "30") as camera,
    ):
        camera.finish()
    assert list(sequences(camera.results()).values()) == [list(range(30))]
    assert camera.statistics()["connections"] == 1


@pytest.mark.parametrize("is_cut", [False, True], ids=["online", "offline"])
def test_a_killed_camera_loses_nothing_of_its_spool(
    footage: Path, card: Path, tmp_path: Path, is_cut: bool
) -> None:
    arguments = ("--name", "gate", "--spool", tmp_path / "spool")
    with Serve(tmp_path, card=card) as server, bystander(footage, server.url), Thin(server.port) as link:
        with Stream(tmp_path, footage, link.url, *arguments) as camera:
            until(lambda: len(camera.results()) >= 5)
            with link.cut() if is_cut else contextlib.nullcontext():
                camera.wait_for_more(10)
                camera.kill()
        with Stream(tmp_path, footage, link.url, *arguments, "--limit", "20") as again:
            again.finish()
        assert not list((tmp_path / "spool").glob("*.gop"))
        first, second = sequences(server.results("gate")).values()
        assert first == list(range(len(first)))
        assert len(first) >= camera.statistics()["encoded"]
        assert second == list(range(20))
        # What the killed one had been told, its successor is not told again.
        together = sequences(camera.results() + again.results())
        assert together[list(together)[-1]] == list(range(20))


class Hostile(threading.Thread):
    """One client after the other that does its worst, until it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.rounds = 0
        self._url = url
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            for attack in (self._garbage, self._oversize, self._noise, self._crawl):
                with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                    attack()
            self.rounds += 1

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()

    def _connect(self) -> Any:
        return connect(f"{self._url}/v1/stream", subprotocols=[SUBPROTOCOL], compression=None, max_size=None)  # type: ignore[list-item]

    def _greet(self, connection: Any) -> None:
        hello = Hello(
            camera="hostile", stream_id=f"run-{self.rounds}", codec="h264", width_px=320, height_px=180,
            source_width_px=320, source_height_px=180, frame_rate=10.0, time_base=(1, 10),
        )  # fmt: skip
        connection.send(pack(hello))
        connection.recv(timeout=30)

    def _garbage(self) -> None:
        with self._connect() as connection:
            connection.send(b"\xff" * 5000)
        with self._connect() as connection:
            self._greet(connection)
            connection.send(b"AM\x01\x04\xff\xff\xff\xff")

    def _oversize(self) -> None:
        with self._connect() as connection:
            self._greet(connection)
            connection.send(bytes(MESSAGE_LIMIT_BYTES + 1))

    def _noise(self) -> None:
        """Access units of nothing but noise, whose answers it does not read."""
        with self._connect() as connection, contextlib.suppress(ConnectionClosed):
            self._greet(connection)
            for sequence in range(300):
                unit = AccessUnitMessage(
                    sequence=sequence, pts=sequence, is_keyframe=True, captured_us=0, encoded_us=0
                )
                connection.send(pack(unit, bytes([sequence % 256]) * 3000))

    def _crawl(self) -> None:
        """A request a byte at a time."""
        host, port = self._url.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            for byte in b"GET /v1/stream HTTP/1.1\r\nHost":
                connection.sendall(bytes([byte]))
                time.sleep(0.02)


@pytest.mark.parametrize("frames", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_nine_cameras_do_not_notice_a_hostile_tenth(
    leisurely: Path, card: Path, tmp_path: Path, frames: int
) -> None:
    with Serve(tmp_path, card=card) as server, contextlib.ExitStack() as stack:
        hostile = Hostile(server.url)
        cameras = [stack.enter_context(bystander(leisurely, server.url, f"camera-{i}")) for i in range(9)]
        hostile.start()
        until(
            lambda: min(camera.stats.get("results") for camera in cameras) >= frames and hostile.rounds >= 2
        )
        hostile.stop()
        seen = server.cameras()
        assert seen["hostile"]["decode_errors"] > 0
        assert [seen[f"camera-{i}"]["decode_errors"] for i in range(9)] == [0] * 9
        stack.close()
        assert len(sequences([each for i in range(9) for each in server.results(f"camera-{i}")])) == 9
        server.terminate()


@pytest.fixture
def full_disk(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A folder, and what to start a program with so that it has a file system of 128 KiB there."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size=128k none "{folder}" && exec "$@"'
    wrapper = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here: it takes user namespaces")
    return folder, wrapper


def test_a_full_disk_under_the_spool_takes_the_oldest_frames(
    footage: Path, card: Path, tmp_path: Path, full_disk: tuple[Path, tuple[str, ...]]
) -> None:
    folder, wrapper = full_disk
    with (
        Serve(tmp_path, card=card) as server,
        bystander(footage, server.url),
        Thin(server.port) as link,
        Stream(
            tmp_path, footage, link.url, "--name", "gate", "--spool", folder / "spool", wrapper=wrapper
        ) as camera,
    ):
        until(lambda: len(camera.results()) >= 5)
        with link.cut():
            until(lambda: camera.statistics()["disk_failures"] and camera.statistics()["dropped_spool"] > 10)
            captured_us = time.time_ns() // 1000
        until(lambda: camera.results()[-1]["captured_us"] > captured_us)
        camera.wait_until_answered()
        camera.terminate()
        told = camera.statistics()
        (found,) = sequences(camera.results()).values()
        assert found[-1] == told["encoded"] - 1
        assert len(found) == told["encoded"] - told["dropped_spool"]
        assert list(sequences(server.results("gate")).values()) == [found]


def test_sigterm_ends_both_in_good_order(footage: Path, card: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    with Stream(tmp_path, footage, url, "--spool", tmp_path / "spool", "--name", "gate") as camera:
        with Serve(tmp_path, card=card, port=port) as server:
            until(lambda: len(camera.results()) >= 5)
            server.terminate()
        with Serve(tmp_path, card=card, port=port) as server:
            before = len(camera.results())
            until(lambda: len(camera.results()) >= before + 10)
            camera.wait_until_answered()
            camera.terminate()
            until(lambda: not server.cameras()["gate"]["connected"])
            server.terminate()
    assert "goodbye" in camera.stderr.read_text()
    expected = [list(range(camera.statistics()["encoded"]))]
    assert list(sequences(camera.results()).values()) == expected
    assert list(sequences(server.results("gate")).values()) == expected


def test_a_camera_without_a_server_ends_at_once_when_told(footage: Path, card: Path, tmp_path: Path) -> None:
    with Stream(tmp_path, footage, f"ws://127.0.0.1:{free_port()}", "--spool", tmp_path / "spool") as camera:
        camera.wait_for_more(5)
        camera.terminate()
    assert isinstance(camera, Program)
    assert list((tmp_path / "spool").glob("*.gop")), "kept for the next start"
