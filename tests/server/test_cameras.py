"""What is remembered of cameras, and that it stays bounded whatever they send."""

from collections import deque

import pytest

from accmpeg.server import cameras
from accmpeg.server.cameras import (
    REMEMBERED_CAMERAS,
    REMEMBERED_STREAMS,
    SENT_RESULTS,
    SENT_RESULTS_BYTES,
    CameraBook,
    CameraRecord,
    StreamMemory,
    percentiles,
)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles(deque()) == {}
    assert percentiles(deque([7.0])) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}
    assert percentiles(deque(float(i) for i in range(100, 0, -1))) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_connected_cameras_are_kept_and_absent_ones_forgotten() -> None:
    book = CameraBook()
    book.record("kept").connected = True
    for i in range(2 * REMEMBERED_CAMERAS):
        book.record(f"visitor-{i}")
    assert len(book.records) == REMEMBERED_CAMERAS
    assert book.connected == 1
    assert "kept" in book.records


def test_cameras_that_are_here_are_known_however_many_there_are() -> None:
    book = CameraBook()
    book.record("input").pulled = True  # and away, between two attempts
    for i in range(REMEMBERED_CAMERAS + 2):
        book.record(f"camera-{i}").connected = True
    late = book.record("late")
    assert book.records["late"] is late
    assert len(book.records) == REMEMBERED_CAMERAS + 4
    book.record("later")
    assert "late" not in book.records
    assert "input" in book.records


def test_a_camera_that_starts_anew_for_ever_leaves_little_behind() -> None:
    record = CameraRecord("gate")
    first = record.stream("run-0")
    for i in range(1, REMEMBERED_STREAMS):
        record.stream(f"run-{i}")
    assert record.stream("run-0") is first
    for i in range(REMEMBERED_STREAMS):
        record.stream(f"later-{i}")
    assert record.stream("run-0") is not first


def test_what_others_do_costs_a_camera_that_is_here_nothing() -> None:
    book = CameraBook()
    steady = book.record("steady")
    steady.connected = True
    memory = steady.stream("run")
    for i in range(2000):
        book.record(f"visitor-{i % 100}").stream(f"run-{i}")
    assert book.record("steady").stream("run") is memory


def test_sent_results_come_again_before_the_unsent_ones_and_are_bounded() -> None:
    memory = StreamMemory()
    for i in range(3):
        memory.unsent.append((i, f"{i}".encode()))
    assert [memory.next_unsent(keep=True) for _ in range(2)] == [b"0", b"1"]
    memory.send_again(0)
    assert list(memory.unsent) == [(1, b"1"), (2, b"2")]
    for size_bytes, kept in ((10, SENT_RESULTS), (1 << 20, SENT_RESULTS_BYTES >> 20)):
        memory = StreamMemory()
        for i in range(1000):
            memory.unsent.append((i, bytes(size_bytes)))
            while memory.unsent:
                memory.next_unsent(keep=True)
        memory.send_again(-1)
        assert [sequence for sequence, _ in memory.unsent] == list(range(1000 - kept, 1000))


def test_names_of_stages_from_a_hostile_camera_do_not_pile_up() -> None:
    record = CameraRecord("gate")
    for i in range(1000):
        record.count_stages({f"stage-{i}": 1.0})
    assert len(record.stages_ms) == 32
    assert set(record.summary()["stages_ms"]) == {f"stage-{i}" for i in range(32)}


@pytest.mark.parametrize("apart_s", [0.04, 1.0, 4.0, 8.0])
def test_rates_are_those_of_slow_cameras_too(monkeypatch: pytest.MonkeyPatch, apart_s: float) -> None:
    now_s = 1000.0
    monkeypatch.setattr(cameras.time, "monotonic", lambda: now_s)
    record = CameraRecord("gate")
    record.came()
    rates = []
    for _ in range(200):
        record.count_frame(1000)
        for _ in range(10):
            now_s += apart_s / 10
            rates.append(record.summary()["frames_per_s"])
    later = rates[len(rates) // 2 :]
    assert sum(later) / len(later) == pytest.approx(1 / apart_s, rel=0.1)
