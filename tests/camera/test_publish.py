"""Publishing besides the server and instead of it; an address that fails must not hold the camera up."""

import contextlib
import errno
import resource
import socket
import subprocess
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

import accmpeg
from accmpeg.camera import publish
from accmpeg.camera.publish import Publisher
from accmpeg.camera.stats import CameraStats
from accmpeg.errors import SinkError
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.protocol.backoff import Backoff
from tests.camera.peer import peer
from tests.helpers import free_port, until


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_file_instead_of_a_server(scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "steered.mp4"
    with accmpeg.stream(scene(20), None, publish=[str(path)], drop="none") as camera:
        camera.wait()
    assert frames_of(path) == 20
    assert not list(tmp_path.glob("*.part"))


def test_a_camera_that_starts_again_keeps_what_was_recorded_before(scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "yard.mp4"
    (tmp_path / "yard-2.mp4.part").write_bytes(b"of a run that was killed")
    for frames in (20, 5):
        with accmpeg.stream(scene(frames), None, publish=[str(path)], drop="none") as camera:
            camera.wait()
    assert frames_of(path) == 20
    assert frames_of(tmp_path / "yard-3.mp4") == 5
    assert (tmp_path / "yard-2.mp4.part").read_bytes() == b"of a run that was killed"


def test_a_file_and_a_server_get_the_same_stream(scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "steered.mkv"
    with peer() as server, accmpeg.stream(scene(20), server.url, publish=[str(path)], drop="none") as camera:
        results = list(camera)
    assert frames_of(path) == len(results) == 20


def test_a_bad_file_name_is_told_at_the_start(scene: Any, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="does not exist"):
        accmpeg.stream(scene(5), None, publish=[str(tmp_path / "no" / "x.mp4")]).start()


def test_a_full_disk_ends_publishing_and_costs_the_stream_no_keyframes(scene: Any, tmp_path: Path) -> None:
    stats, wanted_keyframe = CameraStats(), threading.Event()
    settings = EncoderSettings(
        width_px=64,
        height_px=48,
        frame_rate=15,
        bitrate_bps=500_000,
        steerable=False,
        pixel_aspect=Fraction(1),
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Encoder(settings) as encoder, contextlib.ExitStack() as undo:
        publisher = Publisher(str(tmp_path / "full.ts"), encoder, stats, wanted_keyframe)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        undo.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        publisher.start()
        unit = AccessUnit(bytes(100_000), 0, 0, encoder.time_base, is_keyframe=True)
        for number in range(300):
            publisher.put(replace(unit, pts=number, dts=number, is_keyframe=not number))
            if publisher.error is None:
                time.sleep(0.01)
        publisher.end()
        publisher.join(10)
    assert publisher.error is not None
    assert not wanted_keyframe.is_set()


def test_udp_reaches_a_receiver(scene: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        with accmpeg.stream(scene(20), None, publish=[address], drop="none") as camera:
            packet = receiver.recv(65536)
            camera.wait()
    assert camera.stats.get("published") == 20
    assert packet[0] == 0x47, "MPEG-TS"


@pytest.mark.parametrize("scheme", ["rtmp", "tcp", "rtsp"])
def test_an_address_where_nobody_listens_holds_nothing_up(scene: Any, scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:{free_port()}/live"
    with peer() as server, accmpeg.stream(scene(20), server.url, publish=[address], drop="none") as camera:
        assert len(list(camera)) == 20


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Before each further try, which is a process, and a keyframe for all who get the stream."""
    waits: list[float] = []

    class Noted(Backoff):
        FIRST_S = 0.1

        def failed(self) -> float:
            waits.append(super().failed())
            return waits[-1]

    monkeypatch.setattr(publish, "Backoff", Noted)
    return waits


def test_an_address_that_stays_away_is_tried_ever_less_often(scene: Any, waits: list[float]) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with accmpeg.stream(scene(10_000), None, publish=[address]) as camera:
        until(lambda: len(waits) >= 3)
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert not camera.stats.get("published")


def test_so_is_one_that_hangs_up_after_a_while(scene: Any, waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        ended = threading.Event()

        def take_a_little() -> None:
            receiver.settimeout(0.1)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = receiver.accept()
                    with connection:
                        connection.settimeout(20)
                        before = camera.stats.get("published")
                        while connection.recv(65536) and camera.stats.get("published") == before:
                            pass

        thread = threading.Thread(target=take_a_little)
        address = f"tcp://127.0.0.1:{receiver.getsockname()[1]}"
        with accmpeg.stream(scene(10_000), None, publish=[address]) as camera:
            thread.start()
            until(lambda: len(waits) >= 3)
            ended.set()
        thread.join()
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert camera.stats.get("published")


@pytest.mark.parametrize("scheme", ["rtmp", "tcp", "rtsp"])
def test_an_address_that_accepts_and_says_nothing_holds_nothing_up(scene: Any, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/live"
        with peer() as server:
            gaps: list[float] = []
            running = threading.Event()

            def tick() -> None:
                while not running.is_set():
                    before = time.monotonic()
                    time.sleep(0.01)
                    gaps.append(time.monotonic() - before)

            ticker = threading.Thread(target=tick)
            ticker.start()
            with accmpeg.stream(scene(20), server.url, publish=[address], drop="none", drain_s=3) as camera:
                assert len(list(camera)) == 20
            running.set()
            ticker.join()
    assert max(gaps) < 4, "libav's own time limit is 5 s: the interpreter was held for as long"


def test_a_machine_that_starts_no_process_for_a_while_publishes_later(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.1)
    system, failures = subprocess.Popen, []

    def short_of_memory(*given: Any, **options: Any) -> Any:
        if len(failures) < 2:
            failures.append(given)
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return system(*given, **options)

    monkeypatch.setattr(subprocess, "Popen", short_of_memory)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        with accmpeg.stream(scene(2000), None, publish=[address]):
            assert receiver.recv(65536)[0] == 0x47, "MPEG-TS"
    assert len(failures) == 2


def test_publishing_goes_on_when_the_address_comes_back(scene: Any) -> None:
    port = free_port()
    with accmpeg.stream(scene(2000), None, publish=[f"tcp://127.0.0.1:{port}"]) as camera:
        deadline = time.monotonic() + 60
        while not camera.stats.get("dropped_publish"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(40)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(40)
                assert connection.recv(188)[0] == 0x47
