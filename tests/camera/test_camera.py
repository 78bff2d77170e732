"""The camera against a real peer that speaks the wire and decodes what comes."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

import accmpeg
from accmpeg.camera import Camera, CameraOptions, FrameResult
from accmpeg.camera.outputs import ResultSocket
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.uplink import Uplink
from accmpeg.demo import assets_path
from accmpeg.errors import AccmpegError, LinkError, SourceError, UsageError
from accmpeg.media.source import Source
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import Refused
from tests.camera.peer import Peer, peer
from tests.helpers import until

MODEL = assets_path() / "accmodel.card.toml"


@pytest.fixture
def server() -> Iterator[Peer]:
    with peer() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.1)


def sequences(results: list[FrameResult]) -> list[int]:
    return [result.sequence for result in results]


def test_five_lines_of_python_give_results(scene: Any, server: Peer) -> None:
    results = []
    with accmpeg.stream(scene(20), server.url, accmodel=MODEL, drop="none") as camera:
        for result in camera:
            results += [result]
    assert sequences(results) == list(range(20))
    assert all(result.result == {"objects": []} for result in results)
    assert all(result.delay_ms > 0 for result in results)
    assert {"accmodel", "policy", "encode"} <= set(results[0].camera_ms)
    (seen,) = server.seen
    assert seen.units[0].is_keyframe
    assert seen.undecodable == 0
    assert set(seen.decoded_sizes) == {(320, 180)}
    until(lambda: seen.goodbye is not None)


def test_a_clock_that_is_set_while_streaming_moves_capture_times_and_no_delay(
    scene: Any, server: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_ns, three_days_ns = time.time_ns, 3 * 86_400 * 10**9
    results: list[FrameResult] = []
    with accmpeg.stream(scene(30, frame_rate=20), server.url, drop="none") as camera:
        for result in camera:
            results += [result]
            if len(results) == 10:
                monkeypatch.setattr(time, "time_ns", lambda: system_ns() + three_days_ns)
    assert sequences(results) == list(range(30))
    moved_us = results[-1].captured_us - results[0].captured_us
    assert moved_us == pytest.approx(three_days_ns / 1000, abs=60_000_000)
    assert all(0 < result.delay_ms < 60_000 for result in results)
    assert results[-1].received_us >= results[-1].captured_us


def test_footage_is_paced_at_its_frame_rate(scene: Any, server: Peer) -> None:
    with accmpeg.stream(scene(10, frame_rate=20), server.url, drop="none") as camera:
        results = list(camera)
    # No timing of the machine is asserted: it can only be later than the footage says, never earlier.
    for index, result in enumerate(results):
        assert result.captured_us - results[0].captured_us >= index * 50_000 - 1000


def test_a_callback_gets_every_result_in_order(scene: Any, server: Peer) -> None:
    got: list[FrameResult] = []
    with accmpeg.stream(scene(15), server.url, drop="none", on_result=got.append) as camera:
        camera.wait()
    assert sequences(got) == list(range(15))


def test_the_clock_offset_is_measured_with_its_error(scene: Any) -> None:
    with peer(clock_ahead_us=3_600_000_000) as server:
        with accmpeg.stream(scene(15), server.url, drop="none") as camera:
            list(camera)
        found = camera.snapshot()
    assert abs(found["clock_offset_us"] - 3_600_000_000) <= found["clock_error_us"] + 1000


def test_a_killed_server_costs_nothing_with_a_spool(scene: Any, server: Peer, tmp_path: Path) -> None:
    results: list[FrameResult] = []
    options = CameraOptions(spool=tmp_path / "spool", gop_frames=10, drain_s=60)
    camera = Camera(
        scene(40), ServerAddress.parse(server.url), None, options, on_result=results.append
    ).start()
    until(lambda: len(results) >= 5)
    server.kill()
    encoded = camera.stats.get("encoded")
    until(lambda: camera.stats.get("encoded") >= encoded + 5)
    server.start()
    camera.wait()
    encoded = camera.stats.get("encoded")
    assert encoded + camera.stats.get("dropped_machine") == 40
    assert sequences(results) == list(range(encoded)), "every frame once, in order"
    assert all(result.dropped is None for result in results)
    assert server.seen[1].units[0].is_keyframe
    assert camera.stats.get("connections") == 2
    assert not list((tmp_path / "spool").glob("*.gop"))


def test_a_cut_link_to_a_server_that_remembers(scene: Any, server: Peer, tmp_path: Path) -> None:
    results: list[FrameResult] = []
    options = CameraOptions(spool=tmp_path / "spool", gop_frames=300)
    camera = Camera(
        scene(40), ServerAddress.parse(server.url), None, options, on_result=results.append
    ).start()
    until(lambda: len(results) >= 5)
    server.kill(forget=False)
    server.start()
    camera.wait()
    assert sequences(results) == sorted(set(sequences(results)))
    received = [unit.sequence for unit in server.units]
    assert received == list(range(camera.stats.get("encoded"))), "nothing lost on the way to the server"
    assert server.seen[1].undecodable == 0


def test_results_that_are_told_again_are_not_live(scene: Any, server: Peer, tmp_path: Path) -> None:
    results: list[FrameResult] = []
    server.answers = False
    with accmpeg.stream(
        scene(40), server.url, spool=tmp_path / "spool", on_result=results.append, drain_s=60
    ) as camera:
        until(lambda: len(server.units) >= 5)
        server.kill(forget=False)
        had = server.units[-1].sequence
        server.answers = True
        server.start()
        camera.wait()
    assert sequences(results) == list(range(camera.stats.get("encoded")))
    assert all(result.spooled for result in results[: had + 1]), "they were late, the link is not"


def test_whatever_fails_at_the_end_a_camera_ends(
    scene: Any, server: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Uplink.end

    def failing(uplink: Uplink, *given: Any) -> None:
        end(uplink, *given)
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(Uplink, "end", failing)
    camera = accmpeg.stream(scene(5), server.url).start()
    with pytest.raises(AccmpegError, match="what nobody thought of"):
        camera.wait(60)
    assert len(list(camera)) <= 5


def test_without_a_spool_frames_of_an_outage_are_left_out_and_a_keyframe_comes_first(
    scene: Any, server: Peer
) -> None:
    results: list[FrameResult] = []
    camera = accmpeg.stream(scene(60), server.url, on_result=results.append).start()
    until(lambda: len(results) >= 3)
    server.kill()
    until(lambda: camera.stats.get("dropped_offline") >= 3)
    server.start()
    until(lambda: len(server.seen) == 2 and len(server.seen[1].units) >= 3)
    camera.close()
    assert server.seen[1].units[0].is_keyframe
    assert server.seen[1].undecodable == 0
    assert sequences(results) == sorted(set(sequences(results)))


def test_the_server_asks_for_a_keyframe(scene: Any, server: Peer) -> None:
    server.ask_keyframe_at = 3
    server.late_by_frames = 15  # it says so for long after the keyframe is under way
    with accmpeg.stream(
        scene(60, 30), server.url, drop="none", gop_frames=300, bitrate_bps=300_000
    ) as camera:
        list(camera)
    first, asked = [unit.sequence for unit in server.units if unit.is_keyframe]
    assert first == 0
    assert asked > 3, "and not at the next regular one, 300 frames later"


def test_a_stream_that_connects_while_its_first_frame_is_held_back_begins_with_one_keyframe(
    scene: Any, server: Peer
) -> None:
    class Waiting(Source):
        def __init__(self) -> None:
            self._frames = scene(30)()
            self.info = self._frames.info

        def __iter__(self) -> Iterator[av.VideoFrame]:
            for index, frame in enumerate(self._frames):
                if index == 2:
                    until(lambda: camera.stats.get("connections"))
                yield frame

    camera = accmpeg.stream(Waiting, server.url, drop="none", gop_frames=300, b_frames=2)
    with camera:
        assert len(list(camera)) == 30
    assert [unit.sequence for unit in server.units if unit.is_keyframe] == [0]


def test_newest_wins_on_a_slow_link(scene: Any) -> None:
    with peer(bandwidth_bps=60_000) as server:
        options = CameraOptions(bitrate_bps=600_000, limit=60, drain_s=5)
        camera = Camera(scene(200, frame_rate=30), ServerAddress.parse(server.url), None, options)
        with camera:
            results = list(camera)
    found = camera.snapshot()
    left_out = sum(found.get(f"dropped_{reason}", 0) for reason in ("link", "late"))
    assert left_out > 0, found
    assert sequences(results) == sorted(set(sequences(results)))
    assert server.seen[0].undecodable == 0


def test_the_token_travels_in_the_header_alone(scene: Any, caplog: pytest.LogCaptureFixture) -> None:
    with peer(token="s3cret-token-s3cret") as server:
        with accmpeg.stream(scene(5), server.url, token="s3cret-token-s3cret", drop="none") as camera:
            assert len(list(camera)) == 5
        assert "s3cret" not in repr(camera.__dict__)
        assert "s3cret" not in caplog.text


def test_a_wrong_token_is_named_at_once(scene: Any) -> None:
    with peer(token="right") as server:
        camera = accmpeg.stream(scene(200), server.url, token="wrong").start()
        with pytest.raises(LinkError, match="refused the token"):
            camera.wait(30)


def test_a_refusal_without_retry_ends_the_camera(scene: Any) -> None:
    refusal = Refused(code="dnn", reason="there is no DNN 'x' here", retry=False)
    with peer(refuse=refusal) as server:
        camera = accmpeg.stream(scene(200), server.url, dnn="x").start()
        with pytest.raises(LinkError, match="no DNN 'x'"):
            camera.wait(30)


def test_the_camera_waits_for_a_server_that_comes_later(scene: Any) -> None:
    server = Peer()
    camera = accmpeg.stream(scene(1000), server.url).start()
    until(lambda: camera.snapshot().get("last_problem") is not None)
    assert "nothing listens" in camera.snapshot()["last_problem"]
    server.start()
    until(lambda: camera.stats.get("results") >= 2)
    camera.close()
    server.kill()


def test_a_server_that_is_gone_behind_a_proxy_is_left(
    scene: Any, server: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No machine is so slow that a server which is well looks dead.
    monkeypatch.setattr("accmpeg.camera.uplink.connection.SILENT_S", 2.0)
    results: list[FrameResult] = []
    with accmpeg.stream(scene(60), server.url, drop="none", on_result=results.append) as camera:
        until(lambda: len(results) >= 5)
        server.deaf.update(server.seen)
        camera.wait(60)
    assert sequences(results) == list(range(60))
    assert camera.snapshot()["connections"] == 2


def test_an_unknown_host_is_tried_again(scene: Any) -> None:
    camera = accmpeg.stream(scene(1000), "ws://no-such-host.invalid:8700").start()
    until(lambda: "no host is called" in str(camera.snapshot().get("last_problem")))
    assert not camera.wait(0.3), "it goes on trying"
    camera.close()


def test_results_at_a_local_socket(scene: Any, server: Peer, tmp_path: Path) -> None:
    path = tmp_path / "results.sock"
    lines: list[dict[str, Any]] = []

    def read() -> None:
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(str(path))
            connected.set()
            lines.extend(json.loads(line) for line in reader.makefile())

    connected = threading.Event()
    options = CameraOptions(drop="none")
    camera = Camera(
        scene(60), ServerAddress.parse(server.url), None, options, sockets=[ResultSocket(f"unix:{path}")]
    ).start()
    until(path.exists)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert connected.wait(10)
    camera.wait()
    reader.join(10)
    got = [line["sequence"] for line in lines]
    assert got
    assert got == list(range(got[0], 60))
    assert not path.exists()


def test_a_live_source_that_breaks_off_is_opened_again(scene: Any, server: Peer) -> None:
    with accmpeg.stream(scene(5, live=True), server.url, limit=12) as camera:
        results = list(camera)
    assert camera.stats.get("source_reopened") >= 2
    assert [result.pts for result in results] == sorted({result.pts for result in results})


def test_a_live_source_that_became_a_recording_is_waited_for(scene: Any, server: Peer) -> None:
    openings = [scene(frames, live=live)() for frames, live in ((5, True), (7, False), (3, True), (4, True))]
    with accmpeg.stream(lambda: openings.pop(0), server.url, limit=8) as camera:
        list(camera)
    assert camera.stats.get("captured") == 8
    assert len(openings) == 1


def test_a_live_source_that_comes_back_in_another_size_is_told_of(
    scene: Any, server: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    openings = [scene(5, live=True)() for _ in range(3)]
    openings[1].info = replace(openings[1].info, width_px=640, height_px=360)
    with accmpeg.stream(lambda: openings.pop(0), server.url, limit=12) as camera:
        list(camera)
    told = [each for each in caplog.records if "in another size" in each.getMessage()]
    assert [each.__dict__["size"] for each in told] == ["640x360"]


def test_a_loop_goes_on_with_rising_timestamps(scene: Any, server: Peer) -> None:
    with accmpeg.stream(scene(4), server.url, loop=True, limit=10, drop="none") as camera:
        results = list(camera)
    assert [result.pts for result in results] == list(range(10))


def test_a_source_that_fails_ends_the_camera_with_its_reason(server: Peer) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.mp4"):
        accmpeg.stream("nowhere.mp4", server.url).start()


def test_stopping_says_goodbye_with_all_frames_answered(scene: Any, server: Peer) -> None:
    camera = accmpeg.stream(scene(1000), server.url).start()
    until(lambda: camera.stats.get("results") >= 5)
    camera.close()
    until(lambda: server.seen[0].goodbye is not None)
    assert camera.stats.get("results") == camera.stats.get("sent") == len(server.units)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("http://host", "no server address"),
        ("ws://host:99999", "no server address"),
        ("ws://user:pass@host", "no secrets"),
        ("ws://host/?token=abc", "no secrets"),
        ("ws://host/my cameras", "written %20"),
        ("ws://host/stream\r\nX-Forwarded-For: me", "written %20"),
    ],
)
def test_bad_addresses(address: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        ServerAddress.parse(address)
    assert "pass" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_token_needs_encryption_or_loopback() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        ServerAddress.parse("ws://10.0.0.1:8700", token="t")
    assert ServerAddress.parse("ws://10.0.0.1:8700", token="t", insecure=True).headers()
    assert ServerAddress.parse("ws://127.0.0.1:8700", token="t").headers()
    assert ServerAddress.parse("wss://example.org", token="t").url == "wss://example.org/v1/stream"


def test_a_token_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    address = ServerAddress.parse("wss://example.org", token="t", token_file=tmp_path / "token")
    assert address.headers() == {"Authorization": "Bearer t"}


def test_a_server_behind_a_prefix_of_a_proxy() -> None:
    for address in ("wss://example.org/video/", "wss://example.org/video/v1/stream"):
        found = ServerAddress.parse(address)
        assert found.url == "wss://example.org/video/v1/stream"
        assert found.beside("cameras") == "/video/v1/cameras"


def test_options_that_are_none() -> None:
    with pytest.raises(UsageError, match="no such option"):
        accmpeg.stream("x.mp4", "ws://127.0.0.1", bitrat=5)
    with pytest.raises(UsageError, match=r"--min-bitrate 2000000 is above --max-bitrate 1000000"):
        accmpeg.stream("a.mp4", "ws://127.0.0.1:1", lowest_bps=2_000_000, highest_bps=1_000_000)
    accmpeg.stream("a.mp4", "ws://127.0.0.1:1", highest_bps=50_000)  # the default of the other gives way
    with pytest.raises(UsageError, match="nowhere to stream"):
        accmpeg.stream("x.mp4", None)
