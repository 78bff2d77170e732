"""What the tests of networks on inference servers ask of one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.errors import AccmpegError, DnnAwayError, DnnError
from tests.dnn.inference_servers import GrpcServer, HttpServer, Model

PROTOCOLS = {"http": HttpServer, "grpc": GrpcServer}
WriteCard = Callable[..., Path]


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


def change(model: Model, **changes: Any) -> None:
    for name, value in changes.items():
        if "__" in name:
            kind, key = name.split("__")
            getattr(model, kind)[0][key] = value
        else:
            setattr(model, name, value)


def eventually(dnn: ServerDnn, frame: VideoFrame) -> Any:
    """The first answer that comes."""
    for _ in range(200):
        try:
            return dnn.infer(frame)
        except DnnAwayError:
            time.sleep(0.02)
    raise AssertionError("it never came back")
