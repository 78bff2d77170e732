"""Imports of onnx2torch and torchvision that also work where torchvision's compiled operators do not load.

A CPU build of PyTorch beside a torchvision wheel built for another one can't load those operators, and then
`import torchvision` (which onnx2torch needs) fails with "operator torchvision::nms does not exist". Declaring
the two operators that it looks up, and giving `nms` a body in plain PyTorch, is enough.
"""

import contextlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from accmpeg.errors import MissingExtraError

__all__ = ["import_onnx2torch", "import_torchvision"]

_libraries: list[Any] = []


def import_torchvision() -> ModuleType:
    """The torchvision module; raises `MissingExtraError` where it is not installed."""
    return _import("torchvision")


def import_onnx2torch() -> ModuleType:
    """The onnx2torch module; raises `MissingExtraError` where it is not installed."""
    return _import("onnx2torch")


def _import(name: str) -> ModuleType:
    try:
        import torch

        if "torchvision" not in sys.modules and not _libraries:
            _declare_missing_operators(torch)
        with warnings.catch_warnings():
            # Their import-time deprecation notes are about their own code.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"'{error.name}', used for gradients,", "train") from error


def _declare_missing_operators(torch: ModuleType) -> None:
    package = importlib.util.find_spec("torchvision")
    for folder in (package.submodule_search_locations or []) if package else []:
        for library_file in Path(folder).glob("_C.*"):
            with contextlib.suppress(OSError, RuntimeError):
                torch.ops.load_library(str(library_file))
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CompositeExplicitAutograd")
    # A library takes its declarations back when it is collected.
    _libraries.append(library)


def _nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy suppression in plain PyTorch: boxes `(n, 4)`, scores `(n,)`; kept indices, best first."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    kept = []
    alive = torch.ones(len(order), dtype=torch.bool, device=dets.device)
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        low = boxes[i, :2].maximum(boxes[:, :2])
        shared = (boxes[i, 2:].minimum(boxes[:, 2:]) - low).clamp(min=0).prod(dim=1)
        alive &= shared <= iou_threshold * (area[i] + area - shared)
    return order[torch.tensor(kept, dtype=torch.long, device=dets.device)]
