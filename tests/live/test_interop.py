"""Other programs: ffmpeg records and plays the steered stream, and the server takes one of ffmpeg's own."""

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import WAIT_S, free_port, until
from tests.live.programs import MODEL, Program, Serve

FRAMES = 12
COPIED = ("-c", "copy", "-frames:v", str(FRAMES))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
        reason="no ffmpeg here: apt-get install ffmpeg",
    ),
]


@contextlib.contextmanager
def ffmpeg(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Runs beside the test; killed at the end if it still runs."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "warning", "-y", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(process: subprocess.Popen[str]) -> str:
    """What it said, once it has ended well by itself."""
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    return said


def listens(port: int) -> bool:
    """Looked up, not tried out: a listening ffmpeg takes one connection only."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


def bound(port: int) -> bool:
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") for line in lines)


def played(path: Path) -> int:
    """Frames that ffmpeg decodes without a word of complaint."""
    with ffmpeg("-xerror", "-i", path, "-f", "null", "-") as player:
        assert finished(player) == ""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-select_streams",
        "v",
        "-show_streams",
        "-of",
        "json",
    ]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    (stream,) = json.loads(done.stdout)["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", 320, 180)
    return int(stream["nb_read_frames"])


def publish(tmp_path: Path, footage: Path, address: str, *more: str) -> Program:
    return Program(
        tmp_path, "stream", footage, "--accmodel", MODEL, "--publish", address, "--loop", "--drop", "none",
        "--gop", "4", *more,
    )  # fmt: skip


def encode(tmp_path: Path, footage: Path, address: str, *more: str) -> Program:
    return Program(tmp_path, "encode", footage, "-o", address, "--accmodel", MODEL, "--qp", "30", *more)


def test_ffmpeg_records_what_a_camera_publishes_over_tcp(footage: Path, tmp_path: Path) -> None:
    port, recording = free_port(), tmp_path / "recorded.mp4"
    with ffmpeg("-i", f"tcp://127.0.0.1:{port}?listen=1", *COPIED, recording) as recorder:
        until(lambda: listens(port))
        with publish(tmp_path, footage, f"tcp://127.0.0.1:{port}"):
            finished(recorder)
    assert played(recording) == FRAMES


def test_ffmpeg_records_what_a_camera_publishes_over_rtsp(footage: Path, tmp_path: Path) -> None:
    port, recording = free_port(), tmp_path / "recorded.mkv"
    address = f"rtsp://127.0.0.1:{port}/live"
    with ffmpeg("-rtsp_flags", "listen", "-i", address, *COPIED, recording) as recorder:
        until(lambda: listens(port))
        with publish(tmp_path, footage, address):
            finished(recorder)
    assert played(recording) == FRAMES


def test_ffmpeg_records_what_a_camera_publishes_over_udp(footage: Path, tmp_path: Path) -> None:
    port, recording = free_port(socket.SOCK_DGRAM), tmp_path / "recorded.ts"
    listen = f"udp://127.0.0.1:{port}"
    with ffmpeg("-i", listen, *COPIED, recording) as recorder:
        until(lambda: bound(port))
        with publish(tmp_path, footage, listen):
            finished(recorder)
    assert played(recording) == FRAMES


def test_ffmpeg_plays_what_encode_sends(footage: Path, tmp_path: Path) -> None:
    port, recording = free_port(), tmp_path / "recorded.ts"
    with ffmpeg("-i", f"tcp://127.0.0.1:{port}?listen=1", "-c", "copy", recording) as recorder:
        until(lambda: listens(port))
        with encode(tmp_path, footage, f"tcp://127.0.0.1:{port}") as encoder:
            encoder.finish()
        finished(recorder)
    assert played(recording) == FRAMES


def test_the_server_takes_streams_and_a_file_of_ffmpeg(footage: Path, card: Path, tmp_path: Path) -> None:
    tcp, udp, file = free_port(), free_port(socket.SOCK_DGRAM), tmp_path / "plain.ts"
    plain = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "4", "-bf", "0", "-f", "mpegts"]
    with ffmpeg("-i", footage, *plain, file) as maker:
        finished(maker)
    live = ["-re", "-stream_loop", "-1", "-i", footage, *plain]
    inputs = [f"tcp=tcp://127.0.0.1:{tcp}", f"udp=udp://127.0.0.1:{udp}", f"file={file}"]
    with (
        ffmpeg(*live, f"tcp://127.0.0.1:{tcp}?listen=1"),
        ffmpeg(*live, f"udp://127.0.0.1:{udp}?pkt_size=1316"),
        Serve(tmp_path, *(part for each in inputs for part in ("--input", each)), card=card) as server,
    ):
        found = {}
        for name, count in (("file", FRAMES), ("tcp", 4), ("udp", 4)):
            until(lambda name=name, count=count: len(server.results(name)) >= count)
            # A live stream is joined in the middle of a group of pictures.
            until(lambda name=name: any(each["result"] for each in server.results(name)))
            found[name] = server.results(name)
        server.terminate()
    assert [each["sequence"] for each in found["file"]] == list(range(FRAMES))
    assert all(each["dropped"] is None and each["size_px"] == [320, 180] for each in found["file"])
    for name in ("tcp", "udp"):
        assert [each["sequence"] for each in found[name]] == list(range(len(found[name])))
        assert any(each["result"] for each in found[name])
