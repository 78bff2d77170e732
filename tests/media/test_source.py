import io
import socket
import struct
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from accmpeg.errors import SourceError
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.frames import plane_view, rgb_of
from accmpeg.media.sink import open_sink
from accmpeg.media.source import find_footage, open_source, read_still


def save_picture(path, frame, codec="png", pix_fmt="rgb24"):
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, pix_fmt
    encoder.time_base = Fraction(1, 25)
    path.write_bytes(b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None)))
    return path


def test_a_file_tells_about_itself(make_clip):
    with open_source(make_clip(frames=6)) as source:
        info = source.info
        frames = list(source)
    assert (info.name, info.width_px, info.height_px, info.frame_rate) == ("clip.mp4", 160, 96, 25)
    assert (info.frame_count, info.is_live) == (6, False)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(i, 25) for i in range(6)]
    assert {frame.time_base for frame in frames} == {info.time_base}
    assert source.skipped_frames == 0


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("ten_bit.mkv", "libx265", "yuv420p10le"),
        ("ten_bit_422.mkv", "ffv1", "yuv422p10le"),
        ("full_range.mkv", "mjpeg", "yuvj420p"),
        ("full_422.mkv", "mjpeg", "yuvj422p"),
        ("four_four_four.mkv", "ffv1", "yuv444p"),
        ("rgb.mkv", "ffv1", "bgr0"),
        ("grey.mkv", "ffv1", "gray"),
        ("with_alpha.mkv", "ffv1", "yuva420p"),
        ("sixteen_bit.mkv", "ffv1", "gray16le"),
        ("semi_planar.mkv", "rawvideo", "nv12"),
    ],
)
def test_every_pixel_format_arrives_as_yuv420p(make_clip, textured, name, codec, pix_fmt):
    original = textured(160, 96)
    plane_view(original, 1)[:] = 90
    plane_view(original, 2)[:] = 160
    plane_view(original, 0)[:] = np.linspace(90, 170, 160).astype(np.uint8)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with open_source(make_clip(name, [original], codec=codec, pix_fmt=pix_fmt, options=options)) as source:
        (frame,) = source
    assert frame.format.name == "yuv420p"
    assert np.abs(plane_view(frame, 0).astype(int) - plane_view(original, 0)).mean() < 3
    if "gray" not in pix_fmt:
        assert abs(plane_view(frame, 1).mean() - 90) < 3
        assert abs(plane_view(frame, 2).mean() - 160) < 3


def test_portrait_and_odd_sizes(make_clip):
    for size_px in ((96, 160), (161, 97), (1, 1)):
        with open_source(make_clip("odd.mkv", 2, codec="ffv1", size_px=size_px)) as source:
            assert {(frame.width, frame.height) for frame in source} == {size_px}


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda plane: np.rot90(plane, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda plane: np.rot90(plane, 2)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((1, 0, 0, 1), np.asarray),
    ],
)
def test_clips_of_phones_come_upright(make_clip, matrix, upright):
    path = make_clip("held.mp4", 3, size_px=(160, 96))
    with open_source(path) as source:
        stored = list(source)
    content = path.read_bytes()
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: where the track header keeps its matrix
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])
    with open_source(path) as source:
        turned = list(source)
    height_px, width_px = upright(np.zeros((96, 160))).shape
    assert (source.info.width_px, source.info.height_px) == (width_px, height_px)
    assert [frame.pts for frame in turned] == [frame.pts for frame in stored]
    for before, after in zip(stored, turned, strict=True):
        assert (after.colorspace, after.color_range) == (before.colorspace, before.color_range)
        for index in range(3):
            assert np.array_equal(plane_view(after, index), upright(plane_view(before, index)))


def test_very_wide_pictures(make_clip):
    with open_source(make_clip("wide.mkv", 1, codec="ffv1", size_px=(8192, 16))) as source:
        assert source.info.width_px == 8192


