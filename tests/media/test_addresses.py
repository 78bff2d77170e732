from pathlib import Path

import pytest

from accmpeg.media.addresses import describe, is_loopback, is_url, locate, scheme_of


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


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtmp://live.example/app/stream-key", "rtmp://live.example/app/***"),
        ("rtmp://live.example/app/a/b?x", "rtmp://live.example/app/***?***"),
        (
            "rtsp://camera/user=admin&password=s3cret&channel=1",
            "rtsp://camera/user=admin&password=***&channel=1",
        ),
        ("rtsp://me:s3#cr?e/t@camera/live", "rtsp://***@camera/live"),
        ("rtsp:/me:s3cret@camera/live", "***@camera/live"),
        ("me:s3cret@camera/live", "***@camera/live"),
        ("gate=rtsp:/me:s3cret@camera", "***@camera"),
        ("./me:work@home.mp4", "./me:work@home.mp4"),
        ("a:b.mp4", "a:b.mp4"),
    ],
)
def test_secrets_in_odd_places_are_hidden_too(address, shown):
    assert describe(address) == shown


@pytest.mark.parametrize(
    ("address", "host", "port", "user", "password"),
    [
        ("rtsp://camera/live", "camera", None, None, None),
        ("RTSP://me:a%23b%2F@[fe80::1]:8554/", "fe80::1", 8554, "me", "a#b/"),
        ("rtsp://me:p%23%2F%3F%40%3A%25@10.0.0.1:554/x", "10.0.0.1", 554, "me", "p#/?@:%"),
        ("rtsp://me:a@b:c@camera", "camera", None, "me", "a@b:c"),
        ("rtsp://[::1]:8554/x", "::1", 8554, None, None),
        ("udp://@239.0.0.1:5000", "239.0.0.1", 5000, "", None),
        ("udp://:5000", "", 5000, None, None),
        ("http://käse_1.local/x", "käse_1.local", None, None, None),
    ],
)
def test_what_addresses_say(address, host, port, user, password):
    found = locate(address)
    assert (found.host, found.port, found.user, found.password) == (host, port, user, password)
    assert not password or password not in repr(found)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("127.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host, expected):
    assert is_loopback(host) is expected
