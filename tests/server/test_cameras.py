"""What is remembered of cameras, and that it stays bounded whatever they send."""

from collections import deque

from accmpeg.server.cameras import (
    REMEMBERED_CAMERAS,
    REMEMBERED_STREAMS,
    STREAMS_WITH_RESULTS,
    CameraBook,
    CameraRecord,
    clock_us,
    percentiles,
)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles(deque()) == {}
    assert percentiles(deque([7.0])) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}
    assert percentiles(deque(float(i) for i in range(100, 0, -1))) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_the_clock_never_runs_backwards() -> None:
    moments = [clock_us() for _ in range(1000)]
    assert moments == sorted(moments)


def test_connected_cameras_are_kept_and_absent_ones_forgotten() -> None:
    book = CameraBook()
    book.record("kept").connected = True
    for i in range(2 * REMEMBERED_CAMERAS):
        book.record(f"visitor-{i}")
    assert len(book.records) == REMEMBERED_CAMERAS
    assert book.connected == 1
    assert "kept" in book.records


def test_a_camera_that_starts_anew_for_ever_leaves_little_behind() -> None:
    book = CameraBook()
    for i in range(2 * REMEMBERED_STREAMS):
        memory = book.stream("gate", f"run-{i}")
        memory.last_sequence = i
        memory.unsent.append(b"result")
    streams = [book.stream("gate", f"run-{i}") for i in range(REMEMBERED_STREAMS, 2 * REMEMBERED_STREAMS)]
    assert streams[-1].last_sequence == 2 * REMEMBERED_STREAMS - 1
    assert sum(len(memory.unsent) for memory in streams) <= 2 * STREAMS_WITH_RESULTS


def test_names_of_stages_from_a_hostile_camera_do_not_pile_up() -> None:
    record = CameraRecord("gate")
    for i in range(1000):
        record.count_stages({f"stage-{i}": 1.0})
    assert len(record.stages_ms) == 32
    assert set(record.summary()["stages_ms"]) == {f"stage-{i}" for i in range(32)}
