"""A server whose DNN runs on an inference server: cameras don't notice more of it than answers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from accmpeg.errors import DnnAwayError
from accmpeg.protocol.backoff import Backoff
from accmpeg.server import ServerThread
from tests.dnn.inference_servers import GrpcServer, HttpServer, Model, remote_card
from tests.helpers import free_port
from tests.server.clients import Camera, Recorded, settings_of


@pytest.mark.parametrize("protocol", [HttpServer, GrpcServer])
def test_an_inference_server_that_goes_away_and_comes_back(
    protocol: type[HttpServer] | type[GrpcServer],
    start: Callable[..., ServerThread],
    recorded: Recorded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "LONGEST_S", 0.2)
    model = Model()
    with protocol(model) as there:
        server = start(dnns=(remote_card(tmp_path, there.address),))
        camera = Camera(server, recorded)
        camera.welcome()
        camera.send_frames(0, 10)
        first = camera.results(10)
        there.stop()
        camera.send_frames(10, 10)
        second = camera.results(10)
    with urlopen(f"{server.url}/readyz") as answer:
        (told,) = json.load(answer)["dnns"].values()
    assert told["device"] == there.address
    assert told["status"] == "failing"
    assert f"nothing listens at 127.0.0.1:{there.port}" in told["reason"]
    with protocol(model, there.port), camera:
        batcher = server.running.core.dnns.first
        time.sleep(0.5)  # longer than the wait after the last failure
        camera.send_frames(20, 20)
        third = camera.results(20)
        assert not batcher.problem
    answers = first + second + third
    assert [each.sequence for each in answers] == list(range(40))
    assert {each.dropped for each in first} == {None}
    assert {each.dropped for each in second} == {"failed"}
    assert {each.dropped for each in third} == {None}


def test_two_requests_are_on_their_way_unless_told_otherwise(
    start: Callable[..., ServerThread], tmp_path: Path
) -> None:
    with HttpServer(Model()) as there:
        card = remote_card(tmp_path, there.address)
        assert start(dnns=(card,), threads=None).running.core.dnns.first.copies == {"cpu": 2}
        assert start(dnns=(card,), copies=3).running.core.dnns.first.copies == {"cpu": 3}


def test_a_server_does_not_start_without_its_inference_server(tmp_path: Path) -> None:
    card = remote_card(tmp_path, f"grpc://127.0.0.1:{free_port()}")
    with pytest.raises(DnnAwayError, match="is the inference server running"):
        ServerThread(settings_of(card)).start()
