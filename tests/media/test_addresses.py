from pathlib import Path

import pytest

from accmpeg.media.addresses import describe, is_url, scheme_of


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:s3cret@camera/live", "rtsp://***@camera/live"),
        ("rtsp://me:s3/cr@et@camera/live", "rtsp://***@camera/live"),
        ("rtmp://host/app?key=s3cret", "rtmp://host/app?***"),
        ("http://user@host:8080/x", "http://***@host:8080/x"),
        ("udp://127.0.0.1:5000", "udp://127.0.0.1:5000"),
        ("/home/me@work/clip?.mp4", "/home/me@work/clip?.mp4"),
    ],
)
def test_messages_hide_secrets_and_nothing_else(address, shown):
    assert describe(address) == shown


def test_paths_are_no_urls():
    assert is_url("RTSP://x")
    assert scheme_of("RTSP://x") == "rtsp"
    assert not is_url("C:/clip.mp4")
    assert not is_url(Path("rtsp://x"))
