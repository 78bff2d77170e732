"""Server DNNs: one way to load, run and differentiate any of them.

```
card ─▶ adapter ─▶ Network  (raw outputs: NumPy to run, tensors to differentiate)
     └▶ head    ─▶ Dense    (boxes, scores, … in frame pixels) ─▶ result of the task
```
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard, read_card
from accmpeg.dnn.heads import HEADS, Head, get_head
from accmpeg.dnn.heads.base import has_batch_axes, of_picture
from accmpeg.dnn.network import Network
from accmpeg.dnn.preprocess import InputGeometry, Preprocessor, input_from_rgb
from accmpeg.dnn.registry import get_adapter
from accmpeg.dnn.results import result_of
from accmpeg.dnn.weights import check_hash
from accmpeg.errors import DnnAwayError, DnnError, NoGradientError
from accmpeg.tasks import Dense, Task, get_task

if TYPE_CHECKING:
    import torch

__all__ = ["DifferentiableDnn", "ServerDnn", "load_dnn"]

log = logging.getLogger(__name__)


class DifferentiableDnn:
    """A server DNN as a differentiable function of a frame's RGB pixels."""

    def __init__(
        self,
        card: DnnCard,
        head: Head,
        network: "Callable[[torch.Tensor], Sequence[torch.Tensor]]",
        device: str,
    ) -> None:
        self.card = card
        self.device = device
        self._head = head
        self.network = network

    def __call__(self, frame_rgb: "torch.Tensor") -> Dense:
        """`(3, H, W)` float RGB, 0 to 255, on `device`; returns tensors in frame pixels."""
        picture, geometry = input_from_rgb(frame_rgb, self.card.input)
        return self._head.dense(of_picture(self._head, self.network(picture), 0), geometry)


