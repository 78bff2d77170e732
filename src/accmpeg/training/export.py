"""From a trained network to `NAME.onnx`, and what it costs, counted in the file itself."""

import io
import time
import warnings

import numpy as np
import onnx
import onnxruntime
import torch

from accmpeg.media.planes import SIZE_MULTIPLE_PX, model_size
from accmpeg.training.network import AccModelNetwork

__all__ = ["count_macs", "count_parameters", "export_onnx", "measure_ms"]

_MOST_CELLS = 8192 // SIZE_MULTIPLE_PX


def export_onnx(network: AccModelNetwork) -> bytes:
    """ONNX bytes with inputs `y` and `uv` (uint8, any multiple of 32 px), batch normalisation folded in."""
    folded = network.folded().cpu()
    height, width = 3 * SIZE_MULTIPLE_PX, 5 * SIZE_MULTIPLE_PX
    example = (
        torch.zeros(1, 1, height, width, dtype=torch.uint8),
        torch.zeros(1, 2, height // 2, width // 2, dtype=torch.uint8),
    )
    rows, cols = (torch.export.Dim(name, min=1, max=_MOST_CELLS) for name in ("rows_32", "cols_32"))
    sizes = {"y": {2: 32 * rows, 3: 32 * cols}, "uv": {2: 16 * rows, 3: 16 * cols}}
    with warnings.catch_warnings():
        # The exporter warns about PyTorch's own internals.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            folded,
            example,
            dynamo=True,
            input_names=["y", "uv"],
            output_names=["scores"],
            dynamic_shapes=sizes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # Names and traces of the exporting machine's source files are of no use on a camera.
    for message in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        model.graph,
    ):
        del message.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    return buffer.getvalue()


def count_parameters(model: onnx.ModelProto) -> int:
    """Numbers stored in the weights of convolutions."""
    stored = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    used = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    return sum(stored[name] for name in used)


def count_macs(model: onnx.ModelProto, width_px: int = 1280, height_px: int = 720) -> int:
    """Multiply-accumulates of all convolutions for one frame of the given size."""
    width, height = model_size(width_px, height_px)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value, size in zip(fixed.graph.input, ((height, width), (height // 2, width // 2)), strict=True):
        for dim, length in zip(value.type.tensor_type.shape.dim[2:], size, strict=True):
            dim.dim_value = length
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    shaped = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*shaped.graph.value_info, *shaped.graph.output)
    }
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in shaped.graph.initializer}
    return sum(
        weights[node.input[1]] * int(np.prod(shapes[node.output[0]][2:]))
        for node in shaped.graph.node
        if node.op_type == "Conv"
    )


def measure_ms(weights: bytes, width_px: int = 1280, height_px: int = 720, runs: int = 30) -> list[float]:
    """Milliseconds of each of `runs` maps on one core in ONNX Runtime, after a warm-up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    width, height = model_size(width_px, height_px)
    rng = np.random.default_rng(0)
    feed = {
        "y": rng.integers(16, 236, (1, 1, height, width), np.uint8),
        "uv": rng.integers(16, 236, (1, 2, height // 2, width // 2), np.uint8),
    }
    taken = []
    for _ in range(runs + 3):
        start = time.perf_counter()
        session.run(None, feed)
        taken.append((time.perf_counter() - start) * 1000)
    return taken[3:]
