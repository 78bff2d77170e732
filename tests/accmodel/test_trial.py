"""AccModels that take all memory, or for ever, do so beside the camera and not in it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from accmpeg.accmodel import trial
from accmpeg.accmodel.card import read_accmodel_card
from accmpeg.accmodel.inspection import check_onnx
from accmpeg.accmodel.trial import try_apart
from accmpeg.demo import assets_path
from accmpeg.errors import AccModelError

CARD = read_accmodel_card(assets_path() / "accmodel.card.toml")
DEMO = (assets_path() / "accmodel.onnx").read_bytes()


def doubling(times: int, *, constant: bool = False) -> bytes:
    """Some kilobytes of allowed operators, which make so many times twice as much of a tensor."""
    nodes = [
        helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in ("y", "uv")
    ]
    last = "constant" if constant else "y_float"
    for number in range(times):
        nodes.append(helper.make_node("Concat", [last, last], [f"x{number}"], axis=1))
        last = f"x{number}"
    nodes += [
        helper.make_node("ReduceMean", [last], ["mean"], keepdims=1),
        helper.make_node("ReduceMean", ["uv_float"], ["colour"], keepdims=1),
        helper.make_node("Add", ["mean", "colour"], ["both"]),
        helper.make_node("Add", ["both", "y_float"], ["map"]),
        helper.make_node("Concat", ["map", "map"], ["maps"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [
            helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 1, "h", "w"]),
            helper.make_tensor_value_info("uv", TensorProto.UINT8, [1, 2, "h2", "w2"]),
        ],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((1, 1024, 1, 1), np.float32), "constant")],
    )
    opset = [helper.make_opsetid("", 17)]
    made: bytes = onnx.ModelProto.SerializeToString(
        helper.make_model(graph, opset_imports=opset, ir_version=8)
    )
    check_onnx(made)
    return made


def test_what_an_accmodel_does_is_little() -> None:
    try_apart(CARD, DEMO, (1280, 720), "the demo's")
    try_apart(CARD, doubling(3), (320, 180), "a small one")


@pytest.mark.parametrize("constant", [False, True])
def test_one_that_takes_all_memory_is_refused(constant: bool) -> None:
    with pytest.raises(AccModelError, match="the one offered takes more than 512 MiB of memory, or crashes"):
        try_apart(CARD, doubling(30, constant=constant), (320, 180), "the one offered")


def test_one_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TRIAL_S", 0.01)
    with pytest.raises(AccModelError, match="the one offered takes longer than 0 s for a map"):
        try_apart(CARD, DEMO, (320, 180), "the one offered")


def test_what_is_wrong_is_said_in_a_line() -> None:
    with pytest.raises(AccModelError, match="can't load the weights") as failed:
        try_apart(CARD, b"junk", (320, 180), "the one offered")
    assert "\n" not in str(failed.value)
