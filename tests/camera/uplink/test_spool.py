"""The spool: order, bounds, crashes of its writer, full disks."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import accmpeg
from accmpeg.camera.uplink.spool import Spool
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.errors import LinkError, SourceError
from accmpeg.media.source import Source
from accmpeg.protocol.wire import Hello
from tests.helpers import WAIT_S, free_port

GOP = 5


def hello(stream_id: str = "run1") -> Hello:
    return Hello(
        camera="gate", stream_id=stream_id, codec="h264", width_px=320, height_px=180,
        source_width_px=320, source_height_px=180, frame_rate=30.0, time_base=(1, 30),
    )  # fmt: skip


def unit(sequence: int, size_bytes: int = 1000) -> TimedUnit:
    at_us = sequence * 33_333
    data = bytes([sequence % 256]) * size_bytes
    return TimedUnit(data, sequence, sequence % GOP == 0, at_us, at_us + 5000, (320, 180), {"encode": 1.5})


def fill(spool: Spool, count: int, *, first: int = 0, size_bytes: int = 1000) -> None:
    for sequence in range(first, first + count):
        spool.append(sequence, unit(sequence, size_bytes))


def drain(spool: Spool, stream_id: str = "run1") -> list[int]:
    sequences = []
    while (found := spool.next(stream_id)) is not None:
        sequence, held = found
        assert held == unit(sequence, len(held.data))
        sequences.append(sequence)
    return sequences


def started(folder: Path | None, stream_id: str = "run1", **limits: int) -> Spool:
    spool = Spool(folder, **limits)
    spool.begin(hello(stream_id), b"sps")
    return spool


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "spool"


def test_frames_come_out_once_and_in_order(folder: Path | None) -> None:
    spool = started(folder)
    fill(spool, 7)
    assert drain(spool) == list(range(7))
    fill(spool, 5, first=7)
    assert drain(spool) == [7, 8, 9, 10, 11]
    assert spool.waiting_frames("run1") == 0


def test_what_is_acknowledged_goes_and_the_rest_stays(folder: Path | None) -> None:
    spool = started(folder)
    fill(spool, 20)
    drain(spool)
    held = spool.held_bytes
    spool.acknowledge("run1", 11)
    assert 0 < spool.held_bytes < held
    spool.rewind("run1", 14)
    assert drain(spool) == list(range(15, 20))
    spool.rewind("run1", 12)
    assert drain(spool) == list(range(10, 20)), "from the keyframe that frame 13 needs"


def test_rewinding_past_the_end_leaves_only_what_comes(folder: Path | None) -> None:
    spool = started(folder)
    fill(spool, 6)
    spool.rewind("run1", 5)
    assert drain(spool) == []
    fill(spool, 2, first=6)
    assert drain(spool) == [6, 7]


def test_the_oldest_group_of_pictures_goes_first(folder: Path | None) -> None:
    spool = started(folder, limit_bytes=16_000)
    fill(spool, 40)
    left = drain(spool)
    assert left == list(range(left[0], 40))
    assert left[0] % GOP == 0, "the first one left is a keyframe"
    assert spool.dropped_frames == left[0]
    assert spool.held_bytes <= 16_000


def test_waiting_frames_can_be_left_out(folder: Path | None) -> None:
    spool = started(folder)
    fill(spool, 8)
    assert spool.next("run1") is not None
    assert spool.drop_waiting("run1") == 7
    fill(spool, 3, first=10)
    assert drain(spool) == [10, 11, 12]


def test_an_earlier_run_is_found_again_with_its_hello(tmp_path: Path) -> None:
    spool = started(tmp_path)
    fill(spool, 12)
    spool.close(keep=True)
    again = started(tmp_path, "run2")
    fill(again, 3)
    assert again.streams() == ["run1", "run2"]
    found = again.hello_of("run1")
    assert found is not None
    assert (found.message, bytes(found.payload)) == (hello(), b"sps")
    assert drain(again, "run1") == list(range(12))
    again.forget("run1")
    assert again.streams() == ["run2"]
    assert drain(again, "run2") == [0, 1, 2]


def test_a_clock_that_is_set_back_mixes_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = started(tmp_path)
    fill(spool, GOP)
    monkeypatch.setattr("time.time_ns", lambda: 0)  # no battery: 1970, until the network says otherwise
    fill(spool, 2 * GOP, first=GOP)
    spool.close(keep=True)
    again = started(tmp_path, "run2")
    fill(again, 1)
    again.close(keep=True)
    last = started(tmp_path, "run3")
    assert last.streams() == ["run1", "run2"]
    assert drain(last, "run1") == list(range(3 * GOP))


def test_a_torn_record_ends_a_file_and_nothing_else(tmp_path: Path) -> None:
    spool = started(tmp_path)
    fill(spool, 10)
    spool.close(keep=True)
    first, second = sorted(tmp_path.glob("*.gop"))
    os.truncate(first, first.stat().st_size - 10)
    damaged = bytearray(second.read_bytes())
    damaged[-5] ^= 1
    second.write_bytes(damaged)
    assert drain(started(tmp_path, "run2"), "run1") == [0, 1, 2, 3, 5, 6, 7, 8]


def test_damage_under_a_running_spool_costs_one_group(tmp_path: Path) -> None:
    spool = started(tmp_path)
    fill(spool, 10)
    file = min(tmp_path.glob("*.gop"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    sequences = drain(spool)
    assert sequences[-5:] == [5, 6, 7, 8, 9]
    assert sequences[:-5] == list(range(len(sequences) - 5))
    assert spool.dropped_frames == 10 - len(sequences)


def test_strange_files_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "0-empty.gop").touch()
    (tmp_path / "1-noise.gop").write_bytes(os.urandom(5000))
    spool = started(tmp_path)
    assert spool.streams() == []
    fill(spool, 2)
    assert drain(spool) == [0, 1]


def test_a_file_that_can_t_be_read_is_not_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Root, whom tests may run as, reads files of every other user; this nobody can.
    unreadable = tmp_path / "0001764000000000000-000001.gop"
    unreadable.symlink_to(unreadable)
    spool = started(tmp_path)
    spool.close(keep=False)
    assert unreadable.is_symlink()
    assert "can't be read" in caplog.text


def test_two_cameras_can_t_share_a_spool(tmp_path: Path) -> None:
    spool = started(tmp_path)
    with pytest.raises(LinkError, match="in use"):
        started(tmp_path)
    spool.close(keep=False)
    started(tmp_path).close(keep=False)


def test_a_disk_without_locks_is_not_another_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(LinkError, match=r"can't lock .*No locks available.*local disk"):
        Spool(tmp_path)


def test_kill_9_of_the_writer_loses_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path;"
        "from tests.camera.uplink import test_spool as t; s = t.started(Path(sys.argv[1]))\n"
        "for i in range(10**6):\n t.fill(s, 1, first=i); print(i, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parents[3])],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    written = -1
    for line in writer.stdout:
        written = int(line)
        if written >= 200:
            break
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    rest = writer.stdout.read()
    writer.stdout.close()
    written = max([written, *(int(line) for line in rest.split("\n")[:-1])])
    found = drain(started(tmp_path, "run2"), "run1")
    assert found == list(range(len(found)))
    assert len(found) >= written + 1, "every frame that was said to be written"


def _limited_program(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path;"
        "from tests.camera.uplink import test_spool as t;"
        "s = t.started(Path(sys.argv[1]));" + body
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parents[3])],
        capture_output=True, text=True, timeout=60, check=False, preexec_fn=_forbid_large_files,
    )  # fmt: skip


def _forbid_large_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write() then fails with EFBIG, as a full disk does
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


def test_a_disk_that_takes_no_more_passes_frames_through_memory(tmp_path: Path) -> None:
    done = _limited_program(
        tmp_path, "t.fill(s, 12); print(t.drain(s), s.disk_failures > 0, s.dropped_frames)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("] ")[0] + "]" == str(list(range(12))), done.stdout
    assert done.stdout.endswith("True 0\n")


def test_a_folder_that_vanishes_is_said_and_costs_no_frame_that_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = started(tmp_path / "spool")
    shutil.rmtree(tmp_path / "spool")
    fill(spool, 12)
    assert drain(spool) == list(range(12))
    (warning,) = caplog.records
    assert warning.getMessage() == "the spool can't be written"
    assert vars(warning)["reason"] == "No such file or directory"
    spool.close(keep=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_drops_the_oldest_and_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let a small disk be mounted")
    try:
        spool = started(disk)
        fill(spool, 200)
        assert spool.disk_failures > 0
        left = drain(spool)
        assert left == list(range(left[0], 200))
        assert left[0] % GOP == 0
        assert spool.dropped_frames == left[0] > 0
        spool.close(keep=False)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_the_end_of_a_camera_does_not_wait_for_a_disk_that_died(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    away = f"ws://127.0.0.1:{free_port()}"
    camera = accmpeg.stream(scene(12), away, spool=tmp_path, gop_frames=4, drain_s=0.3).start()
    monkeypatch.setattr(os, "fdatasync", failing)
    assert camera.wait(WAIT_S)
    started(tmp_path, "another").close(keep=True)


def test_a_spool_is_opened_before_the_source(scene: Any, tmp_path: Path) -> None:
    opened: list[str] = []

    def source() -> Source:
        opened.append("source")
        raise SourceError("no camera there")

    spool = started(tmp_path)
    away = f"ws://127.0.0.1:{free_port()}"
    with pytest.raises(LinkError, match="is in use"):
        accmpeg.stream(source, away, spool=tmp_path).start()
    assert not opened
    spool.close(keep=True)
    for _ in range(2):  # a source that is not there keeps no spool
        with pytest.raises(SourceError, match="no camera there"):
            accmpeg.stream(source, away, spool=tmp_path).start()


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LinkError, match="can't use"):
        started(tmp_path / "file" / "spool")


def test_without_repeats_answered_frames_of_a_long_group_are_let_go() -> None:
    spool = Spool(None, repeats=False)
    spool.begin(hello())
    fill(spool, GOP)
    assert [drain(spool), spool.newest_sequence("run1")] == [list(range(GOP)), GOP - 1]
    whole_bytes = spool.held_bytes
    spool.acknowledge("run1", 2)
    assert 0 < spool.held_bytes < whole_bytes / 2
    spool.acknowledge("run1", GOP - 1)
    assert spool.held_bytes == 0
    assert spool.streams() == []
    fill(spool, GOP + 2, first=GOP)
    assert drain(spool) == list(range(GOP, 2 * GOP + 2))
    spool.acknowledge("run1", GOP + 1)
    fill(spool, 2, first=2 * GOP + 2)
    assert drain(spool) == [2 * GOP + 2, 2 * GOP + 3]


def test_sent_frames_that_gave_way_are_lost_only_if_they_are_missed() -> None:
    spool = started(None, limit_bytes=3 * GOP * 1050)
    fill(spool, 3 * GOP)
    assert len(drain(spool)) == 3 * GOP
    fill(spool, 2 * GOP, first=3 * GOP)
    assert spool.dropped_frames == 0, "they may still be answered"
    spool.acknowledge("run1", 2)
    spool.rewind("run1", 2)
    left = drain(spool)
    assert left == list(range(left[0], 5 * GOP))
    assert spool.dropped_frames == left[0] - 3 > 0
    spool.rewind("run1", 2)
    assert spool.dropped_frames == left[0] - 3, "counted once"


def test_an_earlier_stream_is_sent_while_frames_of_the_present_one_come(tmp_path: Path) -> None:
    spool = started(tmp_path)
    fill(spool, 12)
    spool.close(keep=True)
    again = started(tmp_path, "run2")
    fill(again, 2)
    assert again.next("run1") is not None
    assert again.peek_encoded_us("run2") == 5000, "the encoder's thread asks this all the time"
    fill(again, 1, first=2)
    assert drain(again, "run1") == list(range(1, 12))
    assert drain(again, "run2") == [0, 1, 2]


def test_a_group_larger_than_the_bound_gives_way_too(folder: Path | None) -> None:
    spool = started(folder, limit_bytes=3500)
    assert [spool.append(each, unit(each)) for each in range(7)] == [
        True,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert spool.held_bytes <= 3500
    assert drain(spool) == [5, 6], "the frames before need a keyframe that is gone"
    assert spool.dropped_frames == 5


def test_damage_in_the_group_that_is_written_asks_for_a_keyframe(tmp_path: Path) -> None:
    spool = started(tmp_path)
    fill(spool, 3)
    (file,) = tmp_path.glob("*.gop")
    file.write_bytes(file.read_bytes()[:100])
    assert drain(spool) == []
    assert not spool.append(3, unit(3))
    fill(spool, 2, first=5)
    assert drain(spool) == [5, 6]
