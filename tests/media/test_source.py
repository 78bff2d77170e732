"""Files as sources: formats, sizes and damage; what they tell about themselves."""

import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from accmpeg.errors import SourceError, UsageError
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.frames import plane_view, rgb_of
from accmpeg.media.sink import open_sink
from accmpeg.media.source import ADDRESS_KINDS, find_footage, open_source
from accmpeg.server.settings import parse_input


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


@pytest.mark.parametrize(("matrix", "lost"), [("3", 0), ("ycgco", 1), ("bt2020c", 0)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_a_colour_matrix_that_is_not_read_stops_nothing(make_clip, matrix, lost, pix_fmt):
    path = make_clip("camera.mkv", 2, codec="ffv1", pix_fmt=pix_fmt, options={"colorspace": matrix})
    with open_source(path) as source:
        assert [rgb_of(frame).shape for frame in source] == [(96, 160, 3)] * 2
    assert len([remark for remark in source.info.remarks if "matrix" in remark]) == lost


def test_pixels_that_are_not_read_are_named(make_clip):
    with pytest.raises(SourceError, match="rgb4"):
        open_source(make_clip("screen.nut", 1, codec="rawvideo", pix_fmt="rgb4"))


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


@pytest.mark.parametrize("interlaced", [False, True])
def test_damaged_frames_keep_their_numbers_whatever_the_decoder_does_with_them(
    make_clip, textured, tmp_path, interlaced
):
    """The decoder meets B-frames in another order, and a deinterlacer holds a frame back."""
    options = {"g": "8", "bf": "2", "b-adapt": "0"} | ({"x264-params": "tff=1"} if interlaced else {})
    frames = [textured(160, 96, moved_px=i, pts=i) for i in range(24)]
    clip, path = make_clip(frames=frames, options=options), tmp_path / "bad.mkv"
    with av.open(clip) as whole, av.open(path, "w") as bad:
        stream = bad.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if packet.size and number in (9, 17):
                torn = av.Packet(bytes(packet)[:40])
                torn.pts, torn.dts, torn.time_base = packet.pts, packet.dts, packet.time_base
                packet = torn
            if packet.size:
                packet.stream = stream
                bad.mux(packet)
    with open_source(path) as source:
        numbers = [
            (index + source.passed_over, round(frame.pts * frame.time_base * 25))
            for index, frame in enumerate(source)
        ]
        assert len(numbers) + source.skipped_frames == 24
    assert source.skipped_frames == 2
    assert all(number == shown for number, shown in numbers)


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


@pytest.mark.parametrize("name", ["cover.mkv", "cover.mp4", "cover.nut"])
def test_a_first_video_track_of_one_picture_is_not_the_video(make_clip, textured, tmp_path, name):
    path = tmp_path / f"two-{name}"
    with (
        av.open(make_clip("p.mp4", 1, codec="mjpeg", pix_fmt="yuvj420p")) as picture,
        av.open(path, "w") as file,
    ):
        cover = file.add_stream_from_template(picture.streams.video[0])
        film = file.add_stream("libx264", rate=25, options={"bf": "2"})
        film.width, film.height = 320, 180
        for packet in picture.demux(video=0):
            if packet.size:
                packet.stream = cover
                file.mux(packet)
        for index in range(20):
            file.mux(film.encode(textured(moved_px=index, pts=index)))
        file.mux(film.encode(None))
    with open_source(path) as source:
        assert (source.info.width_px, source.info.height_px) == (320, 180)
        assert len(list(source)) == 20


def test_of_two_videos_the_first_is_read(make_clip, textured, tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(path, "w") as file:
        streams = [file.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, size_px in zip(streams, [(160, 96), (320, 180)], strict=True):
            stream.width, stream.height = size_px
        for index in range(5):
            for stream in reversed(streams):
                frame = textured(stream.width, stream.height, moved_px=index, pts=index)
                file.mux(stream.encode(frame))
        for stream in reversed(streams):
            file.mux(stream.encode(None))
    with open_source(path) as source:
        assert [frame.width for frame in source] == [160] * 5


def test_pictures_that_change_their_size_are_told_once(make_clip, tmp_path, caplog):
    sizes_px = ((160, 96), (96, 160))
    parts = [make_clip(f"{width_px}.ts", 5, size_px=(width_px, high_px)) for width_px, high_px in sizes_px]
    path = tmp_path / "turned.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(path) as source:
        assert {(frame.width, frame.height) for frame in source} == {(160, 96)}
    assert caplog.text.count("96x160") == 1


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


@pytest.mark.parametrize(
    ("name", "called", "codec", "pix_fmt"),
    [
        ("clip.mp4", "clip.jpg", "libx264", "yuv420p"),
        ("clip.mkv", "clip.jpg", "libx264", "yuv420p"),
        ("clip.apng", "clip.png", "apng", "rgb24"),
        ("clip.avif", "clip.avif", "libsvtav1", "yuv420p"),
    ],
)
def test_a_video_with_the_name_of_a_picture_is_read_whole(make_clip, tmp_path, name, called, codec, pix_fmt):
    path = make_clip(name, codec=codec, pix_fmt=pix_fmt).rename(tmp_path / called)
    with open_source(path) as source:
        assert len(list(source)) == 5


def test_real_footage_decodes(shared_data):
    for footage in find_footage([shared_data / "videos"]):
        with open_source(footage.path) as source:
            for frame, _ in zip(source, range(3), strict=False):
                assert (frame.format.name, frame.width) == ("yuv420p", source.info.width_px)


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


def test_one_row_lets_commands_and_the_server_read_another_scheme(make_clip, monkeypatch):
    clip = make_clip(frames=3)
    with pytest.raises(UsageError, match="can't read clips"):
        parse_input("gate=clips://3")
    with pytest.raises((SourceError, UsageError), match="can't read clips"):
        open_source("clips://3")
    asked = []

    def opened(address, options):
        asked.append((address, options.rtsp_transport))
        return open_source(clip)

    monkeypatch.setitem(ADDRESS_KINDS, "clips", opened)
    with open_source("Clips://3") as source:
        assert len(list(source)) == 3
    assert asked == [("Clips://3", "auto")]
    assert parse_input("gate=clips://3") == ("gate", "clips://3")
