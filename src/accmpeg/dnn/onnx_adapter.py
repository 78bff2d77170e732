"""ONNX files: inference in ONNX Runtime, gradients through onnx2torch."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.device import cuda_index
from accmpeg.dnn.torch_compat import import_onnx2torch
from accmpeg.errors import DnnError, NoGradientError, WeightsError

if TYPE_CHECKING:
    import torch

__all__ = ["OnnxNetwork", "open_onnx", "open_session"]

ERRORS_ONLY = 3


def open_onnx(card: DnnCard, model: Path, threads: int | None, device: str) -> "OnnxNetwork":
    """Opens an ONNX file; raises `WeightsError` if it is none, `DnnError` if it does not fit its card."""
    return OnnxNetwork(card, model, open_session(model, threads, device))


def open_session(model: Path, threads: int | None = None, device: str = "cpu") -> ort.InferenceSession:
    """An ONNX Runtime session; `threads` None leaves the number to the runtime.

    Raises `DnnError` where `device` can't be used, `WeightsError` for a file that is no network.
    """
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle threads otherwise spin, and take the cores from decoding and encoding beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    gpu = cuda_index(device)
    if gpu is not None:
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise DnnError(
                f"this ONNX Runtime has no CUDA, so '{device}' can't be used: install onnxruntime-gpu, or "
                "use the device 'cpu'"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu}))
    try:
        # Its own fallback would go on on the CPU, now or after a failure, and say nothing to its caller.
        session = ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    # ONNX Runtime raises a dozen unrelated classes for a file or a device that it can't use.
    except Exception as error:
        if gpu is not None and "CUDA" in str(error):
            raise DnnError(f"'{device}' can't be used by ONNX Runtime: {_one_line(error)}") from error
        raise WeightsError(f"{model} can't be opened as an ONNX network: {_one_line(error)}") from error
    if gpu is not None and "CUDAExecutionProvider" not in session.get_providers():
        raise DnnError(
            f"'{device}' can't be used by ONNX Runtime: there is no GPU, or a library of CUDA or cuDNN is "
            "missing (its own message above says which); put it right, or use the device 'cpu'"
        )
    return session


class OnnxNetwork:
    """One ONNX graph with a single picture input."""

    def __init__(self, card: DnnCard, model: Path, session: ort.InferenceSession) -> None:
        self._card = card
        self._model = model
        self._session = session
        self._outputs = self._check_names()
        shape = self._check_shape()
        self.max_batch: int | None = shape[0] if isinstance(shape[0], int) else None

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Raw outputs for `(n, 3, height, width)`; raises `DnnError`."""
        try:
            outputs = self._session.run(self._outputs, {self._card.input.name: batch})
        except Exception as error:
            raise DnnError(
                f"{self._card.name} failed on an input of {batch.shape}: {_one_line(error)}"
            ) from error
        return [np.asarray(output) for output in outputs]

    def differentiable(self, device: str) -> "Callable[[torch.Tensor], Sequence[torch.Tensor]]":
        """The graph as a PyTorch module with frozen weights; raises `NoGradientError` if it can't be made."""
        onnx2torch = import_onnx2torch()
        import torch

        try:
            with warnings.catch_warnings():
                # A general remark on resizing; `accmpeg models check` measures what it is about.
                warnings.filterwarnings("ignore", "For linear and cubic interpolation", UserWarning)
                module: torch.nn.Module = onnx2torch.convert(str(self._model)).eval().to(device)
        except Exception as error:
            raise NoGradientError(
                f"{self._card.name} can't be converted to PyTorch, so it has no gradient here "
                f"({_one_line(error)}); use the black-box mode"
            ) from error
        module.requires_grad_(False)
        names = [output.name for output in self._session.get_outputs()]
        picked = [names.index(name) for name in self._outputs]

        def run(batch: torch.Tensor) -> list[torch.Tensor]:
            with warnings.catch_warnings():
                # onnx2torch's slices index with a list, which PyTorch remarks on once.
                warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
                outputs = module(batch)
            outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
            return [outputs[i] for i in picked]

        return run

    def _check_names(self) -> list[str]:
        inputs = [value.name for value in self._session.get_inputs()]
        if inputs != [self._card.input.name]:
            raise DnnError(
                f"{self._model} has the input {' and '.join(map(repr, inputs))}, but the card of "
                f"{self._card.name} says '{self._card.input.name}': correct input.name"
            )
        outputs = [value.name for value in self._session.get_outputs()]
        wanted = self._card.head.outputs or outputs
        missing = [name for name in wanted if name not in outputs]
        if missing:
            raise DnnError(
                f"{self._model} has no output '{missing[0]}' (it has {', '.join(outputs)}): "
                f"correct head.outputs in the card of {self._card.name}"
            )
        return wanted

    def _check_shape(self) -> list[int | str | None]:
        shape: list[int | str | None] = self._session.get_inputs()[0].shape
        card = self._card.input
        if len(shape) != 4 or (shape[1] not in (3, "3") and isinstance(shape[1], int)):
            raise DnnError(f"{self._model} reads {shape}, not pictures of (batch, 3, height, width)")
        for size, wanted, key in (
            (shape[2], card.height_px, "height_px"),
            (shape[3], card.width_px, "width_px"),
        ):
            if isinstance(size, int) and (size != wanted or card.size_multiple is not None):
                raise DnnError(
                    f"{self._model} takes only {shape[3]}x{shape[2]} pictures, but the card of "
                    f"{self._card.name} says input.{key} = {wanted}"
                    + (" with a size_multiple" if card.size_multiple is not None else "")
                )
        return shape


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
