import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from accmpeg.errors import SinkError
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink
from accmpeg.media.source import open_source

STAMPS_90K = [0, 3000, 5000, 12000, 12500, 20000, 90000]  # variable frame rate
TIME_BASE = Fraction(1, 90000)


def encoder_for(codec="libx264", size_px=(160, 96)):
    return Encoder(
        EncoderSettings(
            width_px=size_px[0],
            height_px=size_px[1],
            frame_rate=Fraction(25),
            time_base=TIME_BASE,
            codec=codec,
            crf=35,
            steerable=codec != "libsvtav1",
        )
    )


def write_clip(path, textured, codec="libx264", stamps=STAMPS_90K):
    with encoder_for(codec) as encoder, open_sink(path, encoder) as sink:
        units = []
        for index, pts in enumerate(stamps):
            units += encoder.encode(textured(160, 96, moved_px=index, pts=pts, time_base=TIME_BASE))
        for unit in units + encoder.flush():
            sink.write(unit)
        return sink.bytes_written


@pytest.mark.parametrize(
    ("suffix", "codec", "grid_s"),
    [
        (".mp4", "libx264", 0),
        (".mp4", "libx265", 0),
        (".mp4", "libvpx-vp9", 0),
        (".mp4", "libsvtav1", 0),
        (".mov", "libx264", 0),
        (".ts", "libx264", 0),
        (".ts", "libx265", 0),
        (".mkv", "libx264", 0.001),
        (".mkv", "libx265", 0.001),
        (".mkv", "libvpx-vp9", 0.001),
        (".webm", "libvpx-vp9", 0.001),
        (".webm", "libsvtav1", 0.001),
    ],
)
def test_variable_frame_rate_survives_the_container(tmp_path, textured, suffix, codec, grid_s):
    path = tmp_path / f"clip{suffix}"
    size_bytes = write_clip(path, textured, codec)
    assert path.stat().st_size >= size_bytes
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with open_source(path) as source:
        seconds = [float(frame.pts * frame.time_base) for frame in source]
        assert (source.info.width_px, source.info.height_px) == (160, 96)
    expected = [pts / 90000 for pts in STAMPS_90K]
    assert seconds == pytest.approx([s - expected[0] + seconds[0] for s in expected], abs=grid_s / 2 + 1e-9)


def test_raw_h264_is_the_access_units_themselves(tmp_path, textured):
    path = tmp_path / "clip.h264"
    assert write_clip(path, textured) == path.stat().st_size


def test_an_odd_size_comes_back_one_pixel_larger_from_a_file(tmp_path, textured):
    path = tmp_path / "odd.mp4"
    with encoder_for(size_px=(161, 97)) as encoder, open_sink(path, encoder) as sink:
        for unit in encoder.encode(textured(161, 97)):
            sink.write(unit)
    with open_source(path) as source:
        assert (source.info.width_px, source.info.height_px) == (162, 98)


