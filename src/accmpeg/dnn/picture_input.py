"""The pictures that a network reads, as itself says: their name, layout, size and number type.

They are cast to float16, float64, uint8 or int32, a fixed batch is filled up, and a network of one channel
gets their luma (BT.601).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard, InputCard
from accmpeg.errors import DnnError

if TYPE_CHECKING:
    import torch

__all__ = ["PictureInput", "Tensor", "check_size", "wanted_outputs"]

INPUT_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "FP32": np.float32,
    "FP16": np.float16,
    "FP64": np.float64,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "f32": np.float32,
    "f16": np.float16,
    "f64": np.float64,
    "u8": np.uint8,
    "i32": np.int32,
}
"""By the names that ONNX Runtime, the Open Inference Protocol and OpenVINO give them."""


BESIDE: Mapping[str, Callable[[int, int], Any]] = {
    "orig_target_sizes": lambda width_px, height_px: [width_px, height_px],
    "im_shape": lambda width_px, height_px: [height_px, width_px],
    "image_shape": lambda width_px, height_px: [height_px, width_px],
    "scale_factor": lambda *_: [1, 1],
    "pixel_mask": lambda width_px, height_px: np.ones((height_px, width_px)),
}
"""What networks ask for beside the pictures (RT-DETR, D-FINE, DEIM; PaddleDetection; YOLOv3; Hugging Face's
DETR), answered so that boxes come in pixels of the network's own input, all of which counts."""

BESIDE_TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
    "i64": np.int64,
    "i32": np.int32,
    "f32": np.float32,
    "boolean": np.bool_,
}
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue."""


class Tensor(Protocol):
    """What a network says of an input or output. A size that is no number of at least 0 is open."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[Any]: ...


