"""An AccModel on the camera: a frame in, scores per macroblock out; ONNX Runtime or OpenVINO, no PyTorch.

>>> model = AccModel.load("yolo11n.onnx")  # doctest: +SKIP
>>> scores = model.predict(frame)  # doctest: +SKIP
>>> scores.accgrad.shape  # of a 1280×720 frame  # doctest: +SKIP
(45, 80)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from accmpeg.accmodel.card import AccModelCard, card_path, read_accmodel_card, verified_weights
from accmpeg.errors import AccModelError, MissingExtraError, UsageError
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.planes import Planes, frame_planes

__all__ = ["AccModel", "Runtime", "Scores", "first_line"]

Runtime = Literal["onnxruntime", "openvino"]
FloatMap = NDArray[np.float32]

_INPUTS = {"y": 1, "uv": 2}


@dataclass(frozen=True, slots=True)
class Scores:
    """Predictions on a frame's `MacroblockGrid`, both `(rows, cols)` float32.

    `accgrad` is log₂ AccGrad; `objects` the probability that the server DNN reports an object there, None for
    server DNNs without objects.
    """

    accgrad: FloatMap
    objects: FloatMap | None = None


class AccModel:
    """A loaded AccModel; `predict` may be called for frames of any size, from one thread at a time."""

    def __init__(self, card: AccModelCard, infer: Callable[[Planes], FloatMap]) -> None:
        self.card = card
        self._infer = infer

    @classmethod
    def load(cls, path: str | Path, *, threads: int = 1, runtime: Runtime = "onnxruntime") -> "AccModel":
        """Loads by card or ONNX file.

        Raises `CardError` for a bad card, `WeightsError` for weights that are missing or differ from it, and
        `AccModelError` where the weights are no AccModel.
        """
        file, card = card_path(path), read_accmodel_card(path)
        weights = verified_weights(card, file)
        if runtime == "onnxruntime":
            return cls.of_weights(card, weights, str(file), threads=threads)
        if runtime == "openvino":
            return cls(card, _openvino(weights, file, threads))
        raise UsageError(f"there is no runtime '{runtime}': use onnxruntime or openvino")

    @classmethod
    def of_weights(cls, card: AccModelCard, weights: bytes, where: str, *, threads: int = 1) -> "AccModel":
        """From ONNX bytes that came from `where`; raises `AccModelError` where they are no AccModel."""
        return cls(card, _onnxruntime(weights, where, threads))

    @property
    def object_threshold(self) -> float:
        """Probability from which a macroblock counts as an object, calibrated for the card's recall."""
        return self.card.calibration.object_threshold

    def predict(self, frame: av.VideoFrame) -> Scores:
        """Scores of a yuv420p frame; raises `AccModelError` where the runtime fails."""
        return self.score(frame_planes(frame, self.card.long_side_px), frame.width, frame.height)

    def score(self, planes: Planes, width_px: int, height_px: int) -> Scores:
        """Scores of a frame of `width_px` × `height_px` whose planes were made before."""
        maps = self._infer(planes)
        if maps.ndim != 3 or len(maps) != len(self.card.outputs) or not np.isfinite(maps).all():
            raise AccModelError(
                f"the AccModel {self.card.name} gives {maps.shape} where its card names "
                f"{len(self.card.outputs)} maps (maps, rows, columns), or no numbers in it: its weights are "
                "of another network, or broken; train it again"
            )
        grid = MacroblockGrid(width_px, height_px)
        sampled = {
            name: grid.resample(values, *values.shape)
            for name, values in zip(self.card.outputs, maps, strict=True)
        }
        logit = sampled.get("objects")
        objects = None if logit is None else (1 / (1 + np.exp(-np.clip(logit, -30, 30)))).astype(np.float32)
        return Scores(sampled["accgrad"], objects)


def _onnxruntime(weights: bytes, file: str, threads: int) -> Callable[[Planes], FloatMap]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would burn the encoder's CPU between two maps.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise AccModelError(f"ONNX Runtime can't load the weights of {file}: {first_line(error)}") from error
    names = sorted(value.name for value in session.get_inputs())
    if names != sorted(_INPUTS):
        raise AccModelError(f"the weights of {file} have the inputs {names}, an AccModel has {list(_INPUTS)}")

    def infer(planes: Planes) -> FloatMap:
        try:
            (output,) = session.run(None, {"y": planes.y[None, None], "uv": planes.uv[None]})
        except Exception as error:
            raise AccModelError(f"the AccModel of {file} failed: {first_line(error)}") from error
        maps: FloatMap = np.asarray(output)
        return maps[0] if maps.ndim else maps

    return infer


def _openvino(weights: bytes, file: Path, threads: int) -> Callable[[Planes], FloatMap]:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("the OpenVINO runtime", "openvino") from error
    try:
        core = openvino.Core()
        # By itself OpenVINO computes in bfloat16 where a CPU has it: maps would depend on the camera's CPU.
        hints: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            # Pinned, one thread of each of two cameras would share the first core.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(core.read_model(weights), "CPU", hints)
        request = compiled.create_infer_request()
    except Exception as error:
        raise AccModelError(f"OpenVINO can't load the weights of {file}: {first_line(error)}") from error

    def infer(planes: Planes) -> FloatMap:
        try:
            result = request.infer({"y": planes.y[None, None], "uv": planes.uv[None]})
        except Exception as error:
            raise AccModelError(f"the AccModel of {file} failed: {first_line(error)}") from error
        maps: FloatMap = np.array(result[0])
        return maps[0] if maps.ndim else maps

    return infer


def first_line(error: Exception) -> str:
    """What a library's error says, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
