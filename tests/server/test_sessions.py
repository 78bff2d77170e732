"""Cameras over real sockets: every frame answered once and in order, resumption, damage, time, drain."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from accmpeg.protocol.wire import Feedback, Goodbye, Refused, TimeReply, TimeRequest, Welcome
from accmpeg.server import ServerThread
from accmpeg.server.memory import LEAST_FRAMES
from accmpeg.tasks.result_json import from_json
from tests.helpers import until
from tests.server.clients import Camera, Recorded, record, unit_message
from tests.server.stubborn import write_card

Start = Callable[..., ServerThread]


def test_every_frame_is_answered_once_and_in_order(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="order") as camera:
        welcome = camera.welcome()
        assert (welcome.dnn, welcome.task, welcome.resume_after) == (
            "accmpeg-demo-detector",
            "detection",
            -1,
        )
        camera.send_frames(0, len(recorded.units))
        results = camera.results(len(recorded.units))
    assert [each.sequence for each in results] == list(range(len(recorded.units)))
    assert [each.captured_us for each in results] == [1000 * i for i in range(len(recorded.units))]
    assert all(each.dropped is None for each in results), "with drop='none' every frame is inferred"
    assert {"decode", "queue", "infer", "total"} <= set(results[0].server_ms)
    found = [from_json(each.result or {}) for each in results]
    assert sum(len(each) for each in found) > 0
    boxes = np.concatenate([each.xyxy for each in found])
    assert boxes[:, 2].max() > recorded.width_px, "boxes are in the source's pixels, twice the stream's"
    assert boxes[:, 2].max() <= 2 * recorded.width_px


def test_a_flooded_server_drops_all_but_the_newest_and_says_so(
    server: ServerThread, recorded: Recorded
) -> None:
    with Camera(server, recorded, camera="flood", drop="latest") as camera:
        camera.welcome()
        sender = threading.Thread(target=camera.send_frames, args=(0, len(recorded.units)))
        sender.start()
        results = camera.results(len(recorded.units))
        sender.join()
    assert [each.sequence for each in results] == list(range(len(recorded.units)))
    assert all((each.result is None) == (each.dropped is not None) for each in results)
    assert results[-1].dropped is None, "the newest frame wins"


def test_feedback_and_time(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="time") as camera:
        camera.welcome()
        camera.send_frames(0, 3)
        camera.results(3)
        camera.send(TimeRequest(sent_us=77))
        reply = camera.wait_for(TimeReply)
        assert isinstance(reply, TimeReply)
        assert reply.sent_us == 77
        assert reply.replied_us >= reply.received_us > 0
        feedback = camera.wait_for(Feedback)
        assert isinstance(feedback, Feedback)
        assert feedback.highest_sequence == 2
        assert feedback.received_bytes == sum(unit.size_bytes for unit in recorded.units[:3])
        assert (feedback.waiting, feedback.needs_keyframe) == (0, False)


def test_damage_asks_for_a_keyframe_and_heals_at_it(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="damage") as camera:
        camera.welcome()
        camera.send_frames(0, 3)
        damaged = recorded.units[3]
        camera.send(unit_message(3, damaged), b"\0\0\1" + b"\xff" * 40)
        camera.send_frames(4, 8)
        results = camera.results(12)
    assert [each.sequence for each in results] == list(range(12))
    assert [each.dropped for each in results[:3]] == [None] * 3
    assert [each.dropped for each in results[3:10]] == ["undecodable"] * 7
    assert [each.dropped for each in results[10:]] == [None] * 2, "frame 10 is a keyframe"
    assert any(isinstance(each, Feedback) and each.needs_keyframe for each in camera.others)


def test_a_stream_resumes_and_a_new_one_begins_anew(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="resume") as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        camera.results(5)
    with Camera(server, recorded, camera="resume") as camera:
        assert camera.welcome().resume_after == 4
        camera.send_frames(10, 2, sequence=3)  # 3 and 4 were had, and are not answered again
        camera.send_frames(10, 3, sequence=5)
        assert [each.sequence for each in camera.results(3)] == [5, 6, 7]
    with Camera(server, recorded, camera="resume", stream_id="run-2") as camera:
        assert camera.welcome().resume_after == -1


def test_frames_after_a_break_build_on_what_is_sent_again(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="spooled") as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        camera.results(5)
    with Camera(server, recorded, camera="spooled") as camera:
        assert camera.welcome().resume_after == 4
        # From the keyframe on, as a camera with a spool does; frames 5 to 7 are no keyframes.
        camera.send_frames(0, 8)
        results = camera.results(3)
        assert [each.sequence for each in results] == [5, 6, 7]
        assert [each.dropped for each in results] == [None] * 3
        feedback = camera.wait_for(Feedback)
        assert isinstance(feedback, Feedback)
        assert feedback.highest_sequence == 7


def test_results_lost_on_their_way_come_again_to_a_camera_that_says_so(
    server: ServerThread, recorded: Recorded
) -> None:
    with Camera(server, recorded, camera="unlucky") as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        camera.results(5)
    with Camera(server, recorded, camera="unlucky", answered=2) as camera:
        assert camera.welcome().resume_after == 4
        camera.send_frames(0, 6)
        assert [each.sequence for each in camera.results(3)] == [3, 4, 5]


def test_frames_that_a_slow_dnn_has_not_answered_when_the_link_breaks_are_asked_for_again(
    start: Start, recorded: Recorded, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    server = start(dnns=(write_card(tmp_path, hang_file=slow),), copies=1, drain_s=0.2)
    slow.touch()
    with Camera(server, recorded, camera="kept", drop="none") as camera:
        camera.welcome()
        camera.send_frames(0, 15)
        until(lambda: server.running.sessions["kept"]._memory.last_sequence == 14)
    until(lambda: not server.running.sessions)
    slow.unlink()
    with Camera(server, recorded, camera="kept", drop="none", answered=-1) as camera:
        assert camera.welcome().resume_after == -1
        camera.send_frames(0, 15)
        results = camera.results(15)
    assert [each.sequence for each in results] == list(range(15))
    assert {each.dropped for each in results} == {None}, "no frame gives way to newer ones"


def test_what_another_server_answered_is_not_answered_again(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="moved", answered=4) as camera:
        assert camera.welcome().resume_after == 4
        camera.send_frames(0, 8)
        results = camera.results(3)
    assert [(each.sequence, each.dropped) for each in results] == [(5, None), (6, None), (7, None)]


def test_a_camera_that_comes_back_takes_over_its_dead_connection(
    server: ServerThread, recorded: Recorded
) -> None:
    old = Camera(server, recorded, camera="twice")
    old.welcome()
    old.send_frames(0, 4)
    old.results(4)
    with Camera(server, recorded, camera="twice") as new:
        assert new.welcome().resume_after == 3
        new.send_frames(10, 2, sequence=4)
        assert [each.sequence for each in new.results(2)] == [4, 5]
    old.close()


def test_a_second_camera_of_one_name_is_refused_and_told_why(
    start: Start, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    with Camera(server, recorded, stream_id="run-1") as first:
        first.welcome()
        with (
            caplog.at_level("WARNING", logger="accmpeg"),
            Camera(server, recorded, stream_id="run-2") as second,
        ):
            refusal = second.greet()
        assert isinstance(refusal, Refused)
        assert (refusal.code, refusal.retry) == ("busy", True)
        assert "same name, gate, streams already, from 127.0.0.1" in refusal.reason
        assert any("same name" in str(each.__dict__.get("reason")) for each in caplog.records)
        first.send_frames(0, 2)
        assert len(first.results(2)) == 2, "undisturbed"
        health = server.running.core.book.records["gate"].health()
        assert (health.state, health.code) == ("live", "rival")
    with Camera(server, recorded, stream_id="run-2") as second:
        assert isinstance(second.greet(), Welcome), "the first has left"


def test_a_camera_that_was_started_anew_takes_the_place_of_a_silent_connection(
    start: Start, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accmpeg.server.web.admission.HEARD_S", 0.0)
    monkeypatch.setattr("accmpeg.server.web.admission.RIVAL_WAIT_S", 0.1)
    server = start()
    with (
        Camera(server, recorded, stream_id="run-1") as dead,
        Camera(server, recorded, stream_id="run-2") as new,
    ):
        dead.welcome()
        assert isinstance(new.greet(), Welcome)
        new.send_frames(0, 2)
        assert len(new.results(2)) == 2


def test_a_camera_does_not_get_the_name_of_an_input(start: Start, recorded: Recorded, tmp_path: Path) -> None:
    server = start(inputs=(("yard", str(tmp_path / "nosuch.mp4")),))
    with Camera(server, recorded, camera="yard") as camera:
        refusal = camera.greet()
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.retry) == ("busy", False)
    assert "input of the same name, yard" in refusal.reason


def test_a_probe_is_answered_displaces_nobody_and_leaves_nothing(
    start: Start, recorded: Recorded, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    server = start(results=results)
    with Camera(server, recorded) as camera, Camera(server, recorded, stream_id="probe", probe=True) as probe:
        camera.welcome()
        probe.welcome()
        for each in (camera, probe):
            each.send_frames(0, 3)
            assert len(each.results(3)) == 3
        assert server.running.core.book.records["gate"].frames == 3
    until(lambda: not server.running.sessions)
    assert len(server.running.core.book.records) == 1
    assert server.running.core.memory.waiting_frames("? gate", 8) == 1
    server.stop()
    assert len(results.read_text().splitlines()) == 3


def test_memory_for_pictures_decides_how_many_cameras_come_and_how_much_waits(
    start: Start, recorded: Recorded
) -> None:
    frame_bytes = 320 * 180 * 3 // 2
    server = start(memory_bytes=2 * LEAST_FRAMES * frame_bytes + 2 * frame_bytes)
    with Camera(server, recorded, camera="one") as one, Camera(server, recorded, camera="two") as two:
        one.welcome()
        assert server.running.core.memory.waiting_frames("one", 8) == 8
        two.welcome()
        assert server.running.core.memory.waiting_frames("one", 8) == 2
        with Camera(server, recorded, camera="three") as three:
            refusal = three.greet()
        assert isinstance(refusal, Refused)
        assert (refusal.code, refusal.retry) == ("busy", True)
        assert "--memory" in refusal.reason
        with ThreadPoolExecutor(4) as threads:
            for each in (one, two):
                threads.submit(each.send_frames, 0, 40)
            for answers in threads.map(lambda each: each.results(40), (one, two)):
                assert [answer.dropped for answer in answers] == [None] * 40
        larger = record(width_px=640, height_px=360, frames=1).units[0]
        one.send(unit_message(40, larger, size_px=(640, 360)), larger.data)
        refused = one.wait_for(Refused)
        assert isinstance(refused, Refused)
        assert "--memory" in refused.reason
    with Camera(server, recorded, camera="three") as three:
        until(lambda: not server.running.sessions)
        assert isinstance(three.greet(), Welcome)


def test_goodbye_answers_what_came_first(server: ServerThread, recorded: Recorded) -> None:
    with Camera(server, recorded, camera="bye") as camera:
        camera.welcome()
        camera.send_frames(0, 8)
        camera.send(Goodbye(reason="enough"))
        assert [each.sequence for each in camera.results(8)] == list(range(8))
        assert isinstance(camera.wait_for(Goodbye), Goodbye)


def test_a_smaller_stream_goes_on_at_a_keyframe(server: ServerThread, recorded: Recorded) -> None:
    small = record(width_px=160, height_px=90, frames=3)
    with Camera(server, recorded, camera="shrink") as camera:
        camera.welcome()
        camera.send_frames(0, 3)
        for i, unit in enumerate(small.units):
            size = (160, 90) if i == 0 else None
            camera.send(unit_message(3 + i, unit, size_px=size), unit.data)
        assert [each.dropped for each in camera.results(6)] == [None] * 6


def test_cameras_at_once_share_batches_fairly(start: Start, recorded: Recorded) -> None:
    server = start(batch_window_ms=200)
    names = ["north", "south", "west"]
    cameras = [Camera(server, recorded, camera=name) for name in names]
    for camera in cameras:
        camera.welcome()
    with ThreadPoolExecutor(6) as threads:
        for camera in cameras:
            threads.submit(camera.send_frames, 0, 20)
        answers = list(threads.map(lambda camera: camera.results(20), cameras))
    for results in answers:
        assert [each.sequence for each in results] == list(range(20))
        assert all(each.dropped is None for each in results)
    text = server.running.core.metrics.text().decode()
    value = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if line[0] != "#"}
    batches = value['accmpeg_batch_frames_count{dnn="accmpeg-demo-detector"}']
    assert value['accmpeg_batch_frames_sum{dnn="accmpeg-demo-detector"}'] == 60
    assert batches < 45, "cameras share batches"
    for camera in cameras:
        camera.close()


def test_a_stopped_server_answers_and_says_goodbye(start: Start, recorded: Recorded) -> None:
    server = start()
    with Camera(server, recorded, camera="drain") as camera:
        camera.welcome()
        camera.send_frames(0, 6)
        camera.results(1)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        goodbye = camera.wait_for(Goodbye)
        stopper.join()
    assert isinstance(goodbye, Goodbye)
    answered = [each.sequence for each in camera.others if hasattr(each, "result")]
    assert answered == list(range(1, 1 + len(answered))), "no answer is lost between or doubled"


def test_a_draining_server_takes_no_camera(start: Start, recorded: Recorded) -> None:
    server = start()
    server.running.draining = True
    with Camera(server, recorded) as camera:
        refusal = camera.greet()
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.retry) == ("busy", True)


def test_cameras_come_and_go(server: ServerThread, recorded: Recorded) -> None:
    for i in range(3):
        with Camera(server, recorded, camera="visitor", stream_id=f"run-{i}") as camera:
            assert isinstance(camera.greet(), Welcome)
    core = server.running.core
    until(lambda: "visitor" not in server.running.sessions)
    assert not core.book.records["visitor"].connected
