"""The camera with the real server and the demo's detector, and its command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import accmpeg
from accmpeg.camera import Camera, CameraOptions, FrameResult
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.cli.doctor_server import examine_server
from accmpeg.demo import assets_path
from accmpeg.server.run import ServerThread
from accmpeg.server.settings import ServerSettings
from tests.helpers import free_port, until
from tests.server.stubborn import write_card

MODEL = assets_path() / "accmodel.card.toml"
DETECTOR = assets_path() / "detector.card.toml"


def made(port: int = 0) -> ServerThread:
    return ServerThread(ServerSettings(dnns=(DETECTOR,), port=port))


@pytest.fixture
def server() -> Iterator[ServerThread]:
    with made() as running:
        yield running


def test_five_lines_of_python_give_detections(scene: Any, server: ServerThread) -> None:
    with accmpeg.stream(scene(12, 5), server.websocket_url, accmodel=MODEL, drop="none") as camera:
        results = list(camera)
    assert [result.sequence for result in results] == list(range(12))
    assert all(result.result is not None and result.dropped is None for result in results)
    assert {"decode", "infer"} <= set(results[-1].server_ms)


@pytest.mark.parametrize(
    "options", [{"b_frames": 2}, {"b_frames": 2, "mbtree_frames": 5, "bitrate_bps": 300_000}]
)
def test_b_frames_are_answered_each_for_its_own_frame(
    scene: Any, server: ServerThread, options: dict[str, Any]
) -> None:
    """They go in decoding order and are answered in that of display; none is lost at the end."""
    with accmpeg.stream(scene(20, 5), server.websocket_url, drop="none", **options) as camera:
        results = list(camera)
    assert [result.sequence for result in results] != list(range(20))
    assert sorted(result.sequence for result in results) == list(range(20))
    assert all(result.result is not None for result in results)
    assert [result.pts for result in results] == sorted(result.pts for result in results)
    assert [result.captured_us for result in results] == sorted(result.captured_us for result in results)
    assert all(result.delay_ms > 0 and {"wait", "encode"} <= set(result.camera_ms) for result in results)


def test_answers_make_the_map_without_an_accmodel(scene: Any, server: ServerThread) -> None:
    options = CameraOptions(policy="feedback", drop="none", b_frames=2)
    camera = Camera(scene(24, 5), ServerAddress.parse(server.websocket_url), None, options)
    sources = set()
    with camera:
        for result in camera:
            assert result.result is not None
            sources.add(camera.snapshot()["map"])
    assert sources <= {"none", "answers"}
    assert camera.snapshot()["map"] == "answers"


def test_a_camera_sends_no_more_than_a_slow_server_answers(scene: Any, tmp_path: Any) -> None:
    """60 frames a second for a DNN that can do 20: soon the camera sends no more than that."""
    card = write_card(tmp_path, frame_s=0.05)
    with ServerThread(ServerSettings(dnns=(card,), port=0, copies=1)) as server:
        camera = Camera(
            scene(420, 60), ServerAddress.parse(server.websocket_url), None, CameraOptions(policy="none")
        )
        with camera:
            until(lambda: camera.stats.get("captured") >= 200)
            sent, dropped = camera.stats.get("sent"), camera.stats.get("dropped_server")
            camera.wait()
    sent = camera.stats.get("sent") - sent
    dropped = camera.stats.get("dropped_server") - dropped
    assert sent >= 20, "it still sends"
    assert dropped <= 0.2 * sent, "what is sent is answered"
    assert camera.stats.get("dropped_unanswered") > 2 * sent


def test_footage_that_is_read_fast_gives_as_many_results_as_live(scene: Any, server: ServerThread) -> None:
    """Ten a second of the footage, not of the moment that it takes to read it."""
    how: dict[str, Any] = {"drop": "none", "realtime": False, "results_per_s": 10.0}
    with accmpeg.stream(scene(30, 30), server.websocket_url, **how) as camera:
        results = list(camera)
    assert [result.pts for result in results] == [result.sequence * results[1].pts for result in results]
    assert len(results) == 10


def test_footage_is_answered_to_its_end_by_a_slow_dnn(scene: Any, tmp_path: Any) -> None:
    """What waits there when the footage ends takes longer than `drain_s`, but answers keep coming."""
    card = write_card(tmp_path, frame_s=0.15)
    with ServerThread(ServerSettings(dnns=(card,), port=0, copies=1)) as server:
        how: dict[str, Any] = {"drop": "none", "realtime": False, "drain_s": 2.0}
        with accmpeg.stream(scene(40, 5), server.websocket_url, **how) as camera:
            results = list(camera)
    assert [result.sequence for result in results] == list(range(40))
    assert {result.dropped for result in results} == {None}
    assert camera.stats.get("connections") == 1


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_restarted_server_costs_no_frame_with_a_spool(scene: Any, tmp_path: Any, b_frames: int) -> None:
    port = free_port()
    first = made(port).start()
    results: list[FrameResult] = []
    options = CameraOptions(spool=tmp_path / "spool", gop_frames=10, drain_s=60, b_frames=b_frames)
    camera = Camera(
        scene(40, 5), ServerAddress.parse(first.websocket_url), None, options, on_result=results.append
    ).start()
    until(lambda: len(results) >= 4)
    first.stop()
    encoded = camera.stats.get("encoded")
    until(lambda: camera.stats.get("encoded") >= encoded + 3)
    with made(port):
        camera.wait()
    # With B-frames in the order of display; each once.
    sequences = [result.sequence for result in results]
    assert (sorted(sequences) if b_frames else sequences) == list(range(camera.stats.get("encoded")))
    assert all(result.dropped is None for result in results)


def test_doctor_checks_the_way_to_the_server(server: ServerThread) -> None:
    findings = {each.part: each for each in examine_server(ServerAddress.parse(server.websocket_url))}
    for part in ("DNS", "TCP", "handshake", "token", "round trip", "clock", "upload"):
        assert findings[part].state == "ok", findings[part]


def test_doctor_names_a_server_that_is_not_there() -> None:
    findings = examine_server(ServerAddress.parse(f"ws://127.0.0.1:{free_port()}"))
    assert findings[-1].part == "TCP"
    assert findings[-1].state == "failed"
    assert "is the server running" in findings[-1].way_out + findings[-1].detail


def test_sigterm_drains_and_exits_with_zero(server: ServerThread, tmp_path: Any) -> None:
    frame_folder = tmp_path / "pictures"
    frame_folder.mkdir()
    import av

    for index in range(30):
        frame = av.VideoFrame(160, 96, "rgb24")
        frame.to_image().save(frame_folder / f"{index:03d}.png")
    command = [sys.executable, "-m", "accmpeg", "stream", str(frame_folder), "--to", server.websocket_url]
    command += ["--policy", "none", "--loop", "--log-format", "json", "--statistics-s", "1"]
    environment = os.environ | {"ACCMPEG_STREAM_NAME": "from-environment", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as camera:
        assert camera.stdout is not None
        first = json.loads(camera.stdout.readline())
        assert camera.stderr is not None
        camera.send_signal(signal.SIGTERM)
        # Not `communicate`, which would pass over what came along with the first line.
        rest, log = camera.stdout.read(), camera.stderr.read()
    assert camera.returncode == 0, log
    assert first["sequence"] == 0
    sequences = [json.loads(line)["sequence"] for line in rest.splitlines()]
    assert sequences == list(range(1, len(sequences) + 1))
    records = [json.loads(line) for line in log.splitlines()]
    last = next(record for record in records if record["event"] == "camera ended")
    assert last["results"] == last["sent"] == len(sequences) + 1
    settings = {record["setting"]: record for record in records if record["event"] == "setting"}
    assert settings["name"]["value"] == "from-environment"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x.mp4"], "nowhere to stream"),
        (["x.mp4", "--policy", "none"], "nowhere to stream"),
        (["x.mp4", "--policy", "none", "--to", "http://x"], "no server address"),
        (["x.mp4", "--policy", "none", "--to", "ws://x", "--spool-limit", "3"], "--spool-limit"),
        (["x.mp4", "--policy", "none", "--to", "ws://x", "--results", "x"], "--results"),
    ],
)
def test_bad_use(arguments: list[str], complaint: str) -> None:
    from typer.testing import CliRunner

    from accmpeg.cli import app

    done = CliRunner().invoke(app, ["stream", *arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 2, done.output
    assert complaint in " ".join(done.output.split())
