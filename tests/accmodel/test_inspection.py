"""ONNX files of strangers: what an AccModel needs passes, anything more does not, and nothing is run."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from accmpeg.accmodel.inspection import OPERATORS, check_onnx
from accmpeg.demo import assets_path
from accmpeg.errors import WeightsError

DEMO = (assets_path() / "accmodel.onnx").read_bytes()


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["y"], ["z"])],
        "network",
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
        list(tensors),
    )
    return helper.make_model(graph)


def elsewhere(tensor: TensorProto) -> TensorProto:
    """A tensor whose numbers are in a file of the machine that loads it."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def a_tensor() -> TensorProto:
    return numpy_helper.from_array(np.zeros(3, np.float32), "w")


def with_branch() -> onnx.ModelProto:
    inner = model().graph
    node = helper.make_node("Relu", ["y"], ["z"])
    node.attribute.append(helper.make_attribute("then_branch", inner))
    return model(node)


def with_function() -> onnx.ModelProto:
    made = model()
    made.functions.append(helper.make_function("own", "Relu", ["a"], ["b"], [], made.opset_import))
    return made


def with_domain() -> onnx.ModelProto:
    made = model()
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    return made


def sized_by_pictures() -> onnx.ModelProto:
    return model(
        helper.make_node("ReduceMean", ["y"], ["mean"]),
        helper.make_node("Mul", ["mean", "w"], ["scales"]),
        helper.make_node("Resize", ["y", "", "scales"], ["z"]),
        tensors=(a_tensor(),),
    )


def test_the_demos_own_passes() -> None:
    check_onnx(DEMO)
    check_onnx(model().SerializeToString())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: model(helper.make_node("Loop", ["y"], ["z"])), "operator 'Loop'"),
        (lambda: model(helper.make_node("ConstantOfShape", ["y"], ["z"])), "operator 'ConstantOfShape'"),
        (lambda: model(onnx.NodeProto(input=["y"], output=["z"])), "operator ''"),
        (lambda: model(helper.make_node("Relu", ["y"], ["z"], domain="com.microsoft")), "beyond ONNX's own"),
        (with_domain, "beyond ONNX's own"),
        (with_branch, "networks within operators"),
        (with_function, "functions of its own"),
        (lambda: model(tensors=(elsewhere(a_tensor()),)), "from other files"),
        (
            lambda: model(helper.make_node("Constant", [], ["z"], value=elsewhere(a_tensor()))),
            "from other files",
        ),
        (sized_by_pictures, "a Resize by what it sees"),
        (
            lambda: model(helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Relu", ["y"], ["x"])),
            "in no order",
        ),
        (lambda: onnx.ModelProto(ir_version=8), "there is no network in it"),
    ],
)
def test_what_no_accmodel_needs_is_refused(make: Callable[[], onnx.ModelProto], reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        check_onnx(make().SerializeToString())


def test_two_halves_of_a_network_are_one() -> None:
    """Protobuf joins them."""
    halves = helper.make_node("Relu", ["y"], ["s"]), helper.make_node("Resize", ["y", "", "s"], ["z"])
    with pytest.raises(WeightsError, match="a Resize by what it sees"):
        check_onnx(b"".join(model(half).SerializeToString() for half in halves))


def test_sizes_may_follow_from_the_size_of_a_picture() -> None:
    check_onnx(
        model(
            helper.make_node("Shape", ["y"], ["shape"]), helper.make_node("Reshape", ["y", "shape"], ["z"])
        ).SerializeToString()
    )


def test_a_second_name_hides_no_operator() -> None:
    """Of a field that comes twice protobuf takes the last; either must be on the list."""
    names = (b"\x22\x04Relu", b"\x22\x04Loop")
    for first, second in (names, names[::-1]):
        node = first + second
        graph = b"\x0a" + bytes([len(node)]) + node
        with pytest.raises(WeightsError, match="Loop"):
            check_onnx(b"\x3a" + bytes([len(graph)]) + graph)


@pytest.mark.parametrize("length", [0, 1, 100, len(DEMO) // 2, len(DEMO) - 1])
def test_a_part_of_a_file_is_refused(length: int) -> None:
    with pytest.raises(WeightsError):
        check_onnx(DEMO[:length])


def test_a_file_of_nothing_but_fields_ends_soon() -> None:
    with pytest.raises(WeightsError, match="more than"):
        check_onnx(b"\x08\x00" * (8 << 20))


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_no_bytes_do_worse_than_an_error(data: bytes) -> None:
    with pytest.raises(WeightsError):
        check_onnx(data)


@given(st.integers(0, len(DEMO) - 1), st.integers(0, 255))
@settings(max_examples=200)
def test_what_passes_is_read_by_onnx_the_same(at: int, byte: int) -> None:
    """A changed byte is refused, or what protobuf reads has only operators of the list."""
    changed = DEMO[:at] + bytes([byte]) + DEMO[at + 1 :]
    try:
        check_onnx(changed)
    except WeightsError:
        return
    try:
        read = onnx.load_from_string(changed)
    except Exception:
        return
    assert {node.op_type for node in read.graph.node} <= OPERATORS


def test_nothing_of_the_list_reads_files_or_runs_graphs() -> None:
    for name in OPERATORS:
        schema = onnx.defs.get_schema(name)
        kinds = {each.type.name for each in schema.attributes.values()}
        assert not kinds & {"GRAPH", "GRAPHS"}, name
