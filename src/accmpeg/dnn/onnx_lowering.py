"""ONNX networks of newer operator sets in the terms of opset 17, which onnx2torch converts.

```
file ─▶ functions inlined ─▶ nodes rewritten to their form of opset 17 ─▶ float32 throughout ─▶ onnx2torch
```

An operator that got only new number types since opset 17 needs no rewriting. One that is a function of others
(Gelu, Mish, GroupNormalization, …) is replaced by its body, which the ONNX standard gives. What stays
impossible is named. Half-precision networks become float32: their gradients would underflow.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["TARGET_OPSET", "UnconvertibleError", "lowered"]

TARGET_OPSET = 17
STANDARD = ("", "ai.onnx")
REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
"""Their axes were an attribute up to opset 17."""

MAX_ROUNDS = 8
"""Functions within functions within functions …; the standard's go three deep."""


class UnconvertibleError(Exception):
    """Operators that have no form in opset 17; `newer` if exporting with opset 17 avoids them."""

    def __init__(self, operators: list[str], *, newer: bool) -> None:
        super().__init__(", ".join(operators))
        self.newer = newer


def lowered(model: ModelProto, converts: Callable[[str, str, int], bool]) -> ModelProto:
    """A network of any opset as one of `TARGET_OPSET` or below, with the same inputs and outputs.

    `converts` says whether an operator (domain, type, version of the domain's opset) has a conversion. Raises
    `UnconvertibleError` naming the operators that neither it nor a rewriting covers.
    """
    model = onnx.inliner.inline_local_functions(model) if model.functions else _copy(model)
    versions = {each.domain: each.version for each in model.opset_import}
    opset = max((versions[domain] for domain in STANDARD if domain in versions), default=1)

    def is_known(node: NodeProto) -> bool:
        version = min(opset, TARGET_OPSET) if node.domain in STANDARD else versions.get(node.domain, 1)
        return converts(node.domain, node.op_type, version)

    _widen(model.graph)
    _settle_weights(model.graph)
    _inline_functions(model, opset, is_known)
    if opset > TARGET_OPSET:
        _rewrite(model, opset)
        for each in model.opset_import:
            if each.domain in STANDARD:
                each.version = TARGET_OPSET
    _put_plainly(model.graph)
    missing = sorted({node.op_type for node in model.graph.node if not is_known(node)})
    if missing:
        newer = opset > TARGET_OPSET and not any(_is_old(name) for name in missing)
        raise UnconvertibleError(missing, newer=newer)
    _name_outputs(model.graph)
    return model


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def _is_old(operator: str) -> bool:
    """Whether opset 17 has the operator too: exporting with it would not help."""
    try:
        onnx.defs.get_schema(operator, TARGET_OPSET)
    except onnx.defs.SchemaError:
        return False
    return True


def _widen(graph: GraphProto) -> None:
    """Makes every half-precision number float32."""
    tensors = [*graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    halves = [tensor for tensor in tensors if tensor.data_type == TensorProto.FLOAT16]
    for tensor in halves:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        )
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _settle_weights(graph: GraphProto) -> None:
    """Makes weights initializers, which onnx2torch wants them to be.

    PyTorch's exporter puts an Identity before those that are alike or shared, others write Constant nodes,
    and a Cast of halves has nothing to do any more.
    """
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        kind = next((each.i for each in node.attribute if each.name == "to"), None)
        tensor = next((each.t for each in node.attribute if each.name == "value"), TensorProto())
        found = kinds.get(node.input[0]) if node.input else None
        if node.output[0] in outputs or node.domain not in STANDARD:
            kept.append(node)
        elif found and (node.op_type == "Identity" or (node.op_type == "Cast" and found == kind)):
            same[node.output[0]] = node.input[0]
        elif node.op_type == "Constant" and tensor.data_type == TensorProto.FLOAT and tensor.dims:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
            kinds[node.output[0]] = TensorProto.FLOAT
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        _replace_nodes(graph, kept)


