"""A late frame without all before it: the same picture at the same time as if all had been decoded."""

import itertools
import time

import av
import numpy as np
import pytest

from accmpeg.media.seeking import find_entry, shown_packets
from accmpeg.media.source import open_source

GROUP = [(0, True), (3, False), (1, False), (2, False)]  # I P B B


def stream(groups):
    return [(4 * group + pts, is_key) for group in range(groups) for pts, is_key in GROUP]


def test_the_keyframe_before_the_last_one():
    entry = find_entry(stream(9), 21)
    assert entry is not None
    assert entry.keyframe == 12
    assert entry.times == tuple(range(22))


@pytest.mark.parametrize(
    "packets",
    [
        stream(2),  # both keyframes are needed
        [(None, is_key) for _, is_key in stream(9)],  # a container without times
        stream(5) + stream(5),  # a clock that starts anew
        [(index, index == 0) for index in range(40)],  # one keyframe
        stream(5)[:15],  # it ends before
    ],
)
def test_where_only_the_start_is_sure(packets):
    assert find_entry(packets, 21 if len(packets) > 20 else 7) is None
    assert find_entry(packets, 15) is None or len(packets) == 40


def pictures(path, first, *, approached):
    with open_source(path) as source:
        begins = source.approach(first) if approached else 0
        frames = list(itertools.islice(source, first - begins, first - begins + 40))
        return begins, [(frame.pts, frame.to_ndarray().tobytes()) for frame in frames]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_recording_that_begins_between_keyframes_counts_only_what_is_shown(
    tmp_path, make_clip, textured, codec
):
    """Its packets before the first keyframe, and those that lean on pictures before it, give no frames."""
    hevc = {"x265-params": "keyint=12:bframes=3:b-adapt=0:open-gop=1:scenecut=0:log-level=none"}
    frames = [textured(160, 96, moved_px=index, pts=index) for index in range(180)]
    whole = make_clip(
        "whole.mkv", frames, codec=codec, options=hevc if codec == "libx265" else {"bf": "0", "g": "12"}
    )
    cut = tmp_path / "cut.mkv"
    with av.open(whole) as source, av.open(cut, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= 15:
                packet.stream = stream
                target.mux(packet)
    assert pictures(cut, 120, approached=True)[1] == pictures(cut, 120, approached=False)[1]


CODED = {
    "b.mp4": ("libx264", {"bf": "3", "g": "20"}),
    "b.mkv": ("libx264", {"bf": "3", "g": "20"}),
    "b.ts": ("libx264", {"bf": "3", "g": "20"}),
    "b.mov": ("libx264", {"bf": "2", "g": "20"}),
    "b.flv": ("libx264", {"bf": "2", "g": "20"}),
    "open.mkv": ("libx264", {"bf": "3", "g": "20", "x264-params": "open-gop=1:scenecut=0"}),
    "refresh.mkv": ("libx264", {"g": "20", "x264-params": "intra-refresh=1"}),
    "interlaced.mkv": ("libx264", {"bf": "2", "g": "20", "flags": "+ildct+ilme", "x264-params": "tff=1"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "keyint=20:bframes=3:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2", "g": "12", "flags": "-cgop"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2", "g": "12"}),
    "mpeg4.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "b.h264": ("libx264", {"bf": "3", "g": "20"}),
    "b.mxf": ("mpeg2video", {"bf": "2", "g": "12"}),
    "all.avi": ("mjpeg", {}),
}
FROM_THE_START = {"b.h264", "refresh.mkv"}  # packets without times; no picture is whole by itself


@pytest.fixture(scope="module")
def noise():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (96, 160, 3), dtype=np.uint8)
    return [np.roll(picture, 3 * index, axis=1) for index in range(230)]


@pytest.mark.parametrize("name", CODED)
def test_frames_and_times_are_those_from_the_start(make_clip, noise, name):
    codec, options = CODED[name]
    frames = [av.VideoFrame.from_ndarray(each, format="rgb24") for each in noise]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_clip(name, frames, codec=codec, options=options, pix_fmt=pix_fmt)
    for first in (101, 159, 190):
        begins, late = pictures(path, first, approached=True)
        assert late == pictures(path, first, approached=False)[1]
        assert begins == (0 if name in FROM_THE_START else first - 2) or name == "mpeg2.mpg"


def test_what_the_packets_promise_and_the_decoder_does_not_keep(make_clip, noise):
    path = make_clip("b.mkv", [av.VideoFrame.from_ndarray(each, format="rgb24") for each in noise],
                     options={"g": "20", "bf": "0"})  # fmt: skip
    raw = bytearray(path.read_bytes())
    with av.open(path) as container:
        sizes = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    pos, size = sizes[145]
    raw[pos + 20 : pos + size] = bytes(size - 20)
    path.write_bytes(raw)
    _, late = pictures(path, 150, approached=True)
    assert late == pictures(path, 150, approached=False)[1]


def test_frames_before_the_cut_of_an_edit_list_do_not_count(make_clip, noise, tmp_path):
    frames = [av.VideoFrame.from_ndarray(each, format="rgb24") for each in noise]
    path, cut = make_clip("whole.mp4", frames, options={"g": "50", "bf": "0"}), tmp_path / "cut.mp4"
    with av.open(path) as whole, av.open(cut, "w") as out:
        stream = out.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 15 * 512, packet.dts - 15 * 512
                packet.stream = stream
                out.mux(packet)
    with open_source(cut) as source:
        shown = len(list(source))
    assert sum(1 for _ in shown_packets(f"file:{cut}", "cut.mp4")) == shown
    assert pictures(cut, 150, approached=True)[1] == pictures(cut, 150, approached=False)[1]


@pytest.mark.slow
def test_a_late_frame_comes_soon(make_clip):
    frames = (av.VideoFrame(320, 180, "yuv420p") for _ in range(3000))
    path = make_clip("long.mp4", frames, size_px=(320, 180), options={"preset": "ultrafast", "g": "50"})
    took_s = {}
    for approached in (True, False):
        began_s = time.process_time()
        pictures(path, 2900, approached=approached)
        took_s[approached] = time.process_time() - began_s
    assert took_s[True] < took_s[False] / 3
