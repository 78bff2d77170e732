"""Whether an ONNX file from elsewhere holds only what AccModels are made of, found out without running it.

```
ModelProto ─▶ opset_import: ONNX's own
           └▶ graph ─▶ node: operators on the list, no graphs within; no picture says how large another is
                    └▶ initializer: stored in the file itself
```
ONNX Runtime would already open files that the weights name, and compute constants, while it loads them. So
the bytes are read here first, field by field as protobuf defines them, in time that grows with their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from accmpeg.errors import WeightsError

__all__ = ["OPERATORS", "check_onnx"]

OPERATORS = frozenset(
    {
        *("Conv", "BatchNormalization", "AveragePool", "GlobalAveragePool", "MaxPool", "Resize"),
        *("Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "ReduceMean"),
        *("Add", "Sub", "Mul", "Div", "Max", "Min", "Cast", "Constant", "Identity", "Flatten", "Gather"),
        *("Concat", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""What networks of the kind are made of: nothing that loops, branches, draws random numbers or repeats."""

_SIZED_BY_INPUTS = frozenset({"ReduceMean", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Unsqueeze"})
"""Their other inputs say how large the output is, or which axes it has."""
_FIELDS_LIMIT = 100_000
"""The demo's AccModel has a few hundred nodes and tensors; each counts a handful."""
_OWN_DOMAINS = (b"", b"ai.onnx")

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_OPSET_DOMAIN = 1
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_UNWANTED = (5, 10), (6, 11, 22, 23)  # graphs and sparse tensors
_TENSOR_ELSEWHERE, _TENSOR_LOCATION = 13, 14


@dataclass
class _Node:
    operator: str = ""
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)


def check_onnx(weights: bytes) -> None:
    """Raises WeightsError for bytes that are no ONNX file, or that hold more than an AccModel needs."""
    reader = _Reader()
    nodes: list[_Node] = []
    for number, value in reader.fields(memoryview(weights)):
        if number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise WeightsError("the ONNX file brings functions of its own, an AccModel has none")
        if number == _MODEL_OPSET and isinstance(value, memoryview):
            for key, domain in reader.fields(value):
                if key == _OPSET_DOMAIN:
                    _check_domain(domain)
        if number == _MODEL_GRAPH and isinstance(value, memoryview):
            nodes += _check_graph(reader, value)
    if not nodes:
        raise WeightsError("no ONNX file: there is no network in it")
    _check_sizes(nodes)  # of all graphs: protobuf makes one of them


def _check_graph(reader: "_Reader", graph: memoryview) -> list[_Node]:
    nodes: list[_Node] = []
    for number, value in reader.fields(graph):
        if number == _GRAPH_SPARSE:
            raise WeightsError("the ONNX file has sparse weights, an AccModel has none")
        if not isinstance(value, memoryview):
            continue
        if number == _GRAPH_TENSOR:
            _check_tensor(reader, value)
        elif number == _GRAPH_NODE:
            nodes.append(_check_node(reader, value))
    return nodes


def _check_sizes(nodes: list[_Node]) -> None:
    """What a trial on one picture takes must be what any picture takes: none says how large a tensor is."""
    later = {name for node in nodes for name in node.outputs if name}
    of_pictures = {b"y", b"uv"}
    for node in nodes:
        if not later.isdisjoint(node.inputs):
            raise WeightsError("the ONNX file has its operators in no order")
        later.difference_update(node.outputs)
        if node.operator in _SIZED_BY_INPUTS and not of_pictures.isdisjoint(node.inputs[1:]):
            raise WeightsError(f"the ONNX file has a {node.operator} by what it sees, no AccModel needs that")
        if node.operator != "Shape" and not of_pictures.isdisjoint(node.inputs):
            of_pictures.update(node.outputs)


def _check_node(reader: "_Reader", node: memoryview) -> _Node:
    found = _Node()
    operators = []
    for number, value in reader.fields(node):
        if number == _NODE_INPUT and isinstance(value, memoryview):
            found.inputs.append(value.tobytes())
        elif number == _NODE_OUTPUT and isinstance(value, memoryview):
            found.outputs.append(value.tobytes())
        elif number == _NODE_OPERATOR and isinstance(value, memoryview):
            operators.append(bytes(value[:64]).decode("utf-8", "replace"))
        elif number == _NODE_DOMAIN:
            _check_domain(value)
        elif number == _NODE_ATTRIBUTE and isinstance(value, memoryview):
            for key, inner in reader.fields(value):
                if key in _ATTRIBUTE_UNWANTED:
                    raise WeightsError("the ONNX file has networks within operators, an AccModel has none")
                if key in _ATTRIBUTE_TENSORS and isinstance(inner, memoryview):
                    _check_tensor(reader, inner)
    # All of them: of a field that comes twice, protobuf takes the last.
    unknown = [ascii(each) for each in operators or [""] if each not in OPERATORS]
    if unknown:
        raise WeightsError(f"the ONNX file has the operator {unknown[0]}, which no AccModel needs")
    found.operator = operators[-1]
    return found


def _check_tensor(reader: "_Reader", tensor: memoryview) -> None:
    for number, value in reader.fields(tensor):
        if number == _TENSOR_ELSEWHERE or (number == _TENSOR_LOCATION and value != 0):
            raise WeightsError("the ONNX file takes weights from other files, an AccModel has its own")


def _check_domain(value: "int | memoryview") -> None:
    if isinstance(value, memoryview) and value.tobytes() not in _OWN_DOMAINS:
        raise WeightsError("the ONNX file has operators beyond ONNX's own")


class _Reader:
    """Splits protobuf messages into their fields; so many in all, whatever the file."""

    def __init__(self) -> None:
        self._left = _FIELDS_LIMIT

    def fields(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of each field: bytes of those that have a length, else the varint, or 0."""
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise WeightsError(f"the ONNX file has more than {_FIELDS_LIMIT} fields")
            tag, at = _varint(message, at, 5)
            number, kind = tag >> 3, tag & 7
            value: int | memoryview = 0
            if kind == 0:
                value, at = _varint(message, at, 10)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            elif kind == 2:
                length, at = _varint(message, at, 10)
                value = message[at : at + length]
                at += length
            else:
                raise WeightsError("no ONNX file: a field of a kind that protobuf has not")
            if not number or number >= 1 << 29 or at > len(message):
                raise WeightsError("no ONNX file: it is damaged or cut off")
            yield number, value


def _varint(message: memoryview, at: int, longest: int) -> tuple[int, int]:
    value = 0
    for index in range(longest):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at
    raise WeightsError("no ONNX file: it is damaged or cut off")
