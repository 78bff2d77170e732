"""`accmpeg encode` as a user meets it: streams that play, figures that add up, one line for what fails."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from PIL import Image

from accmpeg.demo import assets_path

MODEL = assets_path() / "accmodel.card.toml"


@pytest.fixture
def clip(tmp_path: Path, accmpeg: Callable) -> Path:
    path = tmp_path / "clip.mp4"
    done = accmpeg("encode", "scene", "-o", path, "--policy", "none", "--limit", 12, "--crf", 18)
    assert done.returncode == 0, done.stderr
    return path


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("policy", ["graded", "binary"])
@pytest.mark.parametrize(
    "rate", [("--bitrate", "800k"), ("--qp", "32"), ()], ids=["bitrate", "qp", "default"]
)
def test_a_steered_stream_plays(
    accmpeg: Callable, clip: Path, tmp_path: Path, policy: str, rate: tuple
) -> None:
    done = accmpeg("encode", clip, "-o", "out.mp4", "--accmodel", MODEL, "--policy", policy, "--json", *rate)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    decoded = frames_of(tmp_path / "out.mp4")
    assert len(decoded) == summary["frames"] == 12
    assert (decoded[0].width, decoded[0].height) == (1280, 720)
    assert summary["bytes"] < (tmp_path / "out.mp4").stat().st_size < summary["bytes"] * 1.2 + 4000
    assert {"read", "accmodel", "policy", "encode", "write"} <= set(summary["cpu_ms_per_frame"])


def test_a_stream_may_have_the_size_that_the_dnn_sees(accmpeg: Callable, clip: Path, tmp_path: Path) -> None:
    done = accmpeg("encode", clip, "-o", "out.mp4", "--accmodel", MODEL, "--size", "dnn")
    assert done.returncode == 0, done.stderr
    assert {(frame.width, frame.height) for frame in frames_of(tmp_path / "out.mp4")} == {(640, 360)}
    plain = accmpeg("encode", clip, "-o", "out.mp4", "--policy", "none", "--size", "dnn")
    assert plain.returncode == 2
    assert "AccModel" in plain.stderr


@pytest.mark.parametrize(("codec", "suffix"), [("libx265", "mkv"), ("libvpx-vp9", "webm")])
def test_other_codecs(accmpeg: Callable, clip: Path, tmp_path: Path, codec: str, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    done = accmpeg("encode", clip, "-o", out, "--accmodel", MODEL, "--codec", codec, "--bitrate", "1M")
    assert done.returncode == 0, done.stderr
    assert len(frames_of(out)) == 12


def test_overlay_shows_three_panels(accmpeg: Callable, clip: Path, tmp_path: Path) -> None:
    args = ("--accmodel", MODEL, "--overlay", "overlay.mp4", "--dnn", assets_path() / "detector.card.toml")
    done = accmpeg("encode", clip, "-o", "out.mp4", "--limit", 4, *args)
    assert done.returncode == 0, done.stderr
    overlay = frames_of(tmp_path / "overlay.mp4")
    assert len(overlay) == 4
    assert (overlay[0].width, overlay[0].height) == (1920, 360)
    left, middle, right = (
        overlay[0].to_ndarray(format="rgb24")[:, i * 640 : (i + 1) * 640] for i in range(3)
    )
    assert abs(left.astype(int) - middle).mean() > 10
    assert abs(middle.astype(int) - right).mean() > 10


def test_size_and_human_output(accmpeg: Callable, clip: Path, tmp_path: Path) -> None:
    done = accmpeg("encode", clip, "-o", "small[red].mp4", "--accmodel", MODEL, "--size", "640x360")
    assert done.returncode == 0, done.stderr
    assert "small[red].mp4" in done.stdout, "brackets are no markup"
    assert "12 frames" in done.stdout
    assert "kbit/s" in done.stdout
    assert "accmodel" in done.stdout
    assert frames_of(tmp_path / "small[red].mp4")[0].width == 640


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("missing.mp4", "-o", "o.mp4", "--policy", "none"), 1, "missing.mp4"),
        (("missing.mp4", "-o", "o.mp4"), 2, "--accmodel is missing"),
        (("", "-o", "o.mp4", "--policy", "none"), 1, "empty"),
        (("scene", "-o", "o.mp4", "--qp", "99"), 2, "not 99"),
        (("scene", "-o", "o.mp4", "--preset", "rapid"), 2, "veryfast"),
        (("scene", "-o", "o.mp4", "--codec", "h264"), 2, "libx264"),
        (("scene", "-o", "o.mp4", "--overlay", "./o.mp4"), 2, "--output and --overlay are the same"),
        (("scene", "-o", "o.xyz", "--policy", "none"), 1, "o.xyz"),
        (("scene", "-o", "o.mp4", "--policy", "none", "--qp", "30", "--crf", "20"), 2, "exclude each other"),
        (("scene", "-o", "o.mp4", "--policy", "none", "--bitrate", "fast"), 2, "--bitrate fast"),
        (("scene", "-o", "o.mp4", "--policy", "none", "--size", "big"), 2, "--size big"),
        (("scene", "-o", "o.mp4", "--accmodel", "no.card.toml"), 1, "no.card.toml"),
        (("scene", "-o", "o.mp4", "--policy", "wild"), 2, "wild"),
        (("scene", "-o", "no/such/folder/o.mp4", "--policy", "none"), 1, "no/such/folder"),
    ],
)
def test_what_goes_wrong_is_one_line(
    accmpeg: Callable, tmp_path: Path, args: tuple, code: int, words: str
) -> None:
    done = accmpeg("encode", *args)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("o.*")), "nothing half-made is left behind"


def test_footage_is_never_written_over(accmpeg: Callable, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    before = clip.read_bytes()
    done = accmpeg("encode", clip, "-o", "link.mp4", "--policy", "none")
    assert done.returncode == 2
    assert "INPUT and --output are the same" in done.stderr
    assert clip.read_bytes() == before


def test_the_embedded_scene_brings_its_accmodel(accmpeg: Callable) -> None:
    done = accmpeg("encode", "scene", "-o", "o.mp4", "--limit", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert "accmodel" in json.loads(done.stdout)["cpu_ms_per_frame"]


def test_a_stream_over_tcp_arrives_and_tells_no_password(accmpeg: Callable, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        address = f"tcp://me:s3cret@127.0.0.1:{server.getsockname()[1]}"
        received = pool.submit(read_all, server)
        done = accmpeg("encode", "scene", "-o", address, "--limit", 12)
        assert done.returncode == 0, done.stderr
        assert "s3cret" not in done.stdout + done.stderr
        (tmp_path / "received.ts").write_bytes(received.result(60))
    assert len(frames_of(tmp_path / "received.ts")) == 12


def read_all(server: socket.socket) -> bytes:
    # The sink looks whether the port is open first; the stream is what says something.
    while True:
        with server.accept()[0] as connection, connection.makefile("rb") as stream:
            if content := stream.read():
                return content


@pytest.mark.slow
def test_a_peer_that_never_answers_is_one_clear_error(accmpeg: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live"
        done = accmpeg("encode", "scene", "-o", address, "--limit", 12)
    assert done.returncode == 1
    assert "took nothing for 15 s" in done.stderr


class BreaksOff(BaseHTTPRequestHandler):
    """Sends so many bytes of a recording without saying where they end, and hangs up."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_live_source_that_ends_leaves_a_finished_file(
    accmpeg: Callable, clip: Path, tmp_path: Path, suffix: str
) -> None:
    whole = tmp_path / "whole.ts"
    assert accmpeg("encode", clip, "-o", whole, "--policy", "none", "--gop", 3).returncode == 0
    handler = type("Camera", (BreaksOff,), {"content": whole.read_bytes()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as camera:
        threading.Thread(target=camera.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{camera.server_port}/live"
            done = accmpeg("encode", address, "-o", f"rec.{suffix}", "--policy", "none", "--json")
        finally:
            camera.shutdown()
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert len(frames_of(tmp_path / f"rec.{suffix}")) == summary["frames"] == 12
    assert "the sender closed the connection" in summary["ended"]
    assert f"rec.{suffix} is finished and holds the 12 frames" in done.stderr
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_by_hand_is_a_finished_file(accmpeg: Callable, tmp_path: Path, number: int) -> None:
    footage = ["scene", "--size", "320x180", "--limit", 40, "--policy", "none"]
    assert accmpeg("encode", *footage, "-o", "camera.ts").returncode == 0
    command = [sys.executable, "-m", "accmpeg", "encode", "-", "-o", "o.mp4", "--policy", "none"]
    command += ["--gop", "3", "--qp", "6"]
    pipe = subprocess.PIPE
    # The camera falls silent after some frames, and is there still when the recording is stopped.
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe) as running:
        running.stdin.write((tmp_path / "camera.ts").read_bytes())
        running.stdin.flush()
        part = tmp_path / "o.mp4.part"
        until_s = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 3_000) and time.monotonic() < until_s:
            time.sleep(0.02)
        assert part.stat().st_size > 3_000
        running.send_signal(number)
        assert running.wait(60) == 130
        out, err = running.stdout.read().decode(), running.stderr.read().decode()
    assert "interrupted" in err
    frames = len(frames_of(tmp_path / "o.mp4"))
    assert frames > 0
    assert f"o.mp4: {frames} frames" in out
    assert not part.exists()


def test_a_picture_that_does_not_fit_ends_the_file_but_deletes_nothing(
    accmpeg: Callable, tmp_path: Path
) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(6):
        size_px = (64, 48) if number < 5 else (48, 64)
        Image.new("RGB", size_px, (40 * number, 90, 90)).save(tmp_path / "frames" / f"{number}.png")
    done = accmpeg("encode", "frames", "-o", "o.mkv", "--policy", "none")
    assert done.returncode == 1
    assert "5.png" in done.stderr
    assert "holds the 5 frames" in done.stderr
    assert len(frames_of(tmp_path / "o.mkv")) == 5


def test_a_damaged_clip_gives_what_it_holds(accmpeg: Callable, clip: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.ts"
    assert accmpeg("encode", clip, "-o", whole, "--policy", "none", "--gop", 3).returncode == 0
    data = whole.read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[: len(data) * 2 // 3])
    done = accmpeg("encode", "cut.ts", "-o", "out.mp4", "--policy", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["frames"] < 12
