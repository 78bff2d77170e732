"""Which time each frame of a file gets."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from accmpeg.media.source import open_source


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


@pytest.mark.parametrize(
    ("name", "codec", "stamps_ms", "rate"),
    [
        ("browser.webm", "libvpx", [0, 33, 67, 99, 134, 166, 201, 233, 266, 301, 334, 367], 30),
        ("halves.mp4", "libx264", [40 * i + 15 * (i % 2) for i in range(20)], 25),
        ("pause.mkv", "libx264", [40 * i + 9000 * (i > 5) for i in range(20)], 25),
        ("slides.mkv", "libx264", [30000 * i for i in range(5)], Fraction(1, 30)),
        ("slow_motion.mkv", "libx264", [4 * i for i in range(20)], 250),
        ("fast.mkv", "libx264", [round(1000 * i / 120) for i in range(40)], 120),
        ("one.mkv", "libx264", [0], 25),
    ],
)
def test_the_fineness_of_a_clock_is_no_frame_rate(tmp_path, textured, name, codec, stamps_ms, rate):
    path = tmp_path / name
    with av.open(path, "w") as container:
        options = {"tune": "zerolatency"} if codec == "libx264" else {"deadline": "realtime"}
        stream = container.add_stream(codec, rate=1000, options=options)
        stream.width, stream.height, stream.codec_context.time_base = 160, 96, Fraction(1, 1000)
        for stamp in stamps_ms:
            container.mux(
                stream.encode(textured(160, 96, seed=stamp, pts=stamp, time_base=Fraction(1, 1000)))
            )
        container.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.info.frame_rate == rate
        assert [round(frame.pts * frame.time_base * 1000) for frame in source] == stamps_ms


@pytest.mark.parametrize("rate", [15, 50])
def test_raw_video_without_times_keeps_its_rate(tmp_path, textured, rate):
    path = tmp_path / "camera.h264"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"bf": "2"})
        stream.width, stream.height = 160, 96
        for index in range(12):
            frame = textured(160, 96, moved_px=index, pts=index, time_base=Fraction(1, rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.info.frame_rate == rate
        assert [frame.pts * frame.time_base for frame in source] == [Fraction(i, rate) for i in range(12)]


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


def test_frames_that_an_edit_list_cuts_off_do_not_shift_the_times_of_others(tmp_path, textured):
    """As in clips that a phone trimmed, or `ffmpeg -ss 0.12 -c copy` cut."""
    with av.open(tmp_path / "cut.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "8"})
        stream.width, stream.height = 160, 96
        packets = []
        for index in range(20):
            frame = textured(160, 96, moved_px=index, pts=index)
            frame.pict_type = PictureType.P  # of the B-frames that it may use, it uses none
            packets += stream.encode(frame)
        for packet in packets + stream.encode(None):
            packet.pts, packet.dts = packet.pts - 3, packet.dts - 3
            container.mux(packet)
    with open_source(tmp_path / "cut.mp4") as source:
        assert [frame.pts * frame.time_base for frame in source] == [Fraction(i, 25) for i in range(17)]


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
