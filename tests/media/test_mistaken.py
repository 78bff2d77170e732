"""What is given in a video's place is called by its name, with the way out."""

import gzip
import socket
import subprocess
import sys
import tarfile

import av
import pytest

from accmpeg.errors import SourceError
from accmpeg.media.footage import find_footage
from accmpeg.media.mistaken import way_out
from accmpeg.media.source import open_source


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.yuv", b"\x80" * 3000, "-video_size 1280x720"),
        ("in.nv12", b"\x80" * 3000, "-video_size 1280x720"),
        ("in.rgb", b"\x80" * 3000, "-video_size 1280x720"),
        ("in.mpd", b"<?xml version='1.0'?>\n<MPD type='static'></MPD>", "DASH manifest"),
        ("manifest", b"\xef\xbb\xbf<?xml version='1.0'?><MPD></MPD>", "DASH manifest"),
        ("in.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n", "playlist"),
        ("in.m3u", b"#EXTM3U\n/nowhere/a.mp4\n", "playlist"),
        ("in.txt", b"file 'a.mp4'\nfile 'b.mp4'\n", "'ffconcat version 1.0'"),
        ("page.mp4", b"<!DOCTYPE html><html>log in</html>", "a page or document"),
        ("in.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "a page or document"),
        (
            "refused.mp4",
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            "a page or document",
        ),
        ("answer.mp4", b'{"error": "expired"}', "a page or document"),
        ("a.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        (
            "photo.jpg",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
            "git lfs pull",
        ),
        ("card.mp4", bytes(9000), "zeros alone"),
        ("black.yuv", bytes(9000), "-video_size 1280x720"),
        ("in.zip", b"PK\x03\x04" + b"\0" * 100, "unpack it"),
        ("in.mp4.gz", gzip.compress(b"video", mtime=0), "unpack it"),
        ("in.webp", b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0\0\0\0\0\0\0ANIM", "animated WebP"),
    ],
)
def test_files_of_other_kinds(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=name) as refused:
        open_source(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_address_of_a_manifest():
    assert "DASH manifest" in way_out("https://host/live/stream.mpd?token=1")
    assert way_out("https://host/live/stream.m3u8") == ""


def test_a_tar_archive(make_clip, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(make_clip())
    with pytest.raises(SourceError, match="unpack it"):
        open_source(tmp_path / "all.tar")


def test_mp4_without_its_index_and_fragments_without_their_init(make_clip, tmp_path):
    raw = make_clip().read_bytes()
    (tmp_path / "cut.mp4").write_bytes(raw[: raw.index(b"moov") - 4])
    with pytest.raises(SourceError, match="cut off before its end"):
        open_source(tmp_path / "cut.mp4")
    fragments = tmp_path / "fragments.mp4"
    with av.open(fragments, "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    raw = fragments.read_bytes()
    (tmp_path / "part.m4s").write_bytes(raw[raw.index(b"moof") - 4 :])
    with pytest.raises(SourceError, match="init file"):
        open_source(tmp_path / "part.m4s")
    assert way_out(str(fragments)) == ""


def test_encrypted_mp4(make_clip, tmp_path):
    raw = make_clip().read_bytes()
    assert raw.count(b"avc1") == 2  # a brand, and the kind of the track
    locked = tmp_path / "locked.mp4"
    locked.write_bytes(b"encv".join(raw.rsplit(b"avc1", 1)))
    assert "encrypted" in way_out(str(locked))


def test_sizes_of_boxes_that_lie_end_the_look(tmp_path):
    for number, content in enumerate(
        [b"\0\0\0\1ftyp" + b"\0" * 8, b"\0\0\0\0ftyp", b"\0\0\0\4ftyp", b"\0\0\0\x20ftyp"]
    ):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(content)
        assert "moov" in way_out(str(path))


def test_a_folder_of_videos_and_patterns_of_pictures(make_clip, tmp_path):
    make_clip("north.mp4")
    with pytest.raises(SourceError, match=r"give one of its videos, .*north\.mp4"):
        open_source(tmp_path)
    for pattern in ("%06d.png", "*.jpg"):
        with pytest.raises(SourceError, match="give the folder"):
            open_source(tmp_path / pattern)


def test_a_name_that_is_too_long():
    with pytest.raises(SourceError, match="too long"):
        open_source("x" * 300)
    with pytest.raises(SourceError, match="too long"):
        find_footage(["x" * 300])


def test_a_picture_on_a_sound_file_is_no_video(make_clip, tmp_path):
    path = tmp_path / "song.mp3"
    with (
        av.open(make_clip("cover.png", 1, codec="png", pix_fmt="rgb24")) as cover,
        av.open(path, "w") as song,
    ):
        sound = song.add_stream("mp3", rate=44100)
        picture = song.add_stream_from_template(cover.streams.video[0])
        packet = next(iter(cover.demux(cover.streams.video[0])))
        packet.stream = picture
        for _ in range(2):
            silence = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate = 44100
            song.mux(sound.encode(silence))
        song.mux(packet)
        song.mux(sound.encode(None))
    with pytest.raises(SourceError, match="no video: only audio, picture"):
        open_source(path)


def test_an_sdp_file_is_the_stream_that_it_describes(tmp_path, textured):
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] & ~1
    sdp = tmp_path / "camera.sdp"
    sdp.write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=c\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 MP4V-ES/90000\n"
    )
    sender = f"""
import time, av
with av.open("rtp://127.0.0.1:{port}", "w", format="rtp") as container:
    stream = container.add_stream("mpeg4", rate=25, options={{"g": "5"}})
    stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
    while True:
        container.mux(stream.encode(av.VideoFrame(160, 96, "yuv420p")))
        time.sleep(0.04)
"""
    with subprocess.Popen([sys.executable, "-c", sender]) as process:
        try:
            with open_source(sdp) as source:
                assert source.info.is_live
                assert (source.info.width_px, source.info.height_px) == (160, 96)
                assert len([frame for frame, _ in zip(source, range(10), strict=False)]) == 10
        finally:
            process.kill()
