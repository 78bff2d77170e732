"""What is remembered of cameras, and that it stays bounded whatever they send."""

from collections import deque

from accmpeg.server.cameras import (
    REMEMBERED_CAMERAS,
    REMEMBERED_STREAMS,
    SENT_RESULTS,
    SENT_RESULTS_BYTES,
    STREAMS_WITH_RESULTS,
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


def test_a_camera_that_starts_anew_for_ever_leaves_little_behind() -> None:
    book = CameraBook()
    for i in range(2 * REMEMBERED_STREAMS):
        memory = book.stream("gate", f"run-{i}")
        memory.last_sequence = i
        memory.unsent.append((0, b"result"))
    streams = [book.stream("gate", f"run-{i}") for i in range(REMEMBERED_STREAMS, 2 * REMEMBERED_STREAMS)]
    assert streams[-1].last_sequence == 2 * REMEMBERED_STREAMS - 1
    assert sum(len(memory.unsent) for memory in streams) <= 2 * STREAMS_WITH_RESULTS


def test_sent_results_come_again_before_the_unsent_ones_and_are_bounded() -> None:
    memory = StreamMemory()
    for i in range(3):
        memory.unsent.append((i, f"{i}".encode()))
    assert [memory.next_unsent(keep=True) for _ in range(2)] == [b"0", b"1"]
    memory.send_again(0)
    assert list(memory.unsent) == [(1, b"1"), (2, b"2")]
    for size_bytes, kept in ((10, SENT_RESULTS), (1 << 20, SENT_RESULTS_BYTES >> 20)):
        for i in range(1000):
            memory.unsent.append((i, bytes(size_bytes)))
            while memory.unsent:
                memory.next_unsent(keep=True)
        memory.send_again(-1)
        assert [sequence for sequence, _ in memory.unsent] == list(range(1000 - kept, 1000))
        memory.forget_results()


def test_names_of_stages_from_a_hostile_camera_do_not_pile_up() -> None:
    record = CameraRecord("gate")
    for i in range(1000):
        record.count_stages({f"stage-{i}": 1.0})
    assert len(record.stages_ms) == 32
    assert set(record.summary()["stages_ms"]) == {f"stage-{i}" for i in range(32)}
