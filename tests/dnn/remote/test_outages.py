"""Inference servers that are slow, go away, and come back."""

import logging
import re
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from av import VideoFrame

from accmpeg.dnn.base import load_dnn
from accmpeg.errors import DnnAwayError, DnnError
from tests.dnn.inference_servers import GrpcServer, HttpServer, Model
from tests.dnn.remote.checks import PROTOCOLS, WriteCard, change, eventually, refusal, same
from tests.helpers import free_port


@pytest.mark.parametrize("scheme", PROTOCOLS)
def test_a_server_that_is_not_there(scheme: str, write: WriteCard) -> None:
    port = free_port()
    message = refusal(write(f"{scheme}://127.0.0.1:{port}"), DnnAwayError)
    assert message == f"nothing listens at 127.0.0.1:{port}: is the inference server running?"
    message = refusal(write(f"{scheme}://nowhere.invalid:8000"), DnnAwayError)
    assert "no host is called nowhere.invalid" in message


def test_a_slow_server_is_given_up_in_time_and_left_alone_for_a_while(
    server: Any, write: WriteCard, frames: list[VideoFrame]
) -> None:
    there = load_dnn(write(server.address, timeout_ms=300))
    server.model.wait_s = 4
    server.model.batches.clear()
    start_s = time.monotonic()
    with pytest.raises(DnnAwayError, match=f"{server.address} did not answer within 300 ms: "):
        there.infer(frames[0])
    with pytest.raises(DnnAwayError, match="; it is asked again in 0 s"):
        there.infer(frames[0])
    assert time.monotonic() - start_s < 3
    assert server.model.batches == [1]  # a time-out is not tried again
    server.model.wait_s = 0
    assert len(eventually(there, frames[0])) > 0


def test_an_answer_that_drips_is_given_up_in_time(
    http: HttpServer, write: WriteCard, frames: list[VideoFrame]
) -> None:
    there = load_dnn(write(http.address, timeout_ms=400))

    def drip(request: Any) -> bool:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        for _ in range(100):
            time.sleep(0.05)
            request.wfile.write(b" ")
        return True

    def cut(request: Any) -> bool:
        try:
            return drip(request)
        except OSError:
            return True

    http.wrong = cut
    start_s = time.monotonic()
    with pytest.raises(DnnAwayError, match="did not answer within 400 ms"):
        there.infer(frames[0])
    assert time.monotonic() - start_s < 2


def test_work_goes_on_when_the_server_is_back(
    server: Any, write: WriteCard, frames: list[VideoFrame], local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "accmpeg")
    there = load_dnn(write(server.address))
    same([there.infer(frames[0])], [load_dnn(local, threads=1).infer(frames[0])])
    server.stop()
    for _ in range(3):
        with pytest.raises(DnnAwayError, match=f"nothing listens at 127.0.0.1:{server.port}"):
            there.infer(frames[0])
    with type(server)(server.model, server.port):
        same([eventually(there, frames[0])], [load_dnn(local, threads=1).infer(frames[0])])
    reached = [each for each in caplog.records if each.message == "inference server reached"]
    assert [each.__dict__["server"] for each in reached] == ["tiny 1", "tiny 1"]


def test_a_grpc_server_that_only_says_no_is_named_and_left_alone_for_a_while(
    model: Model, write: WriteCard, frames: list[VideoFrame]
) -> None:
    with GrpcServer(model) as server:
        there = load_dnn(write(server.address))
        server.refuses = grpc.StatusCode.INTERNAL
        said = f"{server.address} refused (INTERNAL, no): see that server's log"
        assert refusal(write(server.address)) == said
        with pytest.raises(DnnError, match=r"failed: INTERNAL, no$"):
            there.infer(frames[0])
        with pytest.raises(DnnError, match=re.escape(said)):
            there.infer(frames[0])
        with pytest.raises(DnnAwayError, match=re.escape(f"{said}; it is asked again in ")):
            there.infer(frames[0])
        server.refuses = None
        assert len(eventually(there, frames[0])) > 0


def test_a_server_that_was_restarted_between_two_frames_costs_none(
    server: Any, write: WriteCard, frames: list[VideoFrame]
) -> None:
    there = load_dnn(write(server.address))
    there.infer(frames[0])
    server.stop()
    with type(server)(server.model, server.port):
        assert len(there.infer(frames[0])) > 0


def test_a_broken_connection_is_tried_once_more(
    http: HttpServer, write: WriteCard, frames: list[VideoFrame]
) -> None:
    there = load_dnn(write(http.address))
    broken = []

    def hang_up(request: Any) -> bool:
        if not request.path.endswith("/infer") or len(broken) >= 2:
            return False
        broken.append(request.path)
        request.close_connection = True
        return True

    http.wrong = hang_up
    broken.append("one is enough")
    assert len(there.infer(frames[0])) > 0
    broken.clear()
    with pytest.raises(DnnAwayError, match="broke the connection"):
        there.infer(frames[0])
    assert len(broken) == 2


def test_a_server_that_comes_back_as_another_is_held_against_the_card(
    server: Any, write: WriteCard, frames: list[VideoFrame]
) -> None:
    there = load_dnn(write(server.address))
    server.stop()
    change(server.model, inputs__name="pictures")
    with type(server)(server.model, server.port):
        with pytest.raises(DnnError):  # over gRPC the channel is the same: the first request finds out
            there.infer(frames[0])
        with pytest.raises(DnnError, match="has the input 'pictures'"):
            there.infer(frames[0])
