"""What a remote card says: where, with which token, and a model that must be what the card says."""

import logging
from pathlib import Path
from typing import Any

import pytest
from av import VideoFrame

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card, write_card
from accmpeg.errors import CardError, DnnAwayError, DnnError
from tests.dnn.inference_servers import DETECTOR, HttpServer, Model
from tests.dnn.remote.checks import PROTOCOLS, WriteCard, change, refusal


def test_a_path_before_the_protocol_s_own(http: HttpServer, write: WriteCard) -> None:
    assert "nothing called the model 'detector'" not in refusal(write(f"{http.address}/gate"), DnnError)
    assert http.requests[0] == "/gate/v2/health/live"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_and_a_token(
    protocol: str,
    model: Model,
    write: WriteCard,
    certificate: tuple[Path, Path],
    frames: list[VideoFrame],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model.token = "t0ken-of-the-inference-server"
    caplog.set_level(logging.DEBUG, "accmpeg")
    with PROTOCOLS[protocol](model, certificate=certificate) as server:
        assert len(refusal(write(server.address), DnnAwayError)) < 400  # unknown authority
        assert "refused the token" in refusal(write(server.address, ca_file="server.pem"))
        (tmp_path / "token").write_text(model.token + "\n")
        secret = {"token_file": "token"}
        there = load_dnn(write(server.address, ca_file="server.pem", **secret))
        assert len(there.infer(frames[0])) > 0
        monkeypatch.setenv("GATE_TOKEN", model.token)
        load_dnn(write(server.address, ca_file="server.pem", token_variable="GATE_TOKEN"))
        monkeypatch.setenv("GATE_TOKEN", "wr0ng-token")
        said = refusal(write(server.address, ca_file="server.pem", token_variable="GATE_TOKEN"))
        assert "refused the token" in said
    shown = said + caplog.text + repr(vars(there.network)) + str(there.network._model)  # type: ignore[attr-defined]
    assert "t0ken" not in shown
    assert "wr0ng" not in shown


def test_a_token_file_that_changes_is_read_again(
    server: Any, write: WriteCard, frames: list[VideoFrame], tmp_path: Path
) -> None:
    server.model.token = "first"
    (tmp_path / "token").write_text("first")
    there = load_dnn(write(server.address, token_file="token"))
    (tmp_path / "token").write_text("second")
    there.infer(frames[0])
    server.model.token = "second"
    with pytest.raises(DnnError, match="refused the token"):
        there.infer(frames[0])
    assert len(there.infer(frames[0])) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "triton:8001"}, "is no inference server: give http://host:port"),
        ({"address": "ftp://triton:8001"}, "is no inference server: give http://host:port"),
        ({"address": "http://me:s3cret@triton"}, "may hold no secret"),
        ({"address": "http://triton/v2?key=s3cret"}, "may hold no secret"),
        ({"address": "grpc://triton"}, "give grpc://host:port"),
        ({"address": "http://triton:eighty"}, "the port must be a number"),
        ({"timeout": 3}, "unknown key 'timeout': did you mean 'timeout_ms'?"),
        ({"timeout_ms": 0}, "timeout_ms: Input should be greater than or equal to 1"),
        ({"token_variable": "GATE_TOKEN"}, "the variable GATE_TOKEN is not set: it must hold the token"),
        ({"token_file": "nowhere"}, "nowhere can't be read (No such file or directory)"),
        ({"token_variable": "A", "token_file": "b"}, "give one of them"),
        ({"ca_file": "remote.card.toml"}, "there is no certificate in it"),
        ({"ca_file": "nowhere"}, "No such file or directory"),
        ({"model": "../x"}, "is no name of a model"),
    ],
)
def test_what_a_card_can_t_mean(write: WriteCard, options: dict[str, Any], said: str) -> None:
    message = refusal(write(**{"address": "http://127.0.0.1:9", **options}), CardError)
    assert said in message
    assert "s3cret" not in message
    assert message.startswith("accmpeg-demo-detector: ")


def test_a_card_without_an_address(write: WriteCard, tmp_path: Path) -> None:
    path = write("http://x")
    write_card(read_card(path).model_copy(update={"options": {}}), path)
    assert "the key 'address' is missing" in refusal(path, CardError)


def test_a_token_does_not_cross_the_network_in_the_open(
    write: WriteCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE_TOKEN", "t0ken")
    path = write("http://triton.example:8000", token_variable="GATE_TOKEN")
    assert "would cross the network unencrypted" in refusal(path, CardError)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_ready": False}, "the model 'detector' at {} is not ready: load it there"),
        ({"is_ready": False, "server_is_ready": False}, "{} is not ready yet: wait"),
        (
            {"inputs__name": "pictures"},
            "at {} has the input 'pictures', but the card of accmpeg-demo-detector",
        ),
        ({"inputs__shape": [-1, -1, -1, 3]}, "reads NHWC, but the card of accmpeg-demo-detector says NCHW"),
        ({"inputs__shape": [1, 3, 320, 320]}, "takes only 320x320 pictures, but the card"),
        ({"inputs__shape": [-1, 2, 28, 28]}, "not pictures of (batch, 3, height, width)"),
        ({"inputs__datatype": "INT64"}, "reads INT64: export the network with a float32"),
        ({"inputs__datatype": "UINT8"}, "reads uint8 pixels and normalises them itself"),
        ({"inputs": []}, "names no inputs, so the card of accmpeg-demo-detector can't be held against it"),
        ({"outputs": []}, "names no outputs"),
        ({"outputs__name": "boxes"}, "has no output 'output0' (it has boxes): correct head.outputs"),
    ],
    ids=str,
)
def test_a_server_that_says_something_else_than_the_card(
    server: Any, write: WriteCard, changes: dict[str, Any], said: str
) -> None:
    change(server.model, **changes)
    head = read_card(DETECTOR).head.model_copy(update={"outputs": ["output0"]})
    assert said.format(server.address) in refusal(write(server.address, head=head))


def test_two_inputs(server: Any, write: WriteCard) -> None:
    server.model.inputs.append(server.model.inputs[0] | {"name": "sizes"})
    assert "has 2 inputs ('images', 'sizes')" in refusal(write(server.address))


def test_a_model_or_version_that_is_not_there(server: Any, write: WriteCard) -> None:
    message = refusal(write(server.address, model="street", version=7), DnnAwayError)
    assert message.startswith(f"there is nothing called the model 'street' (version 7) at {server.address} (")
    assert "correct model in the card" in message


def test_half_precision_needs_bytes(http: HttpServer, write: WriteCard) -> None:
    change(http.model, extensions=[], inputs__datatype="FP16")
    assert "reads FP16, which JSON can't carry: use grpc://" in refusal(write(http.address))


def test_no_inference_server(http: HttpServer, write: WriteCard) -> None:
    http.wrong = lambda request: request.answer(404, b"<html>") or True  # type: ignore[attr-defined]
    assert f"{http.address} is no inference server that speaks v2" in refusal(write(http.address))
    http.wrong = lambda request: request.answer(200, b"<html>") or True  # type: ignore[attr-defined]
    assert f"{http.address} answers no JSON: is it an inference server?" in refusal(write(http.address))
    crossed = refusal(write(http.address.replace("http", "grpc")), DnnAwayError)
    assert len(crossed) < 450