class ServerDnn:
    """A server DNN ready to run; one thread at a time. Made by `load_dnn`."""

    def __init__(self, card: DnnCard, network: Network, head: Head) -> None:
        self.card = card
        self.network = network
        self.task: Task = get_task(
            card.task,
            score_threshold=card.score_threshold,
            visibility_threshold=card.keypoints.visibility_threshold if card.keypoints else 0.5,
        )
        self._head = head
        self._preprocess = Preprocessor(card.input)
        self._one_by_one = True
        """Until the first answer shows that the outputs have a batch axis."""
        self._never_more = False
        """Traced with one picture, a graph may hold that number, whatever its input says."""

    def infer(self, frame: VideoFrame, source_size_px: tuple[int, int] | None = None) -> Any:
        """The task's result for one frame: every candidate above a low floor, not only the sure ones.

        A frame that was scaled for the stream gives results in the pixels of its source if told their
        `source_size_px`. Raises `DnnError` where the network fails or returns NaN.
        """
        return self.infer_many([frame], source_size_px)[0]

    def infer_many(
        self,
        frames: Sequence[VideoFrame],
        source_size_px: tuple[int, int] | None = None,
        *,
        sure_only: bool = False,
    ) -> list[Any]:
        """Results of several frames, batched where the network and the frame sizes allow it.

        `sure_only` leaves out the candidates below the card's score threshold, and the work they cost.
        """
        prepared = [self._preprocess(frame, source_size_px) for frame in frames]
        results: list[Any] = []
        while len(results) < len(prepared):
            waiting = prepared[len(results) :]
            shape = waiting[0][0].shape
            same = next((i for i, (picture, _) in enumerate(waiting) if picture.shape != shape), len(waiting))
            alone = self._one_by_one or self._never_more
            group = waiting[: 1 if alone else min(same, self.network.max_batch or same)]
            outputs = self._answers(np.stack([picture for picture, _ in group]))
            if outputs is None:
                self._never_more = True
                log.warning("%s can't answer several pictures at once: it gets one at a time", self.card.name)
                continue
            self._one_by_one = not has_batch_axes(self._head, outputs)
            results += [
                self._result(of_picture(self._head, outputs, i), geometry, sure_only)
                for i, (_, geometry) in enumerate(group)
            ]
        return results

    def _answers(self, batch: NDArray[np.float32]) -> list[NDArray[Any]] | None:
        """The network's outputs; None where it can't answer several pictures at once, but perhaps one."""
        try:
            outputs = self.network.run(batch)
        except DnnError as error:
            elsewhere = isinstance(error, DnnAwayError) or not get_adapter(self.card.adapter).runs_here
            if len(batch) == 1 or elsewhere:
                raise
            return None
        whole = len(batch) == 1 or all(output.shape[:1] == (len(batch),) for output in outputs)
        return outputs if whole else None

    def dense(self, frame: VideoFrame) -> Dense:
        """Everything that the network says of a frame, before thresholds and suppression."""
        picture, geometry = self._preprocess(frame)
        return self._dense(of_picture(self._head, self.network.run(picture[None]), 0), geometry)

    def differentiable(self, device: str = "cpu") -> DifferentiableDnn:
        """The same DNN in PyTorch, for gradients; raises `NoGradientError` where it has none."""
        if not HEADS[self.card.head.name].has_gradient:
            raise NoGradientError(
                f"{self.card.name} gives finished classes, which have no gradient: export it without the "
                "argmax (head 'logits'), or use the black-box mode"
            )
        return DifferentiableDnn(self.card, self._head, self.network.differentiable(device), device)

    def accuracy_of(self, twin: DifferentiableDnn, frame: VideoFrame) -> float:
        """Accuracy of PyTorch's answer for a frame against the runtime's, 0 to 1, from the same input."""
        import torch

        picture, geometry = self._preprocess(frame)
        with torch.no_grad():
            outputs = twin.network(torch.from_numpy(picture[None]).to(twin.device))
        arrays = of_picture(self._head, [output.cpu().numpy() for output in outputs], 0)
        return self.task.frame_accuracy(self._result(arrays, geometry, sure_only=False), self.infer(frame))

    def _result(self, outputs: list[NDArray[Any]], geometry: InputGeometry, sure_only: bool) -> Any:
        return result_of(self._dense(outputs, geometry), self.card, sure_only=sure_only)

    def _dense(self, outputs: list[NDArray[Any]], geometry: InputGeometry) -> Dense:
        # Half precision is too coarse for pixel coordinates of large frames, and its sums overflow. Small
        # integers wrap around; those of class maps, which have no gradient, are only compared.
        whole = not HEADS[self.card.head.name].has_gradient
        outputs = [
            output.astype(np.float32)
            if output.dtype.itemsize < 4 and not (whole and output.dtype.kind in "iub")
            else output
            for output in outputs
        ]
        # A sum is NaN or infinite as soon as one value is, and costs a fraction of isfinite on each.
        if not all(np.isfinite(np.sum(output)) for output in outputs):
            raise DnnError(
                f"{self.card.name} returned NaN or infinite values: check the card's mean, std and colour, "
                "and the weights"
            )
        try:
            return self._head.dense(outputs, geometry)
        except DnnError as error:
            raise DnnError(f"{self.card.name}: {error}") from None


def load_dnn(card_path: str | Path, *, threads: int | None = None, device: str = "cpu") -> ServerDnn:
    """Loads the server DNN that a card describes.

    `threads` is the number of CPU threads (None: the runtime's choice), `device` "cpu", "cuda" or "cuda:N".
    Raises `CardError` for a bad card, `WeightsError` for missing or changed weights, `DnnError` for a network
    that does not fit its card, `UsageError` for a device that there is not.
    """
    card_path = Path(card_path)
    card = read_card(card_path)
    adapter = get_adapter(card.adapter)
    head = get_head(card)
    model = card_path.parent / card.model
    if adapter.model_is_file:
        check_hash(card, model)
    return ServerDnn(card, adapter.open(card, model, threads, device), head)
