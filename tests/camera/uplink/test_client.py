"""What an earlier run left in the spool, where the server or the way to it has something against it."""

from pathlib import Path
from typing import Any

import pytest

import accmpeg
from accmpeg.camera import FrameResult
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import Refused
from tests.camera.peer import peer
from tests.helpers import WAIT_S, free_port, until

GONE = "an-old-dnn"


@pytest.fixture(autouse=True)
def _quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.1)


def leave_behind(scene: Any, spool: Path, **options: Any) -> str:
    """A run whose server is away, and which leaves its five frames behind."""
    away = f"ws://127.0.0.1:{free_port()}"
    with accmpeg.stream(scene(5), away, spool=spool, drain_s=0.3, **options) as before:
        before.wait(WAIT_S)
    assert list(spool.glob("*.gop"))
    return before.stream_id


def test_an_earlier_run_that_is_refused_neither_ends_the_camera_nor_is_lost(
    scene: Any, tmp_path: Path
) -> None:
    earlier = leave_behind(scene, tmp_path, dnn=GONE)
    results: list[FrameResult] = []
    refusal = Refused(code="dnn", reason=f"no server DNN {GONE} here", retry=False)
    with (
        peer(refuse=refusal, refused_dnn=GONE) as server,
        accmpeg.stream(scene(5), server.url, spool=tmp_path, on_result=results.append) as camera,
    ):
        camera.wait(WAIT_S)
    assert [each.stream_id for each in results] == [camera.stream_id] * 5
    with (
        peer() as server,  # it has that DNN again
        accmpeg.stream(scene(5), server.url, spool=tmp_path, on_result=results.append) as camera,
    ):
        camera.wait(WAIT_S)
    assert [each.sequence for each in results if each.stream_id == earlier] == list(range(5))
    assert not list(tmp_path.glob("*.gop"))


def test_a_token_that_is_refused_for_a_while_costs_no_frame_of_an_earlier_run(
    scene: Any, tmp_path: Path
) -> None:
    earlier = leave_behind(scene, tmp_path)
    results: list[FrameResult] = []
    with (
        peer(token="right") as server,
        accmpeg.stream(
            scene(10_000), server.url, token="right", spool=tmp_path, on_result=results.append
        ) as camera,
    ):
        server.answers = False
        until(lambda: server.seen and len(server.seen[0].units) == 5)
        server.kill()
        server.token = "another"
        server.start()
        until(lambda: "refused the token" in str(camera.snapshot().get("last_problem")))
        server.kill()
        server.token, server.answers = "right", True
        server.start()
        until(lambda: any(each.stream_id == camera.stream_id for each in results))
    assert [each.sequence for each in results if each.stream_id == earlier] == list(range(5))
