"""Networks on inference servers: real HTTP and gRPC on real sockets, with the demo's detector behind them."""

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from av import VideoFrame

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.card import read_card, write_card
from accmpeg.dnn.check import check_dnn
from accmpeg.errors import AccmpegError, CardError, DnnAwayError, DnnError, NoGradientError
from accmpeg.protocol.backoff import Backoff
from tests.dnn.inference_servers import DETECTOR, GrpcServer, HttpServer, Model, remote_card
from tests.helpers import free_port

PROTOCOLS = {"http": HttpServer, "grpc": GrpcServer}
WriteCard = Callable[..., Path]


@pytest.fixture(scope="module")
def frames() -> list[VideoFrame]:
    """Four of the embedded scene, with cars in them."""
    return list(SceneSource(SceneSpec(87, 320, 180, frame_count=4)))


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest, model: Model) -> Iterator[Any]:
    """A server of either protocol."""
    with PROTOCOLS[request.param](model) as running:
        yield running


@pytest.fixture
def http(model: Model) -> Iterator[HttpServer]:
    with HttpServer(model) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector here, reading small pictures: a busy machine must keep pace with their text."""
    card = read_card(DETECTOR)
    small = card.input.model_copy(update={"width_px": 320, "height_px": 192})
    path = tmp_path_factory.mktemp("local") / "detector.card.toml"
    model = str(DETECTOR.parent / card.model)
    write_card(card.model_copy(update={"model": model, "input": small}), path)
    return path


@pytest.fixture
def write(tmp_path: Path, local: Path) -> WriteCard:
    """Writes that card as a remote one, with changed keys and options."""
    return lambda address, **changes: remote_card(
        tmp_path, address, like=local, **{"timeout_ms": 60_000, **changes}
    )


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.05)
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):  # nothing goes through one
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def same(ours: list[Any], theirs: list[Any]) -> None:
    assert sum(len(each) for each in theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.confidence, b.confidence)
        np.testing.assert_array_equal(a.class_id, b.class_id)


def refusal(path: Path, kind: type[AccmpegError] = DnnError) -> str:
    """What opening the card says, in one line."""
    with pytest.raises(kind) as caught:
        load_dnn(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_detections_as_here(
    server: Any, write: WriteCard, frames: list[VideoFrame], local: Path
) -> None:
    here, there = load_dnn(local, threads=1), load_dnn(write(server.address))
    same([there.infer(frame) for frame in frames], [here.infer(frame) for frame in frames])
    server.model.batches.clear()
    same(there.infer_many(frames), here.infer_many(frames))
    assert server.model.batches == [4]


def test_a_card_bounds_the_batch(server: Any, write: WriteCard, frames: list[VideoFrame]) -> None:
    there = load_dnn(write(server.address, max_batch=2, version=""))
    there.infer_many(frames)
    there.infer_many(frames)
    assert server.model.batches[-2:] == [2, 2]


def test_a_server_with_small_messages(model: Model, write: WriteCard, frames: list[VideoFrame]) -> None:
    with GrpcServer(model, max_bytes=1 << 20) as server:
        there = load_dnn(write(server.address))
        there.infer(frames[0])
        with pytest.raises(DnnError, match="takes no request of this size "):
            there.infer_many(frames)
        assert len(there.infer(frames[0])) > 0


@pytest.mark.parametrize("binary", [None, True, False])
def test_numbers_travel_as_json_where_the_server_takes_no_bytes(
    http: HttpServer, write: WriteCard, frames: list[VideoFrame], local: Path, binary: bool | None
) -> None:
    http.model.extensions = []
    options = {} if binary is None else {"binary": binary}
    there = load_dnn(write(http.address, **options))
    seen: list[Any] = []
    http.wrong = lambda request: seen.append(request.headers["Content-Type"])  # type: ignore[func-returns-value, assignment, return-value]
    same([there.infer(frames[0])], [load_dnn(local, threads=1).infer(frames[0])])
    assert seen == ["application/octet-stream" if binary else "application/json"]


def test_grpc_answers_may_hold_numbers_instead_of_bytes(
    model: Model, write: WriteCard, frames: list[VideoFrame], local: Path
) -> None:
    with GrpcServer(model) as server:
        server.is_raw = False
        there = load_dnn(write(server.address))
        same([there.infer(frames[0])], [load_dnn(local, threads=1).infer(frames[0])])


def test_a_path_before_the_protocol_s_own(http: HttpServer, write: WriteCard) -> None:
    assert "nothing called the model 'detector'" not in refusal(write(f"{http.address}/gate"), DnnError)
    assert http.requests[0] == "/gate/v2/health/live"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    paths = tmp_path / "server.pem", tmp_path / "server.key"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    options += " -addext subjectAltName=IP:127.0.0.1"
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(["openssl", *options.split(), *files], check=True, capture_output=True)
    return paths


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


@pytest.mark.parametrize("scheme", PROTOCOLS)
def test_a_server_that_is_not_there(scheme: str, write: WriteCard) -> None:
    port = free_port()
    message = refusal(write(f"{scheme}://127.0.0.1:{port}"), DnnAwayError)
    assert message == f"nothing listens at 127.0.0.1:{port}: is the inference server running?"
    message = refusal(write(f"{scheme}://nowhere.invalid:8000"), DnnAwayError)
    assert "no host is called nowhere.invalid" in message


def change(model: Model, **changes: Any) -> None:
    for name, value in changes.items():
        if "__" in name:
            kind, key = name.split("__")
            getattr(model, kind)[0][key] = value
        else:
            setattr(model, name, value)


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
        ({"inputs__shape": [-1, 1, 28, 28]}, "not pictures of (batch, 3, height, width)"),
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


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "gave no output 'output0'"),
        ([{"name": "output0"}], "answered what is no inference response"),
        ("what", "answered what is no inference response"),
        ([{"name": "output0", "datatype": "FP32", "shape": [1, 8, 2], "data": [1.0]}], "no FP32 tensor"),
        ([{"name": "output0", "datatype": "BYTES", "shape": [1], "data": ["x"]}], "which holds no numbers"),
        (
            [{"name": "output0", "datatype": "FP32", "shape": [1, 2, 2], "data": [[[1, 1], [1, 1]]]}],
            "the head",
        ),
        ([{"name": "output0", "datatype": "FP32", "shape": [0, 8, 9], "data": []}], "gave 0 answers for 1"),
    ],
    ids=str,
)
def test_answers_that_are_none(
    http: HttpServer, write: WriteCard, frames: list[VideoFrame], answers: Any, said: str
) -> None:
    there = load_dnn(write(http.address))
    http.model.answers = answers
    with pytest.raises(DnnError, match=said):
        there.infer(frames[0])


def test_an_answer_for_another_number_of_pictures(
    http: HttpServer, write: WriteCard, frames: list[VideoFrame]
) -> None:
    there = load_dnn(write(http.address))
    there.infer(frames[0])
    numbers = np.zeros((1, 8, 9), np.float32)
    http.model.answers = [
        {"name": "output0", "datatype": "FP32", "shape": numbers.shape, "data": numbers.tolist()}
    ]
    with pytest.raises(DnnError, match="for 4 pictures: write max_batch = 1"):
        there.infer_many(frames)


@pytest.mark.parametrize(
    ("status", "said", "is_away"),
    [
        (400, "the model 'detector' at .* failed: HTTP 400, bad luck", False),
        (500, "failed: HTTP 500, bad luck", False),
        (503, "failed: HTTP 503, bad luck", True),
        (413, "takes no request of this size .*lower max_batch", False),
        (403, "refused the token", False),
    ],
)
def test_what_a_server_refuses(
    http: HttpServer, write: WriteCard, frames: list[VideoFrame], status: int, said: str, is_away: bool
) -> None:
    there = load_dnn(write(http.address))
    http.wrong = lambda request: request.answer(status, b'{"error": "bad\\nluck"}') or True  # type: ignore[attr-defined]
    with pytest.raises(DnnError, match=said) as caught:
        there.infer(frames[0])
    assert isinstance(caught.value, DnnAwayError) == is_away
    assert http.requests[-1].endswith("/infer")  # once: it was understood


@pytest.mark.parametrize(
    ("code", "said", "is_away"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "failed: INVALID_ARGUMENT, no", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "takes no request of this size", False),
        (grpc.StatusCode.PERMISSION_DENIED, "refused the token", False),
        (grpc.StatusCode.UNIMPLEMENTED, "no inference server that speaks v2", False),
        (grpc.StatusCode.UNAVAILABLE, "can't be asked: no", True),
    ],
    ids=str,
)
def test_what_a_grpc_server_refuses(
    model: Model,
    write: WriteCard,
    frames: list[VideoFrame],
    code: grpc.StatusCode,
    said: str,
    is_away: bool,
) -> None:
    with GrpcServer(model) as server:
        there = load_dnn(write(server.address))
        server.refuses = code
        with pytest.raises(DnnError, match=said) as caught:
            there.infer(frames[0])
        assert isinstance(caught.value, DnnAwayError) == is_away


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


def eventually(dnn: ServerDnn, frame: VideoFrame) -> Any:
    """The first answer that comes."""
    for _ in range(200):
        try:
            return dnn.infer(frame)
        except DnnAwayError:
            time.sleep(0.02)
    raise AssertionError("it never came back")


def test_it_has_no_gradient(http: HttpServer, write: WriteCard, frames: list[VideoFrame]) -> None:
    there = load_dnn(write(http.address))
    with pytest.raises(NoGradientError, match=f"runs on {http.address}, which gives no gradient"):
        there.differentiable()
    _, findings = check_dnn(there, frames[0])
    assert [(each.name, each.ok) for each in findings] == [("runs", True), ("gradient", True)]


def test_without_the_extra(write: WriteCard) -> None:
    program = (
        "import sys\n"
        "from accmpeg.dnn.base import load_dnn\n"
        "sys.modules['urllib3'] = sys.modules['tritonclient'] = None\n"
        "from accmpeg.errors import MissingExtraError\n"
        "for card in sys.argv[1:]:\n"
        "    try: load_dnn(card)\n"
        "    except MissingExtraError as error: print(error)"
    )
    cards = []
    for scheme in PROTOCOLS:
        path = write(f"{scheme}://127.0.0.1:9")
        cards.append(path.rename(path.with_name(f"{scheme}.card.toml")))
    done = subprocess.run([sys.executable, "-c", program, *cards], capture_output=True, text=True, check=True)
    assert done.stdout == 2 * (
        "the adapter 'remote' needs the 'remote' extra: pip install 'accmpeg[remote]'\n"
    )


def test_opening_one_loads_no_pytorch(http: HttpServer, write: WriteCard) -> None:
    program = (
        "import sys; from accmpeg.dnn.base import load_dnn; load_dnn(sys.argv[1]);"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(write(http.address))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
