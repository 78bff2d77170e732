"""Footage at addresses: found, read where it is needed, and called by its address."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from accmpeg.errors import SourceError
from accmpeg.media.shared_files import local_file, shared_files
from accmpeg.media.source import find_footage, open_source

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A store in memory."""
    files = fsspec.filesystem("memory")
    root = f"/{request.node.name}"
    for name in ("b/10.mp4", "b/2.mp4", "a.png", "notes.txt", ".hidden/3.mp4"):
        files.pipe_file(f"{root}/{name}", b"content of " + name.encode())
    return f"memory://{root}"


def test_videos_and_pictures_are_found_and_named_as_in_a_folder(bucket: str) -> None:
    found = find_footage([bucket])
    root = bucket.rpartition("/")[2]
    assert [(each.kind, each.clip) for each in found] == [
        ("still", f"{root}/a"),
        ("video", f"{root}/b/2"),
        ("video", f"{root}/b/10"),
    ]
    assert [each.source for each in found] == [
        f"{bucket}/{name}" for name in ("a.png", "b/2.mp4", "b/10.mp4")
    ]


def test_one_file_is_called_by_its_name(bucket: str) -> None:
    (found,) = find_footage([f"{bucket}/b/2.mp4"])
    assert (found.clip, found.location) == ("2", f"{bucket}/b/2.mp4")


def test_a_file_is_there_as_long_as_it_is_read(bucket: str) -> None:
    with local_file(f"{bucket}/a.png") as path:
        assert (path.name, path.read_bytes()) == ("a.png", b"content of a.png")
    assert not path.exists()
    with local_file(Path(__file__)) as path:
        assert path == Path(__file__)


def test_what_is_wrong_with_it_is_said_of_its_address(bucket: str) -> None:
    with (
        pytest.raises(SourceError, match=rf"{bucket}/b/2.mp4") as caught,
        local_file(f"{bucket}/b/2.mp4") as path,
    ):
        open_source(path)
    assert str(path.parent) not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense://bucket/clip.mp4", "can't open nonsense://bucket/clip.mp4: Protocol not known"),
        ("memory://missing/clip.mp4", "can't read memory://missing/clip.mp4"),
    ],
)
def test_an_address_that_nothing_reads_says_so(address: str, said: str) -> None:
    with pytest.raises(SourceError, match=said), local_file(address):
        pass


def test_nothing_under_an_address_is_no_footage() -> None:
    assert shared_files("memory://nowhere") == []
    with pytest.raises(SourceError, match="no videos or pictures in memory://nowhere"):
        find_footage(["memory://nowhere"])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    """A real one, of the files in `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_footage_on_a_web_server_is_found_fetched_and_missed_by_its_address(
    web_server: str, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "footage" / "north").mkdir(parents=True)
    for name in ("north/clip.mp4", "2.png", "notes.txt"):
        (tmp_path / "footage" / name).write_bytes(b"content of " + name.encode())
    found = find_footage([f"{web_server}/footage/"])
    assert [each.source for each in found] == [
        f"{web_server}/footage/{name}" for name in ("2.png", "north/clip.mp4")
    ]
    with local_file(found[-1].location) as path:
        assert path.read_bytes() == b"content of north/clip.mp4"
    lost = f"{web_server}/footage/lost.mp4"
    with pytest.raises(SourceError, match=f"can't read {lost}"), local_file(lost):
        pass
