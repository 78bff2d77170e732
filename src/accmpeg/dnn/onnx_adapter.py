"""ONNX files: inference in ONNX Runtime, gradients through PyTorch (`onnx_gradient`)."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.device import cuda_index
from accmpeg.dnn.onnx_files import external_files
from accmpeg.dnn.picture_input import PictureInput, Tensor, wanted_outputs
from accmpeg.errors import DnnError, NoGradientError, WeightsError, one_line

if TYPE_CHECKING:
    import torch

__all__ = ["OnnxNetwork", "Session", "open_onnx", "open_session"]

ERRORS, NOTHING = 3, 4
"""What ONNX Runtime writes to the terminal."""


def open_onnx(card: DnnCard, model: Path, threads: int | None, device: str) -> "OnnxNetwork":
    """Opens an ONNX file; raises `WeightsError` if it is none, `DnnError` if it does not fit its card."""
    return OnnxNetwork(card, model, open_session(model, threads, device))


def open_session(model: Path, threads: int | None = None, device: str = "cpu") -> ort.InferenceSession:
    """An ONNX Runtime session; `threads` None leaves the number to the runtime.

    Raises `DnnError` where `device` can't be used, `WeightsError` for a file that is no network.
    """
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # Idle threads otherwise spin, and take the cores from decoding and encoding beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    gpu = cuda_index(device)
    # What it raises says why it failed, but not which library of CUDA is missing.
    options.log_severity_level = NOTHING if gpu is None else ERRORS
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
            raise DnnError(f"'{device}' can't be used by ONNX Runtime: {one_line(error)}") from error
        raise WeightsError(f"{model} can't be opened as an ONNX network: {_told(model, error)}") from error
    if gpu is not None and "CUDAExecutionProvider" not in session.get_providers():
        raise DnnError(
            f"'{device}' can't be used by ONNX Runtime: there is no GPU, or a library of CUDA or cuDNN is "
            "missing (its own message above says which); put it right, or use the device 'cpu'"
        )
    return session


def _told(model: Path, error: Exception) -> str:
    """What ONNX Runtime says, with the way out where it is known."""
    missing = [file for file in external_files(model) if not file.exists()] if model.is_file() else []
    if missing:
        names = ", ".join(file.name for file in missing)
        return f"its weights are in {names}, which is missing: put it beside {model.name}"
    newer = re.search(r"(Opset|IR version):? (\d+)", str(error))
    if newer:
        return (
            f"its {newer[1]} {newer[2]} is newer than this ONNX Runtime: update onnxruntime, or export the "
            "network with an older opset"
        )
    if "Protobuf parsing failed" in str(error):
        return "it is no ONNX file, or cut off, or a pointer to one, which `git lfs pull` replaces"
    said = _said(error)
    if "not a registered function/op" in said or "No opset import" in said:
        return f"{said}; export it without operators of other programs, such as TensorRT's suppression"
    return said


def _said(error: Exception) -> str:
    """What ONNX Runtime says, without its codes and the places in its own source."""
    return one_line(re.sub(r"^.*(failed|Message):|/\S+:\d+ [^/]*?\) (?=\S)", "", str(error)))


class Session(Protocol):
    """What runs the graph: an `onnxruntime.InferenceSession`, or what behaves as one."""

    def get_inputs(self) -> Sequence[Tensor]: ...
    def get_outputs(self) -> Sequence[Tensor]: ...
    def run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> Sequence[Any]: ...


class OnnxNetwork:
    """One ONNX graph with a single picture input."""

    def __init__(self, card: DnnCard, model: Path, session: Session) -> None:
        self._card = card
        self._model = model
        self._session = session
        self._input = PictureInput(model, session.get_inputs(), card.input.layout)
        self._input.check(card, model)
        self._outputs = wanted_outputs(card, model, [value.name for value in session.get_outputs()])
        self.max_batch: int | None = self._input.batch

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Raw outputs for `(n, 3, height, width)`; raises `DnnError`."""
        try:
            outputs = self._session.run(self._outputs, self._input.feed(batch))
        except Exception as error:
            free = self._card.input.size_multiple is not None
            way_out = "; if it can't take this size, correct input.size_multiple in its card" if free else ""
            raise DnnError(
                f"{self._card.name} failed on an input of {batch.shape}: {_said(error)}{way_out}"
            ) from error
        named = zip(outputs, self._outputs, strict=True)
        return [self._numbers(output, name, len(batch)) for output, name in named]

    def differentiable(self, device: str) -> "Callable[[torch.Tensor], Sequence[torch.Tensor]]":
        """The graph as a PyTorch module with frozen weights; raises `NoGradientError` if it can't be made."""
        # PyTorch takes seconds to import, and a server that only runs the network needs none.
        from accmpeg.dnn.onnx_gradient import onnx_module

        module = onnx_module(self._card.name, self._model, device)
        import torch

        names = [output.name for output in self._session.get_outputs()]
        picked = [names.index(name) for name in self._outputs]

        def run(batch: torch.Tensor) -> list[torch.Tensor]:
            try:
                with warnings.catch_warnings():
                    # onnx2torch's slices index with a list, which PyTorch remarks on once.
                    warnings.simplefilter("ignore", UserWarning)
                    outputs = module(*self._input.feed_tensors(batch))
            # onnx2torch meets shapes and modes that it does not know only now.
            except Exception as error:
                raise NoGradientError(
                    f"{self._card.name} fails in PyTorch after its conversion ({one_line(error)}); export "
                    "it with opset 17 or as a .pt2 file, or use the black-box mode"
                ) from error
            outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
            named = zip(picked, self._outputs, strict=True)
            return [self._cut(outputs[i], name, len(batch)) for i, name in named]

        return run

    def _numbers(self, output: Any, name: str, pictures: int) -> NDArray[Any]:
        # A list is a sequence of tensors, as many as the network likes, which is no array.
        array = np.asarray(output if isinstance(output, np.ndarray | np.generic) else None)
        if array.dtype.kind not in "fiub":
            raise DnnError(
                f"the output '{name}' of {self._card.name} holds no numbers: name those that do as "
                "head.outputs in its card"
            )
        return np.asarray(self._cut(array, name, pictures))

    def _cut(self, output: Any, name: str, pictures: int) -> Any:
        """Without the answers to what filled a fixed batch."""
        whole = self._input.batch or 1
        if whole == 1:  # then it may be without a batch axis
            return output
        if output.ndim == 0 or len(output) != whole:
            raise DnnError(
                f"the output '{name}' of {self._card.name} is {tuple(output.shape)} for {whole} pictures: "
                "export the network with a batch of 1, or with outputs that have a batch axis"
            )
        return output[:pictures]