def test_variable_frame_rate_keeps_its_timestamps(tmp_path, textured):
    path = tmp_path / "vfr.mkv"
    stamps_ms = [0, 40, 47, 200, 1000]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.codec_context.time_base = 160, 96, Fraction(1, 1000)
        for stamp in stamps_ms:
            container.mux(
                stream.encode(textured(160, 96, seed=stamp, pts=stamp, time_base=Fraction(1, 1000)))
            )
        container.mux(stream.encode(None))
    with open_source(path) as source:
        assert [frame.pts * frame.time_base * 1000 for frame in source] == stamps_ms


def test_timestamps_that_start_anew_go_on_rising(make_clip, tmp_path):
    raw = make_clip("a.ts").read_bytes()
    twice = tmp_path / "twice.ts"
    twice.write_bytes(raw + raw)
    with open_source(twice) as source:
        stamps = [frame.pts for frame in source]
    assert len(stamps) >= 9
    assert (np.diff(stamps) > 0).all()


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("b.avi", "libx264"),
        ("b.wmv", "libx264"),
        ("b.mxf", "libx264"),
        ("b.avi", "mpeg4"),
        ("b.mxf", "mpeg2video"),
        ("b.mkv", "libx264"),
        ("b.mp4", "libx264"),
        ("b.ts", "libx264"),
        ("b.flv", "libx264"),
        ("b.mpg", "mpeg2video"),
        ("b.h264", "libx264"),
    ],
)
def test_b_frames_keep_their_times_in_every_container(make_clip, textured, name, codec):
    frames = [textured(160, 96, moved_px=2 * i, pts=i) for i in range(50)]
    options = {"bf": "3", "g": "20"} if codec == "libx264" else {"bf": "2", "g": "20"}
    with open_source(make_clip(name, frames, codec=codec, options=options)) as source:
        seconds = [float(frame.pts * frame.time_base) for frame in source]
        assert source.info.frame_rate == 25
    assert seconds == pytest.approx([i / 25 for i in range(len(seconds))], abs=0.0011)
    assert len(seconds) == 50


def clip_at(make_clip, textured, name, offset_s):
    first = offset_s * 25
    frames = [textured(160, 96, moved_px=i, pts=first + i) for i in range(10)]
    return make_clip(name, frames, options={"tune": "zerolatency"})


