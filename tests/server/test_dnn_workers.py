"""Several workers of one DNN: who serves whom, and what a broken one does to the others."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from av import VideoFrame

from accmpeg.errors import UsageError
from accmpeg.protocol.wire import ResultMessage
from accmpeg.server import ServerSettings, ServerThread
from accmpeg.server.batcher import Batcher
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.lanes import Job, Outcome
from tests.server.clients import Camera, Recorded, settings_of
from tests.server.test_app import ask
from tests.server.test_batcher import PacedDnn, loaded

Start = Callable[..., ServerThread]
FRAMES = 40


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})


@pytest.fixture
def workers() -> Iterator[DnnWorkers]:
    with ExitStack() as stack:
        batchers = {name: Batcher("net", loaded(PacedDnn(0)), max_batch=1, window_ms=0) for name in "ab"}
        for each in batchers.values():
            stack.callback(each.close)
        yield DnnWorkers(batchers)


def loads(workers: DnnWorkers) -> list[float]:
    return [sum(lane.frame_rate for lane in each.lanes) for each in workers.batchers.values()]


def test_a_new_camera_goes_to_the_worker_with_the_least_to_do_and_stays(workers: DnnWorkers) -> None:
    lanes = [workers.open_lane(f"{rate}", 8, None, rate) for rate in (30, 10, 10, 5)]
    assert loads(workers) == [30, 25]
    workers.close_lane(lanes[0])
    assert loads(workers) == [0, 25], "those that are here stay where they are"
    workers.open_lane("new", 8, None, 30)
    assert loads(workers) == [30, 25]


def test_frames_of_a_camera_that_has_left_are_dropped(workers: DnnWorkers) -> None:
    lane = workers.open_lane("gate", 8, None, 30)
    workers.close_lane(lane)
    workers.close_lane(lane)
    outcomes: list[Outcome] = []
    workers.submit(lane, Job(VideoFrame(16, 16), (16, 16), outcomes.append))
    assert [each.dropped for each in outcomes] == ["behind"]


def test_frames_of_a_camera_that_leaves_are_no_loss_of_the_dnn(workers: DnnWorkers) -> None:
    stays, leaves = (workers.open_lane(name, 8, None, 30) for name in ("gate", "yard"))
    rate = workers.batchers["b"].result_rate
    assert rate.per_s(0.0, 1, 30) is None
    for _ in range(40):
        workers.saw(leaves, answered=True)
    workers.close_lane(leaves)
    for _ in range(8):  # what waited when it left
        workers.saw(leaves, answered=False)
    assert rate.per_s(1.0, 1, 30) is None, "nobody is told to send less"
    workers.close_lane(stays)


def test_workers_have_names(card: Path) -> None:
    assert ServerSettings(device="cpu").places == {"cpu": "cpu"}
    assert ServerSettings(workers=2).places == {"cpu#1": "cpu", "cpu#2": "cpu"}
    assert ServerSettings(device="cuda,cuda:1").places == {"cuda:0": "cuda:0", "cuda:1": "cuda:1"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 0}, "--workers 0 on cpu: give 1 to 2, there are 2 cores"),
        ({"workers": 3}, "--workers 3 on cpu: give 1 to 2, there are 2 cores"),
        (
            {"workers": 9, "device": "cuda"},
            "--workers 9 on cuda: give 1 to 8, more only take",
        ),
        ({"device": "cuda:0,cuda"}, "--device cuda:0,cuda names a device twice"),
        ({"device": "cpu,tpu"}, "there is no device 'tpu'"),
        ({"device": "cuda:0,"}, "there is no device ''"),
    ],
)
def test_what_can_not_be_meant_is_said_in_a_line(card: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as failed:
        settings_of(card, **settings).check()
    assert "\n" not in str(failed.value)


def rows(server: ServerThread) -> dict[str, dict[str, Any]]:
    return {each["worker"]: each for each in json.loads(ask(server, "/v1/cameras")[2])["workers"]}


def answers(cameras: dict[str, Camera], first: int, count: int) -> dict[str, list[ResultMessage]]:
    """Sends frames of all cameras in turns; each must get its answers in order."""
    for i in range(first, first + count):
        for camera in cameras.values():
            camera.send_frames(i % FRAMES, 1, sequence=i)
    found = {name: camera.results(count) for name, camera in cameras.items()}
    for each in found.values():
        assert [result.sequence for result in each] == list(range(first, first + count))
    return found


def test_two_workers_share_cameras_and_a_broken_one_takes_no_other_with_it(
    start: Start, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(workers=2)
    with ExitStack() as stack:
        cameras = {
            name: stack.enter_context(Camera(server, recorded, camera=name))
            for name in ("gate", "roof", "yard", "hall")
        }
        for camera in cameras.values():
            camera.welcome()
        found = rows(server)
        assert {name: each["cameras"] for name, each in found.items()} == {
            "cpu#1": ["gate", "yard"],
            "cpu#2": ["hall", "roof"],
        }
        whole = answers(cameras, 0, 20)
        assert {result.dropped for each in whole.values() for result in each} == {None}

        (workers,) = server.running.core.dnns.values()
        broken = workers.batchers["cpu#2"].dnn.network

        def fail(batch: Any) -> Any:
            raise RuntimeError("the GPU has fallen off the bus")

        with monkeypatch.context() as patch:
            patch.setattr(broken, "run", fail)
            hit = answers(cameras, 20, 40)
            assert "fallen off the bus" in rows(server)["cpu#2"]["problem"]
            assert ask(server, "/readyz")[0] == 200
            text = ask(server, "/metrics")[2].decode()
            assert 'accmpeg_worker_up{dnn="accmpeg-demo-detector",worker="cpu#1"} 1.0' in text
            assert 'accmpeg_worker_up{dnn="accmpeg-demo-detector",worker="cpu#2"} 0.0' in text
            assert 'accmpeg_dnn_up{dnn="accmpeg-demo-detector"} 1.0' in text
        for name in ("gate", "yard"):
            assert {result.dropped for result in hit[name]} == {None}, name
        lost = Counter(result.dropped for name in ("hall", "roof") for result in hit[name])
        assert 10 <= lost["failed"] < 40, "after ten failures in a row its cameras go elsewhere"
        assert all(result.dropped is None for name in ("hall", "roof") for result in hit[name][-10:])
        assert rows(server)["cpu#1"]["cameras"] == ["gate", "hall", "roof", "yard"]

        monkeypatch.setattr("accmpeg.server.batcher.FAILING_S", 0.0)  # it may be tried again at once
        healed = answers(cameras, 60, 10)
        assert {result.dropped for each in healed.values() for result in each} == {None}
        assert rows(server)["cpu#2"]["cameras"] == ["hall", "roof"], "they are back where they belong"


def test_an_exchanged_dnn_comes_to_every_worker(start: Start, recorded: Recorded, card: Path) -> None:
    server = start(workers=2, dnn_folder=card.parent)
    status, _, body = ask(server, f"/v1/dnns/accmpeg-demo-detector?card={card.name}", method="PUT")
    assert status == 200, body
    assert [each["worker"] for each in json.loads(body)["workers"]] == ["cpu#1", "cpu#2"]
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        assert [each.dropped for each in camera.results(5)] == [None] * 5