def _inline_functions(model: ModelProto, opset: int, is_known: Callable[[NodeProto], bool]) -> None:
    """Replaces operators without a conversion by the bodies that the standard gives them."""
    fresh = itertools.count()
    for _ in range(MAX_ROUNDS):
        if all(map(is_known, model.graph.node)):
            return
        types = _types(model)
        nodes: list[NodeProto] = []
        changed = False
        for node in model.graph.node:
            body = None if is_known(node) else _body(node, opset, types)
            changed |= body is not None
            nodes += [node] if body is None else _instance(body, node, f"inlined_{next(fresh)}_")
        if not changed:
            return
        _replace_nodes(model.graph, nodes)


def _types(model: ModelProto) -> dict[str, onnx.TypeProto]:
    """The type, and where it can be told the shape, of each value."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return types


def _body(node: NodeProto, opset: int, types: dict[str, onnx.TypeProto]) -> onnx.FunctionProto | None:
    """The function that an operator stands for, or None where the standard has none or needs to know more."""
    if node.domain not in STANDARD:
        return None
    try:
        # Any: onnx's own stub leaves the functions out.
        schema: Any = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return None
    fits = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    body = onnx.FunctionProto()
    if fits:
        given = [types[name].SerializeToString() if name in types else b"" for name in node.input]
        text = schema.get_context_dependent_function_with_opset_version(
            max(fits), node.SerializeToString(), given
        )
        body.ParseFromString(text)
        return body if body.node else None
    plain = [v for v in schema.function_opset_versions if v <= opset]
    if not plain:
        return None
    body.ParseFromString(schema.get_function_with_opset_version(max(plain)))
    return body


def _instance(body: onnx.FunctionProto, node: NodeProto, prefix: str) -> list[NodeProto]:
    """A function's nodes with the names and attributes of one use."""
    schema = onnx.defs.get_schema(node.op_type)
    given = {each.name: each for each in node.attribute}
    names = dict(itertools.zip_longest(body.input, node.input, fillvalue=""))
    names |= dict(zip(body.output, node.output, strict=False))
    names[""] = ""
    made = []
    for inner in body.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = prefix + inner.op_type
        for field in (copy.input, copy.output):
            field[:] = [names.setdefault(name, prefix + name) for name in field]
        del copy.attribute[:]
        for each in inner.attribute:
            value = each
            if each.ref_attr_name:
                chosen = given.get(each.ref_attr_name)
                if chosen is None and each.ref_attr_name in schema.attributes:
                    chosen = schema.attributes[each.ref_attr_name].default_value
                if chosen is None or not chosen.type:
                    continue
                value = chosen
            added = copy.attribute.add()
            added.CopyFrom(value)
            added.name = each.name
        made.append(copy)
    return made


def _rewrite(model: ModelProto, opset: int) -> None:
    """Gives every node its form of opset 17; raises `UnconvertibleError`."""
    graph = model.graph
    types, constants = _types(model), dict(_constants(graph))
    nodes, failed = [], []
    for node in graph.node:
        if node.domain in STANDARD:
            try:
                _lower(node, graph, types, constants)
                _check_fits(node, opset)
            except ValueError as error:
                failed.append(f"{node.op_type} ({error})")
        nodes.append(node)
    if failed:
        raise UnconvertibleError(sorted(set(failed)), newer=True)
    _replace_nodes(graph, nodes)


def _constants(graph: GraphProto) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type != "Constant" or not node.attribute:
            continue
        attribute = node.attribute[0]
        if attribute.name == "value":
            yield node.output[0], numpy_helper.to_array(attribute.t)
        elif attribute.name in ("value_ints", "value_int"):
            yield node.output[0], np.asarray(helper.get_attribute_value(attribute), np.int64)


