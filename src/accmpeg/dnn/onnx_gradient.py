"""ONNX networks in PyTorch, for their gradients: lowered to what onnx2torch knows, and converted by it."""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn import functional

from accmpeg.dnn.onnx_lowering import TARGET_OPSET, UnconvertibleError, lowered
from accmpeg.dnn.torch_compat import import_onnx2torch
from accmpeg.errors import NoGradientError, one_line

__all__ = ["onnx_module"]


def onnx_module(name: str, model: Path, device: str) -> nn.Module:
    """The file's network in evaluation mode, float32 and with frozen weights, on `device`.

    Its outputs are a tensor, or a list of them in the file's order. Raises `NoGradientError` naming the
    operators in the way and the way out.
    """
    if model.suffix == ".xml":
        raise NoGradientError(
            f"{name} is in OpenVINO's own format, which has no gradient: name the ONNX file that it was made "
            "from as the card's model, which OpenVINO reads as well, or use the slower black-box mode"
        )
    convert = import_onnx2torch().convert
    _add_converters()
    try:
        with warnings.catch_warnings():
            # General remarks on resizing; `accmpeg models check` measures what they are about.
            warnings.simplefilter("ignore", UserWarning)
            module: nn.Module = convert(lowered(onnx.load(str(model)), _is_known))
            module = module.eval().to(device)
    except UnconvertibleError as error:
        if re.search(r"uantize|QLinear|Integer", str(error)):
            raise NoGradientError(
                f"{name} is quantised, and rounding has no gradient: label with a card of the float network "
                "that it was made from, or use the slower black-box mode"
            ) from error
        way = f"export it with opset {TARGET_OPSET}, or as a .pt2" if error.newer else "export it as a .pt2"
        raise NoGradientError(
            f"{name} has operators without a conversion to PyTorch: {error}; for a gradient {way} file "
            "(torch.export), or else use the slower black-box mode"
        ) from error
    # onnx and onnx2torch raise whatever they stumble over.
    except Exception as error:
        raise NoGradientError(
            f"{name} can't be converted to PyTorch ({one_line(error)}); for a gradient export it with opset "
            f"{TARGET_OPSET} or as a .pt2 file (torch.export), or else use the slower black-box mode"
        ) from error
    return module.requires_grad_(False)


def _is_known(domain: str, operator: str, version: int) -> bool:
    from onnx2torch.node_converters.registry import get_converter

    try:
        get_converter(operator, version, domain)
    except NotImplementedError:
        return False
    return True


class _GridSample(nn.Module):
    """What deformable attention (RT-DETR, DEIM) samples with."""

    def __init__(self, mode: str, padding: str, align_corners: bool) -> None:
        super().__init__()
        self.settings = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}

    def forward(self, picture: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        settings: Any = self.settings
        return functional.grid_sample(picture, grid, **settings)


@cache
def _add_converters() -> None:
    """Adds what onnx2torch lacks and common detectors need, or takes too narrowly."""
    from onnx2torch.node_converters import registry
    from onnx2torch.node_converters.layer_norm import OnnxLayerNorm
    from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node

    def grid_sample(node: Any, _graph: Any) -> Any:
        names = {"linear": "bilinear", "cubic": "bicubic"}
        mode = node.attributes.get("mode", "linear")
        module = _GridSample(
            names.get(mode, mode),
            node.attributes.get("padding_mode", "zeros"),
            bool(node.attributes.get("align_corners", 0)),
        )
        return OperationConverterResult(torch_module=module, onnx_mapping=onnx_mapping_from_node(node))

    def layer_norm(node: Any, _graph: Any) -> Any:
        """Its own asks for shapes that inference does not always tell (RT-DETR)."""
        module = OnnxLayerNorm(node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5))
        return OperationConverterResult(torch_module=module, onnx_mapping=onnx_mapping_from_node(node))

    registry.add_converter("GridSample", 16)(grid_sample)
    own = registry.OperationDescription(domain="", operation_type="LayerNormalization", version=17)
    registry._CONVERTER_REGISTRY.pop(own)
    registry.add_converter("LayerNormalization", 17)(layer_norm)
