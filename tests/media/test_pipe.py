import operator
import os
import signal
import threading
from _thread import interrupt_main
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from accmpeg.errors import SourceError
from accmpeg.media.pipe import Pipe
from accmpeg.media.source import open_source


@pytest.fixture
def ends(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def written(pipe: Path, data: bytes) -> threading.Thread:
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    return writer


def test_what_is_written_is_read_to_its_end(ends: Path) -> None:
    writer = written(ends, b"frames")
    with Pipe(str(ends)) as pipe:
        writer.join()
        assert [pipe.read(4), pipe.read(4), pipe.read(4)] == [b"fram", b"es", b""]
        pipe.end()


def test_ctrl_c_between_two_reads_of_ffmpeg_is_not_lost(ends: Path) -> None:
    """`map` calls both from C, as PyAV does: the interrupt waits until Python runs, within the read."""
    writer = written(ends, b"frames")
    calls: list[Callable[[], object]] = [partial(interrupt_main, signal.SIGINT)]
    with Pipe(str(ends)) as pipe:
        writer.join()
        assert [*map(operator.call, [*calls, partial(pipe.read, 4)])] == [None, b""]
        assert pipe.read(4) == b""
        with pytest.raises(KeyboardInterrupt):
            pipe.end()


def test_ctrl_c_ends_a_read_of_a_silent_pipe(ends: Path) -> None:
    writer = os.open(ends, os.O_RDWR)
    try:
        with Pipe(str(ends)) as pipe:
            # To this thread, as the process's others may take a signal that is for all.
            timer = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
            timer.start()
            assert pipe.read(4) == b""
            with pytest.raises(KeyboardInterrupt):
                pipe.end()
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("clip.mp4", None, "MP4 comes through a pipe only with its index"),
        ("raw", b"\x80" * 5000, "such as mkv, ts, y4m"),
        ("nothing", b"", "nothing came through it"),
    ],
)
def test_why_no_video_comes_out_of_a_pipe(
    ends: Path, make_clip: Callable[[str], Path], name: str, content: bytes | None, said: str
) -> None:
    writer = written(ends, make_clip(name).read_bytes() if content is None else content)
    with pytest.raises(SourceError, match=said):
        open_source(ends)
    writer.join()