@pytest.mark.parametrize("second_s", [3700, 1, 101])
def test_recordings_put_together_go_on_without_a_gap(make_clip, textured, tmp_path, caplog, second_s):
    parts = [clip_at(make_clip, textured, "a.ts", 100), clip_at(make_clip, textured, "b.ts", second_s)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(tmp_path / "both.ts") as source:
        seconds = [float(frame.pts * frame.time_base) for frame in source]
    assert len(seconds) == 20
    longest_s = 1.0 if second_s == 101 else 0.04
    assert max(np.diff(seconds)) == pytest.approx(longest_s, abs=0.4 if second_s == 101 else 1e-6)
    assert sum("jumps" in record.message for record in caplog.records) == (second_s != 101)


def test_a_gap_does_not_change_the_rate(tmp_path, textured):
    path = tmp_path / "gap.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height = 160, 96
        for index in range(20):
            container.mux(
                stream.encode(textured(160, 96, moved_px=index, pts=index + 90_000 * (index >= 10)))
            )
        container.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.info.frame_rate == 25
        assert [frame.pts * frame.time_base for frame in source] == [Fraction(i, 25) for i in range(20)]


class MjpegHandler(BaseHTTPRequestHandler):
    """A camera that sends 12 pictures, 5 a second, and hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with suppress(OSError):
            for index in range(12):
                memory = io.BytesIO()
                Image.new("RGB", (160, 120), (index * 9, 90, 90)).save(memory, "JPEG")
                picture = memory.getvalue()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                self.wfile.flush()
                time.sleep(0.2)

    def log_message(self, format, *args):
        return


def test_a_camera_without_timestamps_is_timed_by_arrival():
    with ThreadingHTTPServer(("127.0.0.1", 0), MjpegHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_source(f"http://127.0.0.1:{server.server_port}/video") as source:
                assert source.info.is_live
                assert source.info.frame_rate == pytest.approx(5, rel=0.2)
                seconds = []
                with suppress(SourceError):
                    seconds.extend(float(frame.pts * frame.time_base) for frame in source)
        finally:
            server.shutdown()
    assert len(seconds) >= 11
    assert seconds[0] == 0
    assert np.diff(seconds) == pytest.approx(np.full(len(seconds) - 1, 0.2), abs=0.1)
    assert seconds[-1] == pytest.approx(0.2 * (len(seconds) - 1), abs=0.2)


def test_a_cut_off_video_gives_what_it_has(make_clip, tmp_path):
    whole = make_clip("whole.mkv", 12, options={"g": "4", "bf": "0"}).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    with open_source(cut) as source:
        frames = list(source)
    assert 2 <= len(frames) < 12


def test_damaged_frames_are_passed_over_and_counted(textured, tmp_path):
    path = tmp_path / "bad.mp4"
    settings = EncoderSettings(width_px=160, height_px=96, frame_rate=Fraction(25), crf=30, gop_frames=3)
    with Encoder(settings) as encoder, open_sink(path, encoder) as sink:
        for index in range(9):
            (unit,) = encoder.encode(textured(160, 96, moved_px=index, pts=index))
            if index in (4, 5):
                unit = replace(unit, data=unit.data[:6] + b"\xff" * 14 + unit.data[20:])
            sink.write(unit)
    with open_source(path) as source:
        assert len(list(source)) == 7
        assert source.skipped_frames == 2


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"hello, this is no video" * 100])
@pytest.mark.parametrize("name", ["bad.mp4", "bad.mkv", "bad.jpg", "bad.h264", "bad"])
def test_files_that_are_no_video(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=name) as refused:
        open_source(path)
    assert "\n" not in str(refused.value)


def test_a_video_cut_before_its_index(make_clip, tmp_path):
    raw = make_clip().read_bytes()
    (tmp_path / "cut.mp4").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(SourceError, match=r"cut\.mp4"):
        open_source(tmp_path / "cut.mp4")


def test_audio_only(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match="no video: only audio"):
        open_source(path)


def test_a_header_without_frames(tmp_path, make_clip):
    raw = make_clip("clip.mkv").read_bytes()
    (tmp_path / "header.mkv").write_bytes(raw[: raw.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    with pytest.raises(SourceError, match=r"header\.mkv"):
        open_source(tmp_path / "header.mkv")


@pytest.mark.parametrize("name", ["none.mp4", "none.jpg", "none"])
def test_missing_files(tmp_path, name):
    with pytest.raises(SourceError, match="No such file"):
        open_source(tmp_path / name)


def test_a_file_with_a_colon_in_its_name(make_clip, tmp_path):
    path = make_clip().rename(tmp_path / "rtsp: 10%03d.mp4")
    with open_source(path) as source:
        assert len(list(source)) == 5


def test_a_folder_of_numbered_pictures(tmp_path, textured):
    for number in (10, 9, 2):
        save_picture(tmp_path / f"{number}.png", textured(64, 48, seed=number))
    (tmp_path / "11.png").write_bytes(b"damaged")
    with open_source(tmp_path) as source:
        frames = list(source)
    assert (source.info.frame_count, source.skipped_frames, source.info.frame_rate) == (4, 1, 25)
    assert [frame.pts for frame in frames] == [0, 1, 2]
    for frame, number in zip(frames, (2, 9, 10), strict=True):
        assert (
            np.abs(plane_view(frame, 0).astype(int) - plane_view(textured(64, 48, seed=number), 0)).mean()
            < 12
        )


def test_pictures_of_several_sizes_are_no_clip(tmp_path, textured):
    save_picture(tmp_path / "1.png", textured(64, 48))
    save_picture(tmp_path / "2.png", textured(48, 64))
    with open_source(tmp_path) as source, pytest.raises(SourceError, match=r"2\.png has 48x64"):
        list(source)


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(SourceError, match="no pictures"):
        open_source(tmp_path)


def test_one_picture_is_one_frame(tmp_path, textured):
    with open_source(save_picture(tmp_path / "a%03d.png", textured(65, 47))) as source:
        (frame,) = source
    assert (frame.width, frame.height, frame.format.name) == (65, 47, "yuv420p")


@pytest.mark.parametrize(("codec", "pix_fmt"), [("png", "rgb24"), ("png", "gray16be"), ("mjpeg", "yuvj420p")])
def test_stills(tmp_path, textured, codec, pix_fmt):
    original = textured(33, 17)
    for index, value in enumerate((120, 110, 140)):
        plane_view(original, index)[:] = value
    still = read_still(save_picture(tmp_path / "still.jpg", original, codec, pix_fmt))
    assert (still.width, still.height, still.format.name, still.pts) == (33, 17, "yuv420p", 0)
    assert np.abs(plane_view(still, 0).astype(int) - 120).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_come_upright(tmp_path, orientation):
    coarse = np.random.default_rng(0).integers(60, 190, (5, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(coarse).resize((66, 34)).save(tmp_path / "held.png", exif=exif)
    with Image.open(tmp_path / "held.png") as photograph:
        expected = np.asarray(ImageOps.exif_transpose(photograph)).astype(int)
    seen = rgb_of(read_still(tmp_path / "held.png")).astype(int)
    assert seen.shape == expected.shape
    assert np.abs(seen - expected).mean() < 5


def test_a_still_that_is_missing(tmp_path):
    with pytest.raises(SourceError, match=r"x\.jpg"):
        read_still(tmp_path / "x.jpg")


def test_footage_is_found_in_folders(tmp_path, textured):
    for path in (
        "a/clip.MP4",
        "a/b/000001.jpg",
        "a/b/000002.jpg",
        "a/photos/cat.jpg",
        "a/photos/3.png",
        "a/x.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for hidden in ("a/.trash/old.mp4", "a/._clip.mp4"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    found = find_footage([tmp_path / "a"])
    assert [(footage.kind, footage.clip) for footage in found] == [
        ("video", "a/clip"),
        ("frames", "a/b"),
        ("still", "a/photos/3"),
        ("still", "a/photos/cat"),
    ]
    again = find_footage([tmp_path / "a" / "clip.MP4", str(tmp_path / "a" / "clip.MP4")])
    assert [footage.clip for footage in again] == ["clip", "clip-2"]


def test_footage_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        find_footage([tmp_path / "nowhere"])
    with pytest.raises(SourceError, match="no videos or pictures"):
        find_footage([tmp_path])


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp", "tcp"])
def test_a_closed_port_is_one_clear_error_without_the_password(scheme):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    # Put together here, so that the source lines in the traceback do not hold them.
    password, token = "/".join(["s3cr", "et@x"]), "".join(["t0", "ken"])
    with pytest.raises(SourceError, match=r"\*\*\*@127.0.0.1") as refused:
        open_source(f"{scheme}://me:{password}@127.0.0.1:{port}/live?token={token}")
    said = "".join(traceback.format_exception(refused.value))
    assert password not in said
    assert token not in said
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rtsp", "http", "udp", "rtmp", "tcp"])
def test_a_dead_network_is_an_error_within_ten_seconds(scheme):
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        if scheme == "udp":
            silent.close()
        else:
            silent.listen()
        start = time.monotonic()
        with pytest.raises(SourceError, match=scheme):
            open_source(f"{scheme}://127.0.0.1:{port}/live")
        assert time.monotonic() - start < 12


@pytest.mark.slow
def test_a_slow_steady_stream_does_not_break_off(textured):
    # At 2 frames/s FFmpeg would look at the stream for longer than the time-out, if left alone.
    stop = threading.Event()

    def send(listener):
        connection, _ = listener.accept()
        with (
            suppress(OSError),
            connection,
            connection.makefile("wb", buffering=0) as file,
            av.open(file, "w", format="mpegts", options={"flush_packets": "1"}) as container,
        ):
            stream = container.add_stream("libx264", rate=2, options={"tune": "zerolatency"})
            stream.width, stream.height = 320, 180
            for index in range(100):
                frame = textured(moved_px=index, pts=index, time_base=Fraction(1, 2))
                container.mux(stream.encode(frame))
                if stop.wait(0.5):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=send, args=[listener])
        sender.start()
        try:
            with open_source(f"tcp://127.0.0.1:{listener.getsockname()[1]}") as source:
                frames = [frame for frame, _ in zip(source, range(24), strict=False)]
        finally:
            stop.set()
            sender.join()
    assert len(frames) == 24


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        return


def test_a_file_over_http(make_clip):
    path = make_clip("clip.mkv", 4)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=path.parent)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_source(f"http://127.0.0.1:{server.server_port}/clip.mkv") as source:
                assert len(list(source)) == 4
                assert not source.info.is_live
            with pytest.raises(SourceError, match="404"):
                open_source(f"http://127.0.0.1:{server.server_port}/none.mkv")
        finally:
            server.shutdown()


def test_a_camera_that_is_not_there():
    with pytest.raises(SourceError, match="/dev/video97"):
        open_source("/dev/video97")


def test_an_unknown_scheme():
    with pytest.raises(SourceError, match="gopher"):
        open_source("gopher://host/x")


def test_real_footage_decodes(shared_data):
    for footage in find_footage([shared_data / "videos"]):
        with open_source(footage.path) as source:
            for frame, _ in zip(source, range(3), strict=False):
                assert (frame.format.name, frame.width) == ("yuv420p", source.info.width_px)


def save_sizes(folder, sizes, **options):
    folder.mkdir()
    for number, size_px in enumerate(sizes, start=1):
        Image.new("RGB", size_px, (20 * number, 90, 90)).save(folder / f"{number:06}.jpg", **options)


def test_numbered_photographs_of_several_sizes_are_stills(tmp_path):
    save_sizes(tmp_path / "photos", [(160, 120)] * 11 + [(120, 160)])
    save_sizes(tmp_path / "frames", [(160, 120)] * 3)
    (tmp_path / "frames" / "4.jpg").write_bytes(b"damaged")
    found = find_footage([tmp_path])
    assert [footage.kind for footage in found] == ["frames"] + ["still"] * 12


@pytest.mark.parametrize("name", ["4.jpg", "4.png"])
def test_a_numbered_picture_cut_off_anywhere_is_passed_over(tmp_path, name):
    save_sizes(tmp_path / "frames", [(64, 48)] * 3)
    whole = io.BytesIO()
    Image.new("RGB", (64, 48)).save(whole, "JPEG" if name.endswith("jpg") else "PNG")
    head = whole.getvalue()[:200]
    frame_header = head.find(b"\xff\xc0")
    for cut in {1, 2, 5, 12, 17, 20, 23, *range(frame_header, frame_header + 10)} - {-1}:
        (tmp_path / "frames" / name).write_bytes(head[:cut])
        assert [footage.kind for footage in find_footage([tmp_path])] == ["frames"]
    with open_source(tmp_path / "frames") as source:
        assert len(list(source)) == 3
    assert name in source.skipped_pictures[0]


def test_photographs_held_upright_and_across_differ_in_size(tmp_path):
    save_sizes(tmp_path / "photos", [(160, 120)] * 2)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (160, 120)).save(tmp_path / "photos" / "3.jpg", exif=exif)
    assert [footage.kind for footage in find_footage([tmp_path])] == ["still"] * 3


def test_footage_is_found_in_natural_order(tmp_path):
    for number in (10, 9, 2):
        (tmp_path / f"cam{number}").mkdir()
        for part in (11, 1, 3):
            (tmp_path / f"cam{number}" / f"part{part}.mp4").touch()
    assert [f"{footage.path.parent.name} {footage.path.stem}" for footage in find_footage([tmp_path])] == [
        f"cam{number} part{part}" for number in (2, 9, 10) for part in (1, 3, 11)
    ]


def test_unread_pictures_of_a_folder_are_named(tmp_path):
    save_sizes(tmp_path / "frames", [(64, 48)] * 3)
    (tmp_path / "frames" / "2.dng").write_bytes(b"raw")
    with open_source(tmp_path / "frames") as source:
        assert len(list(source)) == 3
    assert source.skipped_frames == 1
    assert "2.dng" in source.skipped_pictures[0]


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "I;16", "RGB", "RGBA"])
def test_pictures_without_a_matrix_of_their_own_are_tagged_as_what_they_become(tmp_path, mode):
    levels = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, axis=0)
    if mode == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(levels).convert("RGB" if mode == "P" else mode)
        picture = picture.quantize(64) if mode == "P" else picture
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        grey = saved.point(lambda value: value / 257).convert("L") if mode == "I;16" else saved.convert("L")
        expected = np.asarray(grey).astype(int)
    still = read_still(tmp_path / "a.png")
    assert (int(still.colorspace), int(still.color_range)) == (6, 1)  # BT.601, limited range
    assert np.abs(rgb_of(still).mean(axis=2) - expected).mean() < 4


def interlaced_clip(path, textured, field_order="tt"):
    """A square that moves between the fields, so that lines of one picture show it in two places."""
    frames = []
    for index in range(8):
        frame = textured(160, 96, pts=index)
        luma = plane_view(frame, 0)
        luma[:] = 60
        for field in (0, 1):
            left = 8 * (2 * index + field)
            luma[field::2, left : left + 24] = 200
        frames.append(frame)
    with av.open(path, "w") as container:
        options = {"x264-params": "tff=1", "crf": "5", "flags": "+ildct+ilme"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height = 160, 96
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_interlaced_footage_comes_as_whole_pictures(tmp_path, textured):
    path = interlaced_clip(tmp_path / "fields.ts", textured)
    with open_source(path) as source:
        assert any("interlaced" in remark for remark in source.info.remarks)
        frames = list(source)
    assert len(frames) == 8
    assert np.diff([float(frame.pts * frame.time_base) for frame in frames]) == pytest.approx([0.04] * 7)
    for frame in frames[1:-1]:
        luma = plane_view(frame, 0).astype(int)
        combed = np.abs(luma[1:-1:2] - (luma[:-2:2] + luma[2::2]) / 2).mean()
        assert combed < 3, "neighbouring lines show one moment"


def test_sound_and_bit_depth_that_are_lost_are_told(tmp_path, textured):
    path = tmp_path / "clip.mkv"
    with av.open(path, "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p10le"
        sound = container.add_stream("aac", rate=16000)
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        noise.sample_rate = 16000
        for stream, frame in ((video, textured(160, 96)), (sound, noise)):
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.info.remarks == ("its sound is left out", "its 10 bits per sample become 8")


@pytest.mark.parametrize(("matrix", "aspect"), [((1, 0, 0, 1), (16, 15)), ((0, 1, -1, 0), (15, 16))])
def test_the_shape_of_pixels_survives_and_turns_with_the_picture(tmp_path, textured, matrix, aspect):
    path = tmp_path / "sar.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 160, 96
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        container.mux(stream.encode(textured(160, 96)))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 44
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])
    with open_source(path) as source:
        assert source.info.pixel_aspect == Fraction(*aspect)
        half = source.info.pixel_aspect_at(source.info.width_px // 2, source.info.height_px)
        assert half == 2 * Fraction(*aspect)
        settings = EncoderSettings.for_source(source.info, crf=30)
        assert settings.pixel_aspect == Fraction(*aspect)