def _lower(
    node: NodeProto,
    graph: GraphProto,
    types: dict[str, onnx.TypeProto],
    constants: dict[str, NDArray[Any]],
) -> None:
    """Rewrites one node in place; raises `ValueError` saying what has no older form."""
    if node.op_type in REDUCTIONS:
        if len(node.input) > 1 and node.input[1]:
            axes = _constant(node.input[1], constants, "axes")
            node.attribute.append(helper.make_attribute("axes", axes.reshape(-1).tolist()))
        empty = not any(each.name == "axes" and each.ints for each in node.attribute)
        noop = _take(node, "noop_with_empty_axes")
        del node.input[1:]
        if empty:
            for each in [each for each in node.attribute if each.name == "axes"]:
                node.attribute.remove(each)
            if noop:
                node.op_type = "Identity"
                del node.attribute[:]
    elif node.op_type == "Split":
        parts = _take(node, "num_outputs")
        shape = _shape(node.input[0], types)
        axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
        size = None if shape is None else shape[axis]
        if parts and size is not None and size % parts:
            chunk = -(-size // parts)
            sizes = [chunk] * (parts - 1) + [size - chunk * (parts - 1)]
            node.input.append(_added(graph, f"{node.output[0]}_sizes", sizes))
    elif node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
        shape = _shape(node.input[0], types)
        if shape is None:
            raise ValueError("axes of a value of unknown rank")
        axes = _constant(node.input[3], constants, "axes").reshape(-1) % len(shape)
        pads = _constant(node.input[1], constants, "pads").reshape(2, -1)
        full = np.zeros((2, len(shape)), np.int64)
        full[:, axes] = pads
        node.input[1] = _added(graph, f"{node.output[0]}_pads", full.ravel().tolist())
        del node.input[3:]
    elif node.op_type == "Resize":
        axes = _take(node, "axes")
        shape = _shape(node.input[0], types)
        if axes and (shape is None or list(axes) != list(range(len(shape)))):
            raise ValueError("with axes")
    elif node.op_type == "AveragePool" and any(each != 1 for each in _take(node, "dilations") or ()):
        raise ValueError("with dilations")


def _check_fits(node: NodeProto, opset: int) -> None:
    """Drops attributes that opset 17 lacks and that say the default; raises `ValueError` for others."""
    if not _is_old(node.op_type):
        return
    older, newer = (onnx.defs.get_schema(node.op_type, version) for version in (TARGET_OPSET, opset))
    for each in list(node.attribute):
        if each.name in older.attributes:
            continue
        default = newer.attributes[each.name].default_value if each.name in newer.attributes else None
        if default is None or helper.get_attribute_value(each) != helper.get_attribute_value(default):
            raise ValueError(f"with {each.name}")
        node.attribute.remove(each)
    if len(node.input) > older.max_input:
        raise ValueError(f"with {len(node.input)} inputs")


def _take(node: NodeProto, name: str) -> Any:
    """An attribute's value, or None; it is removed."""
    for each in node.attribute:
        if each.name == name:
            value = helper.get_attribute_value(each)
            node.attribute.remove(each)
            return value
    return None


def _constant(name: str, constants: dict[str, NDArray[Any]], what: str) -> NDArray[Any]:
    if name not in constants:
        raise ValueError(f"with computed {what}")
    return constants[name]


def _shape(name: str, types: dict[str, onnx.TypeProto]) -> list[int | None] | None:
    """Sizes with None for unknown ones; None for an unknown rank."""
    if name not in types or not types[name].tensor_type.HasField("shape"):
        return None
    dims = types[name].tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _added(graph: GraphProto, name: str, values: list[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
    return name


def _replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    # Shapes and types are told anew from the nodes.
    del graph.value_info[:]


def _put_plainly(graph: GraphProto) -> None:
    """Says in other words what onnx2torch reads otherwise than the standard, or not at all."""
    nodes = []
    for node in graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]
        nodes.append(node)
        if node.op_type == "Clip" and len(node.input) == 3 and not node.input[1]:
            node.op_type = "Min"
            del node.input[1]
        elif node.op_type == "CumSum" and not any(each.name == "reverse" for each in node.attribute):
            node.attribute.append(helper.make_attribute("reverse", 0))
        elif node.op_type == "NonZero":
            found = node.output[0]
            node.output[0] = f"{found}_rows"
            nodes.append(helper.make_node("Transpose", [node.output[0]], [found], perm=[1, 0]))
    if len(nodes) > len(graph.node):
        _replace_nodes(graph, nodes)


def _name_outputs(graph: GraphProto) -> None:
    """Gives each output a node of its own: of one that has several, onnx2torch hands all out as one."""
    for output in graph.output:
        inner = f"{output.name}_before_output"
        graph.node.append(helper.make_node("Identity", [inner], [output.name]))
        for node in graph.node[:-1]:
            for field in (node.input, node.output):
                field[:] = [inner if name == output.name else name for name in field]
