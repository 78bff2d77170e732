"""Addresses as sources: cameras, servers and networks that work, are slow, or are not there."""

import io
import socket
import threading
import time
import traceback
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
from PIL import Image

from accmpeg.errors import SourceError
from accmpeg.media.source import open_source
from tests.helpers import WAIT_S


def paced(pictures, interval_s):
    # A camera's clock goes on while it is late: one late picture is not a slower camera.
    start_s = time.monotonic()
    for index, picture in enumerate(pictures):
        time.sleep(max(0, start_s + index * interval_s - time.monotonic()))
        yield picture
    time.sleep(interval_s)


class MjpegHandler(BaseHTTPRequestHandler):
    """A camera that sends 12 pictures, 5 a second, and hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with suppress(OSError):
            for picture in paced([jpeg(index) for index in range(12)], 0.2):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                self.wfile.flush()

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
    assert np.median(np.diff(seconds)) == pytest.approx(0.2, abs=0.1)
    assert seconds[-1] == pytest.approx(0.2 * (len(seconds) - 1), abs=0.2)


def jpeg(index, size_px=(160, 120)):
    memory = io.BytesIO()
    picture = Image.effect_noise(size_px, 100) if size_px[0] > 16 else Image.new("L", size_px, index * 9)
    picture.convert("RGB").save(memory, "JPEG")
    return memory.getvalue()


class BareHandler(BaseHTTPRequestHandler):
    """JPEGs, nothing between them; at /snapshot one, at /hangup one of unsaid length."""

    def do_GET(self):
        size_px = (16, 16) if self.path == "/video/small" else (160, 120)
        pictures = [jpeg(index, size_px) for index in range(100 if self.path.startswith("/video") else 1)]
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        if self.path == "/snapshot":
            self.send_header("Content-Length", str(len(pictures[0])))
        self.end_headers()
        with suppress(OSError):
            for picture in paced(pictures, 0.1):
                self.wfile.write(picture)
                self.wfile.flush()

    def log_message(self, format, *args):
        return


@pytest.fixture
def bare_camera():
    with ThreadingHTTPServer(("127.0.0.1", 0), BareHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("name", ["large", pytest.param("small", marks=pytest.mark.slow)])
def test_bare_jpegs_over_http_are_a_stream_of_their_own_rate(bare_camera, name):
    # Small ones FFmpeg does not believe before a megabyte, large ones it takes for 25 a second.
    with open_source(f"{bare_camera}/video/{name}") as source:
        assert source.info.is_live
        assert source.info.frame_rate == pytest.approx(10, rel=0.2)
        frames = [frame for frame, _ in zip(source, range(15), strict=False)]
    assert float(frames[-1].pts * frames[-1].time_base) == pytest.approx(1.4, abs=0.3)


def test_a_snapshot_is_called_so(bare_camera):
    with open_source(f"{bare_camera}/snapshot") as source:
        assert "not its snapshot's" in source.info.remarks[0]
        assert len(list(source)) == 1
    with (
        pytest.raises(SourceError, match="not its snapshot's"),
        open_source(f"{bare_camera}/hangup") as source,
    ):
        list(source)


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


def test_a_stream_without_keyframes_is_given_up(textured, monkeypatch, caplog):
    """Encrypted ones are alike: packets come, and no picture ever."""
    monkeypatch.setattr("accmpeg.media.opening._SAID_S", 0.1)
    monkeypatch.setattr("accmpeg.media.opening._GIVEN_UP_S", 0.5)
    sent = io.BytesIO()
    with av.open(sent, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height = 320, 180
        for index in range(240):
            for packet in stream.encode(textured(moved_px=index, pts=index, time_base=Fraction(1, 25))):
                if not packet.is_keyframe:
                    container.mux(packet)

    def send(listener):
        connection, _ = listener.accept()
        with suppress(OSError), connection:
            data, paced_from = sent.getvalue(), len(sent.getvalue()) * 2 // 3
            connection.sendall(data[:paced_from])  # so much FFmpeg reads to find out what it is
            for begin in range(paced_from, len(data), 1880):
                connection.sendall(data[begin : begin + 1880])
                time.sleep(0.02)
            time.sleep(WAIT_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=send, args=[listener], daemon=True).start()
        with pytest.raises(SourceError, match=r"no picture of .* can be decoded .*: it has no keyframes, or"):
            open_source(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    assert "it waits for a keyframe" in caplog.text


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


def test_of_an_hls_stream_only_the_variant_that_is_read_is_fetched(textured, tmp_path):
    fetched = []

    class Noting(QuietHandler):
        def do_GET(self):
            fetched.append(self.path)
            super().do_GET()

    listed = "#EXTM3U\n"
    for name, size_px in (("small", (160, 96)), ("large", (320, 192))):
        (tmp_path / name).mkdir()
        options = {"hls_time": "1", "hls_list_size": "0"}
        with av.open(
            tmp_path / name / "live.m3u8", "w", format="hls", container_options=options
        ) as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "25", "preset": "ultrafast"})
            stream.width, stream.height = size_px
            for index in range(150):
                container.mux(stream.encode(textured(*size_px, moved_px=index, pts=index)))
            container.mux(stream.encode(None))
        listed += f"#EXT-X-STREAM-INF:BANDWIDTH={size_px[0] * 1000}\n{name}/live.m3u8\n"
    (tmp_path / "all.m3u8").write_text(listed)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Noting, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_source(f"http://127.0.0.1:{server.server_port}/all.m3u8") as source:
                assert len(list(source)) == 150
        finally:
            server.shutdown()
    assert sum(path.startswith("/small/live") for path in fetched) == 7  # the playlist and six seconds
    assert sum(path.startswith("/large/live") for path in fetched) <= 3


def test_an_hls_playlist_without_an_end_is_live(textured, tmp_path):
    file = tmp_path / "live.m3u8"
    with av.open(file, "w", format="hls", container_options={"hls_time": "1"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "25", "preset": "ultrafast"})
        stream.width, stream.height = 160, 96
        for index in range(50):
            container.mux(stream.encode(textured(160, 96, moved_px=index, pts=index)))
        container.mux(stream.encode(None))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with open_source(f"http://127.0.0.1:{server.server_port}/live.m3u8") as source:
                assert not source.info.is_live
                whole = [frame.to_ndarray().tobytes() for frame in source]
            file.write_text(file.read_text().replace("#EXT-X-ENDLIST", ""))
            with open_source(f"http://127.0.0.1:{server.server_port}/live.m3u8") as source:
                assert source.info.is_live  # so that it is opened again where it breaks off
                frames = [frame for _, frame in zip(range(30), source, strict=False)]
            with open_source(f"http://127.0.0.1:{server.server_port}/live.m3u8") as again:
                # Its playlist begins some segments ago: what was given is not given twice.
                again.go_on_after(source)
                pictures = [frame.to_ndarray().tobytes() for _, frame in zip(range(20), again, strict=False)]
        finally:
            server.shutdown()
    assert [whole.index(picture) for picture in pictures] == list(range(30, 50))
    assert [float(frame.pts * frame.time_base) for frame in frames] == pytest.approx(
        [index / 25 for index in range(30)]
    )


def test_a_camera_that_is_not_there():
    with pytest.raises(SourceError, match="/dev/video97"):
        open_source("/dev/video97")


def test_an_unknown_scheme():
    with pytest.raises(SourceError, match="gopher"):
        open_source("gopher://host/x")