def test_vp9_keeps_an_odd_size_in_a_file(tmp_path, textured):
    path = tmp_path / "odd.mkv"
    with encoder_for("libvpx-vp9", (161, 97)) as encoder, open_sink(path, encoder) as sink:
        for unit in encoder.encode(textured(161, 97)):
            sink.write(unit)
    with open_source(path) as source:
        assert (source.info.width_px, source.info.height_px) == (161, 97)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_recording_that_breaks_off_is_kept(tmp_path, textured, failure, suffix):
    path = tmp_path / f"clip{suffix}"

    def break_off():
        with encoder_for() as encoder, open_sink(path, encoder) as sink:
            sink.write(encoder.encode(textured(160, 96))[0])
            raise failure

    with pytest.raises(failure):
        break_off()
    with open_source(path) as source:
        assert len(list(source)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_before_the_first_frame_leaves_the_older_file_alone(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")

    def fail():
        with encoder_for() as encoder, open_sink(path, encoder):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def run_with_file_limit(path, limit_bytes):
    """Writes a clip in a process whose files may not grow beyond the limit, as on a full disk."""
    script = textwrap.dedent(f"""
        import resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
        from tests.media.conftest import textured_frame
        from tests.media.test_sink import write_clip
        from accmpeg.errors import SinkError
        try:
            write_clip({str(path)!r}, textured_frame, stamps=range(0, 900000, 3000))
        except SinkError as error:
            print("SinkError:", error)
    """)
    # Coverage could not write its own file.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".flv", ".h264"])
def test_a_full_disk_keeps_what_it_holds(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    done = run_with_file_limit(path, 200_000)
    found = re.fullmatch(
        rf"SinkError: can't write {path}: .*; it holds the (\d+) frames before that\n", done.stdout
    )
    assert found, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [path]
    with open_source(path) as source:
        frames = len(list(source))
    assert frames > 10
    assert abs(frames - int(found[1])) <= 1, "the last one may be cut"


def test_a_disk_that_was_full_before_is_one_clear_error_and_no_file(tmp_path):
    path = tmp_path / "clip.mp4"
    done = run_with_file_limit(path, 0)
    assert done.stderr == ""
    assert done.stdout.startswith("SinkError:")
    assert str(path) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_pixels_that_are_not_square_are_told_to_players(tmp_path, textured):
    settings = EncoderSettings(
        width_px=160, height_px=96, frame_rate=Fraction(25), crf=35, pixel_aspect=Fraction(16, 15)
    )
    for suffix in ("mp4", "mkv", "ts"):
        with Encoder(settings) as encoder, open_sink(tmp_path / f"clip.{suffix}", encoder) as sink:
            for index in range(3):
                sink.write(encoder.encode(textured(160, 96, moved_px=index, pts=index))[0])
        with open_source(tmp_path / f"clip.{suffix}") as source:
            assert source.info.pixel_aspect == Fraction(16, 15)


@pytest.mark.parametrize(
    ("name", "codec", "says"),
    [
        ("clip.xyz", "libx264", ".mp4"),
        ("clip", "libx264", ".mp4"),
        ("missing/clip.mp4", "libx264", "does not exist"),
        ("clip.webm", "libx264", "vp9"),
        ("clip.ts", "libvpx-vp9", "h264"),
        ("", "libx264", "folder"),
    ],
)
def test_places_that_can_not_be_written(tmp_path, name, codec, says):
    folder_named = tmp_path / "folder.mp4"
    folder_named.mkdir()
    with encoder_for(codec) as encoder, pytest.raises(SinkError, match=says) as refused:
        open_sink(tmp_path / name if name else folder_named, encoder)
    assert "\n" not in str(refused.value)


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "out.ts")
    (tmp_path / "full.mkv").symlink_to("/dev/full")
    for name in ("out.ts", "full.mkv"):
        with encoder_for() as encoder, pytest.raises(SinkError, match=f"{name} is a pipe or device"):
            open_sink(tmp_path / name, encoder)
    assert (tmp_path / "out.ts").is_fifo()


def test_a_name_that_is_empty():
    with encoder_for() as encoder, pytest.raises(SinkError, match="format of ''"):
        open_sink("", encoder)


def test_nothing_written_is_an_error_and_no_file(tmp_path):
    with encoder_for() as encoder, pytest.raises(SinkError, match="no frames"):
        open_sink(tmp_path / "clip.mp4", encoder).close()
    assert list(tmp_path.iterdir()) == []


def test_a_network_sink_hides_the_password():
    with encoder_for() as encoder, pytest.raises(SinkError) as refused:
        open_sink("gopher://me:s3cret@host/live", encoder)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "tcp", "http"])
def test_a_closed_port_is_one_clear_error_without_the_password(textured, scheme):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with encoder_for() as encoder, pytest.raises(SinkError, match=r"\*\*\*@127.0.0.1") as refused:  # noqa: PT012
        sink = open_sink(f"{scheme}://me:s3cret@127.0.0.1:{port}/live", encoder)
        sink.write(encoder.encode(textured(160, 96))[0])
    assert "s3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_frames_travel_over_udp(textured):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{free.getsockname()[1]}"
    received = []

    def receive():
        with open_source(address) as source:
            for frame in source:
                received.append((frame.width, frame.height, source.info.is_live))
                if len(received) == 3:
                    return

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    with encoder_for() as encoder, open_sink(address, encoder) as sink:
        for index in range(400):
            for unit in encoder.encode(
                textured(160, 96, moved_px=index, pts=index * 3600, time_base=TIME_BASE),
                keyframe=index % 10 == 0,
            ):
                sink.write(unit)
            receiver.join(0.02)
            if not receiver.is_alive():
                break
    assert received == [(160, 96, True)] * 3
