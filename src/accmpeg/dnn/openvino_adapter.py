"""ONNX files in OpenVINO: about half the time of ONNX Runtime on a CPU that computes in bfloat16."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard, check_options
from accmpeg.dnn.onnx_adapter import OnnxNetwork
from accmpeg.dnn.picture_input import Tensor
from accmpeg.errors import CardError, DnnError, MissingExtraError, WeightsError, one_line

__all__ = ["open_openvino"]

PRECISIONS = ("f32", "bf16")
LARGEST_ERROR = 0.1
"""Of the outputs in bfloat16, as RMS over that in float32: 0.01 to 0.03 where it works."""


def open_openvino(card: DnnCard, model: Path, threads: int | None, device: str) -> OnnxNetwork:
    """Opens an ONNX file for OpenVINO's CPU plugin; gradients are those of the file, in float32.

    The card's `options.precision` is `f32` (the default) or `bf16`: about half the time on a CPU that has
    bfloat16, and answers that differ a little. Raises `CardError` for another option, `DnnError` for a device
    that is not the CPU, a network that does not fit its card or that bfloat16 spoils, `WeightsError` for a
    file that is no network, and `MissingExtraError` without OpenVINO.
    """
    check_options(card, ["precision"])
    precision = card.options.get("precision", "f32")
    if precision not in PRECISIONS:
        raise CardError(f"{card.name}: options.precision = {precision!r}: use {' or '.join(PRECISIONS)}")
    if device != "cpu":
        raise DnnError(f"the adapter 'openvino' runs on the CPU, not on '{device}': use 'onnx' there")
    network = OnnxNetwork(card, model, _OpenVinoSession(card, model, threads, str(precision)))
    if precision != "f32":
        _check_precision(
            card, network, OnnxNetwork(card, model, _OpenVinoSession(card, model, threads, "f32"))
        )
    return network


def _check_precision(card: DnnCard, network: OnnxNetwork, exact: OnnxNetwork) -> None:
    """Some networks overflow (OpenVINO 2026.4 on `deimv2_femto`), and nothing else would tell."""
    height_px, width_px = card.input.height_px, card.input.width_px
    blocks = np.random.default_rng(0).uniform(0, 255, (3, -(-height_px // 32), -(-width_px // 32)))
    pixels = blocks[:, np.arange(height_px) // 32][..., np.arange(width_px) // 32]
    mean, std = (np.array(each)[:, None, None] for each in (card.input.mean, card.input.std))
    picture = ((pixels - mean) / std).astype(np.float32)[None]
    for found, wanted in zip(network.run(picture), exact.run(picture), strict=True):
        # Sorted: of a network that ranks its objects, two that are nearly alike may change places.
        found, wanted = np.sort(found, axis=None).astype(float), np.sort(wanted, axis=None).astype(float)
        error = np.sqrt(np.mean((found - wanted) ** 2) / max(np.mean(wanted**2), 1e-12))
        if not error <= LARGEST_ERROR:
            raise DnnError(
                f"OpenVINO computes {card.name} wrongly in bfloat16 (outputs off by more than "
                f'{LARGEST_ERROR:.0%}): say options.precision = "f32" in its card'
            )


@dataclass(frozen=True, slots=True)
class _Port:
    name: str
    type: str
    shape: list[int]


class _OpenVinoSession:
    """A compiled network with the three methods of an ONNX Runtime session that `OnnxNetwork` calls."""

    def __init__(self, card: DnnCard, model: Path, threads: int | None, precision: str) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise MissingExtraError("the adapter 'openvino'", "openvino") from error
        hints: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
            # Pinned, one thread of each of two processes would share the first core.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            hints["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = openvino.Core().compile_model(str(model), "CPU", hints)
        # OpenVINO raises RuntimeError for whatever it can't read or build.
        except Exception as error:
            raise WeightsError(f"{model} can't be opened by OpenVINO: {one_line(error)}") from error
        self._request = compiled.create_infer_request()
        wanted = {card.input.name, *(card.head.outputs or ())}
        self._inputs, self._outputs = (
            [_port(port, wanted, f"{kind}{i}") for i, port in enumerate(ports)]
            for kind, ports in (("input", compiled.inputs), ("output", compiled.outputs))
        )

    def get_inputs(self) -> Sequence[Tensor]:
        return self._inputs

    def get_outputs(self) -> Sequence[Tensor]:
        return self._outputs

    def run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self._request.infer([feed[each.name] for each in self._inputs], share_inputs=True)
        found = {each.name: i for i, each in enumerate(self._outputs)}
        return [np.array(self._request.get_output_tensor(found[name]).data) for name in names]


def _port(port: Any, wanted: set[str], otherwise: str) -> _Port:
    """An open size is -1, as `PictureInput` has it. Where OpenVINO has made one value of several, a port has
    all their names, of which the card's goes before others; in a file of its own it may have none."""
    sizes = [size.get_length() if size.is_static else -1 for size in port.get_partial_shape()]
    names = sorted(port.get_names(), key=lambda name: (name not in wanted, name))
    return _Port((names or [otherwise])[0], port.get_element_type().to_string(), sizes)