class PictureInput:
    """The one input of a network: pictures, in its own layout and number type.

    `model` is how messages call the network, `layout` what it is taken for where it leaves its channels open.
    Sizes are None where it leaves them open. Raises `DnnError` for a network that reads anything else.
    """

    def __init__(self, model: Path | str, inputs: Sequence[Tensor], layout: str = "NCHW") -> None:
        if not inputs:
            raise DnnError(
                f"{model} has no input: its picture was frozen into it; export the network with the picture "
                "as an argument of forward()"
            )
        self.names = [value.name for value in inputs]
        beside = [value for value in inputs if value.name in BESIDE and value.type in BESIDE_TYPES]
        if len(beside) == len(inputs):
            beside = []
        self._beside = {value.name: value for value in beside}
        inputs = [value for value in inputs if value.name not in self._beside]
        if len(inputs) > 1:
            names = ", ".join(f"'{value.name}'" for value in inputs)
            raise DnnError(
                f"{model} has {len(inputs)} inputs ({names}), a server DNN reads one picture: export the "
                "network without its pre- or postprocessing (for RT-DETR and DETR: outputs logits and boxes, "
                "head 'detr'), or with the others as constants"
            )
        (only,) = inputs
        self.name = only.name
        if only.type not in INPUT_TYPES:
            raise DnnError(
                f"{model} reads {only.type}: export the network with a float32, float16 or uint8 input"
            )
        self.dtype = np.dtype(INPUT_TYPES[only.type])
        shape = [size if isinstance(size, int) and size >= 0 else None for size in only.shape]
        # Detectron2's and torchvision's networks of two stages read one picture without a batch axis.
        self._is_alone = len(shape) == 3
        if self._is_alone:
            shape = [1, *shape]
        ends = shape[1::2] if len(shape) == 4 else []
        is_open = ends == [None, None]
        is_nhwc = layout == "NHWC" if is_open else ends[1:] in ([1], [3]) and ends[0] not in (1, 3)
        channels = shape[3 if is_nhwc else 1] if ends else 0
        if channels not in ((1, 3) if self._is_alone else (1, 3, None)):
            raise DnnError(
                f"{model} reads {only.shape}, not pictures of (batch, 3, height, width) or (batch, height, "
                "width, 3): export the network with a batch of RGB, BGR or grey pictures as its input"
            )
        self._luma = LUMA if channels == 1 else None
        self.layout = "NHWC" if is_nhwc else "NCHW"
        self.batch = shape[0]
        self.height_px, self.width_px = shape[1:3] if is_nhwc else shape[2:4]

    def check(self, card: DnnCard, model: Path | str) -> None:
        """Raises `DnnError` unless the card says the same."""
        wanted = card.input
        if self._luma is not None and wanted.colour == "bgr":
            self._luma = LUMA[::-1]
        if wanted.name != self.name:
            raise DnnError(
                f"{model} has the input '{self.name}', but the card of {card.name} says '{wanted.name}': "
                "correct input.name"
            )
        if wanted.layout != self.layout:
            raise DnnError(
                f"{model} reads {self.layout}, but the card of {card.name} says {wanted.layout}: correct "
                "input.layout"
            )
        if self.dtype.kind in "iu" and not _leaves_pixels(wanted):
            raise DnnError(
                f"{model} reads {self.dtype} pixels and normalises them itself: say input.mean = 0,0,0 and "
                f"input.std = 1,1,1 in the card of {card.name}"
            )
        check_size(card, model, self.width_px, self.height_px)

    def of(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """`(n, 3, height, width)` float32 as the network reads it; a fixed batch is filled up."""
        if self.batch is not None and len(batch) < self.batch:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self.batch - len(batch), axis=0)])
        batch = self._channels(batch)
        if self.layout == "NHWC":
            batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        if self.dtype.kind in "iu":
            batch = np.clip(np.rint(batch), 0, 255)
        return (batch[0] if self._is_alone else batch).astype(self.dtype, copy=False)

    def feed(self, batch: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Everything that the network asks for with a batch; boxes shall be in pixels of its own input."""
        return {self.name: self.of(batch), **self._others(len(batch), *batch.shape[:1:-1])}

    def of_tensor(self, batch: "torch.Tensor") -> "torch.Tensor":
        """The differentiable twin, which stays float32."""
        if self.batch is not None and len(batch) < self.batch:
            batch = batch.repeat(-(-self.batch // len(batch)), 1, 1, 1)[: self.batch]
        batch = self._channels(batch)
        batch = batch.permute(0, 2, 3, 1) if self.layout == "NHWC" else batch
        return batch[0] if self._is_alone else batch

    def feed_tensors(self, batch: "torch.Tensor") -> "list[torch.Tensor]":
        """The differentiable twin of `feed`, in the network's order."""
        import torch

        others = self._others(len(batch), *batch.shape[:1:-1])
        return [
            torch.from_numpy(others[name]).to(batch.device) if name in others else self.of_tensor(batch)
            for name in self.names
        ]

    def _channels(self, batch: Any) -> Any:
        """As many as the network reads."""
        if self._luma is None:
            return batch
        return sum(share * batch[:, i : i + 1] for i, share in enumerate(self._luma))

    def _others(self, pictures: int, width_px: int, height_px: int) -> dict[str, NDArray[Any]]:
        """What the network asks for beside the pictures, once for each."""
        pictures = max(pictures, self.batch or 1)
        found = {}
        for name, value in self._beside.items():
            seen = [height_px, width_px]
            if len(value.shape) == 3:  # a mask may have a size of its own (64x64 in Hugging Face's exports)
                own = zip(value.shape[1:], seen, strict=True)
                seen = [size if isinstance(size, int) and size > 0 else other for size, other in own]
            answer: NDArray[Any] = np.asarray(BESIDE[name](seen[1], seen[0]), BESIDE_TYPES[value.type])
            found[name] = np.stack([answer] * pictures)
        return found


def check_size(card: DnnCard, model: Path | str, width_px: int | None, height_px: int | None) -> None:
    """Raises `DnnError` unless the card has the sizes that a network does not leave open."""
    wanted = card.input
    for size, said, key in (
        (height_px, wanted.height_px, "height_px"),
        (width_px, wanted.width_px, "width_px"),
    ):
        if size is not None and (size != said or wanted.size_multiple is not None):
            raise DnnError(
                f"{model} takes only {width_px or 'any'}x{height_px or 'any'} pictures, but the card of "
                f"{card.name} says input.{key} = {said}"
                + (" with a size_multiple" if wanted.size_multiple is not None else "")
            )


def wanted_outputs(
    card: DnnCard, model: Path | str, found: Collection[str], usual: Sequence[str] | None = None
) -> list[str]:
    """Those that the card names, in its order, or the usual ones, or all; raises `DnnError` without one."""
    wanted = list(card.head.outputs or usual or found)
    missing = next((name for name in wanted if name not in found), None)
    if missing is not None:
        raise DnnError(
            f"{model} has no output '{missing}' (it has {', '.join(map(str, found))}): correct head.outputs "
            f"in the card of {card.name}"
        )
    return wanted


def _leaves_pixels(card: InputCard) -> bool:
    return set(card.mean) == {0.0} and set(card.std) == {1.0}
