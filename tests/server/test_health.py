"""How a camera is doing, by what became of its frames; and what the server says of a DNN that is no use."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accmpeg.server import ServerThread
from accmpeg.server.cameras import CameraRecord
from accmpeg.server.health import AnswerWindow, Health, judge
from tests.helpers import until
from tests.server.clients import Camera, Recorded
from tests.server.stubborn import Stubborn, write_card
from tests.server.test_app import ask

Start = Callable[..., ServerThread]


@pytest.fixture(autouse=True)
def _in_good_order() -> Iterator[None]:
    yield
    Stubborn.fails.clear()
    Stubborn.hangs.clear()
    Stubborn.goes_on.set()


@pytest.mark.parametrize(
    ("counts", "ages", "state", "code"),
    [
        ({"result": 100}, (0.1, 0.1, 0), "live", ""),
        ({"result": 95, "behind": 5}, (0.1, 0.1, 3), "live", ""),
        ({"result": 3, "behind": 97}, (0.1, 0.1, 3), "overloaded", "behind"),
        ({"behind": 10}, (0.1, 0.1, 3), "overloaded", "behind"),
        ({}, (0.1, 6.0, 3), "overloaded", "no_answer"),
        ({"failed": 10}, (0.1, 0.1, 0), "failing", "dnn_failed"),
        ({"result": 89, "undecodable": 11}, (0.1, 0.1, 0), "failing", "undecodable"),
        ({"failed": 20, "behind": 80}, (0.1, 0.1, 0), "failing", "dnn_failed"),
        ({}, (6.0, 6.0, 0), "silent", "no_frames"),
        ({}, (1.0, 1.0, 0), "live", ""),
    ],
)
def test_states_by_what_became_of_frames(
    counts: dict[str, int], ages: tuple[float, float, int], state: str, code: str
) -> None:
    found = judge(Counter(counts), frame_age_s=ages[0], answer_age_s=ages[1], waiting=ages[2])
    assert (found.state, found.code) == (state, code)
    assert (found.reason == "") == (state == "live")


def test_a_reason_says_what_is_wrong() -> None:
    ages = {"frame_age_s": 0.0, "answer_age_s": 0.0, "waiting": 1}
    assert judge(Counter(undecodable=3, result=1), error="damaged h264", **ages).reason == (
        "3 of 4 frames in 10 s could not be decoded: damaged h264"
    )
    assert judge(Counter(result=1), dnn_problem="an inference hangs", **ages) == Health(
        "failing", "dnn_failed", "the server DNN: an inference hangs"
    )


def test_only_the_last_ten_seconds_count() -> None:
    window = AnswerWindow()
    for second in range(100):
        window.add(float(second), "failed" if second < 90 else "result")
    assert window.counts(99.0) == Counter(result=10)
    assert window.counts(105.0) == Counter(result=4)
    assert window.counts(200.0) == Counter()


def test_who_is_away_says_since_when_and_why() -> None:
    record = CameraRecord("gate")
    record.came()
    record.left("goodbye (enough)")
    found = record.health()
    assert (found.state, found.code) == ("away", "left")
    assert found.reason.startswith("for 0 s: goodbye")


def summary_of(server: ServerThread) -> dict[str, object]:
    (found,) = json.loads(ask(server, "/v1/cameras")[2])["cameras"]
    assert isinstance(found, dict)
    return found


def test_a_dnn_that_fails_on_every_frame_is_said_everywhere_and_logged_by_rate(
    start: Start,
    recorded: Recorded,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accmpeg.server.batcher.DOWN_S", 0.0)
    server = start(dnns=(write_card(tmp_path),), copies=1)
    with Camera(server, recorded) as camera, caplog.at_level("WARNING", logger="accmpeg"):
        camera.welcome()
        camera.send_frames(0, 10)
        assert [each.dropped for each in camera.results(10)] == [None] * 10
        assert (summary_of(server)["health"], ask(server, "/readyz")[0]) == ("live", 200)
        Stubborn.fails.set()
        camera.send_frames(10, 30)
        assert [each.dropped for each in camera.results(30)] == ["failed"] * 30
        found = summary_of(server)
        assert (found["health"], found["health_code"]) == ("failing", "dnn_failed")
        assert "device-side assert" in str(found["health_reason"])
        status, _, body = ask(server, "/readyz")
        assert status == 503
        assert "device-side assert" in json.loads(body)["status"]
        text = ask(server, "/metrics")[2].decode()
        assert 'accmpeg_camera_health{camera="gate",reason="dnn_failed",state="failing"} 1.0' in text
        assert 'accmpeg_camera_health{camera="gate",reason="",state="live"} 0.0' in text
        assert 'accmpeg_dnn_up{dnn="stubborn"} 0.0' in text
        assert 'accmpeg_dnn_failed_frames_total{dnn="stubborn"} 30.0' in text
        Stubborn.fails.clear()
        camera.send_frames(0, 1, sequence=40)
        camera.results(1)
        assert ask(server, "/readyz")[0] == 200
    failures = [each for each in caplog.records if each.getMessage() == "inference failed"]
    assert 1 <= len(failures) < 30


def test_a_failure_must_last_before_the_server_is_not_ready(
    start: Start, recorded: Recorded, tmp_path: Path
) -> None:
    server = start(dnns=(write_card(tmp_path),), copies=1)
    Stubborn.fails.set()
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 12)
        camera.results(12)
        status, _, body = ask(server, "/readyz")
    assert status == 200
    assert json.loads(body)["status"] != "ready", "but it says so"


def test_a_dnn_that_hangs_is_given_up_and_taken_back(
    start: Start, recorded: Recorded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(dnns=(write_card(tmp_path),), copies=1, infer_timeout_s=0.4)
    Stubborn.goes_on.clear()
    with Camera(server, recorded) as camera, caplog.at_level(logging.WARNING, logger="accmpeg"):
        camera.welcome()
        camera.send_frames(0, 4)
        assert [each.dropped for each in camera.results(4)] == [None] * 4
        Stubborn.hangs.set()
        camera.send_frames(4, 20)
        assert [each.dropped for each in camera.results(20)] == ["failed"] * 20
        assert ask(server, "/readyz")[0] == 503
        assert summary_of(server)["health"] == "failing"
        Stubborn.hangs.clear()
        Stubborn.goes_on.set()
        until(lambda: ask(server, "/readyz")[0] == 200)
        camera.send_frames(24, 2)
        assert [each.dropped for each in camera.results(2)] == [None] * 2
    said = [each.getMessage() for each in caplog.records]
    assert "an inference hangs: its frames are answered as failed" in said
    assert "a hanging inference came back" in said


def test_a_server_whose_dnn_hangs_can_be_stopped(start: Start, recorded: Recorded, tmp_path: Path) -> None:
    server = start(dnns=(write_card(tmp_path),), copies=1, infer_timeout_s=0.4, drain_s=1.0)
    Stubborn.goes_on.clear()
    Stubborn.hangs.set()
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 3)
        camera.results(3)
        server.stop()
    assert server.running.stuck


def test_results_readiness_and_metrics_name_model_and_device(
    start: Start, recorded: Recorded, tmp_path: Path, card: Path
) -> None:
    results = tmp_path / "results.jsonl"
    server = start(results=results)
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 2)
        camera.results(2)
    model = json.loads(ask(server, "/readyz")[2])["dnns"]["accmpeg-demo-detector"]
    assert (model["card"], model["device"], len(model["sha256"])) == ("accmpeg-demo-detector", "cpu", 64)
    text = ask(server, "/metrics")[2].decode()
    assert f'device="cpu",dnn="accmpeg-demo-detector",sha256="{model["sha256"]}"}} 1.0' in text
    events = until(lambda: results.read_text().splitlines())
    assert json.loads(events[0])["model"] == {k: model[k] for k in ("card", "sha256", "device")}
