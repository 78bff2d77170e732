"""A network on an inference server answers as it does here, or says in a line why not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from av import VideoFrame

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.check import check_dnn
from accmpeg.errors import DnnAwayError, DnnError, NoGradientError
from tests.dnn.inference_servers import GrpcServer, HttpServer, Model
from tests.dnn.remote.checks import PROTOCOLS, WriteCard, same


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
