"""Labelling one frame: qualities, reference, accuracy gradient, planes; in any process, on any machine."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.errors import AccmpegError, DnnAwayError, NoGradientError
from accmpeg.media.decoder import encode_still
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.planes import frame_planes
from accmpeg.tasks.arrays import result_arrays
from accmpeg.training.labels import ACCGRAD_LOG2_FLOOR, Label, pack_label
from accmpeg.training.reading import Job, Passed
from accmpeg.training.settings import LabelSettings

if TYPE_CHECKING:
    from accmpeg.dnn.base import DifferentiableDnn

__all__ = ["Labeller", "Outcome", "log2_accgrad", "work_here"]


LEAST_LIKENESS = 0.5
"""Accuracy of PyTorch's answers against the runtime's: about 1, for half precision a little less."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a packed label, a skipped frame (`reason`), or a `fatal` reason to stop all work.

    `flat`: the label is the same for all macroblocks, so it says nothing.
    """

    clip: str
    source: str
    frame_index: int
    checksum: int | None = None
    """Of the picture."""
    packed: bytes = b""
    reason: str | None = None
    fatal: bool = False
    flat: bool = False


def log2_accgrad(accgrad: NDArray[np.float32]) -> NDArray[np.float32]:
    """log₂ of an AccGrad map; zeros become `ACCGRAD_LOG2_FLOOR`."""
    return np.log2(np.maximum(accgrad, np.float32(2.0**ACCGRAD_LOG2_FLOOR)))


class Labeller:
    """Labels frames with one server DNN: `label` makes one, `work` makes what is filed."""

    def __init__(
        self, card: Path, settings: LabelSettings, *, threads: int | None = None, device: str = "cpu"
    ):
        # PyTorch is imported here, in each process, so that a parent with workers stays small.
        from accmpeg.dnn.base import load_dnn

        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self.settings = settings
        self._dnn = load_dnn(card, threads=threads, device=device)
        self._differentiable = None if settings.black_box else self._dnn.differentiable(device)
        self._is_proven = False

    def label(self, frame: VideoFrame) -> Label:
        """The label of a pristine frame (yuv420p). Raises an `AccmpegError` where there can be none."""
        settings, task = self.settings, self._dnn.task
        high, _ = encode_still(frame, settings.qp_high)
        low, _ = encode_still(frame, settings.qp_low)
        reference = self._dnn.infer(high)
        if self._differentiable is None:
            from accmpeg.training.blackbox import black_box_gradient

            accgrad = black_box_gradient(
                self._dnn, reference, high, low, at=settings.at, inferences=settings.black_box or 0
            )
        else:
            from accmpeg.training.gradient import accuracy_gradient

            accgrad = accuracy_gradient(self._differentiable, task, reference, high, low, at=settings.at)
            self._prove(self._differentiable, reference, high)
        boxes = task.object_boxes(reference)
        grid = MacroblockGrid(frame.width, frame.height)
        return Label(
            accgrad_log2=log2_accgrad(accgrad),
            objects=None if boxes is None else grid.cover_boxes(boxes),
            planes=frame_planes(frame),
            width_px=frame.width,
            height_px=frame.height,
            result=result_arrays(reference),
        )

    def _prove(self, twin: "DifferentiableDnn", reference: Any, high: VideoFrame) -> None:
        """Holds PyTorch's answer against the runtime's, once: an operator that is translated wrongly makes
        every label wrong, and nothing in a label would tell."""
        boxes = self._dnn.task.object_boxes(reference)
        if self._is_proven or (boxes is not None and not len(boxes)):
            return
        accuracy = self._dnn.accuracy_of(twin, high)
        if not accuracy >= LEAST_LIKENESS:
            raise NoGradientError(
                f"PyTorch gives other answers for {self._dnn.card.name} than its runtime (accuracy "
                f"{accuracy:.2f} on a frame), so its gradient is another network's: `accmpeg models check` "
                "measures it; export it as a .pt2 file"
            )
        self._is_proven = True

    def work(self, job: Job) -> Outcome:
        """Labels a job's frame; what goes wrong comes back as an `Outcome`."""
        made = Outcome(job.clip, job.source, job.frame_index, job.checksum)
        try:
            label = self.label(job.frame())
        except NoGradientError as error:
            return replace(made, reason=f"{error}: use --black-box N", fatal=True)
        except DnnAwayError as error:
            return replace(made, reason=str(error), fatal=True)
        except AccmpegError as error:
            return replace(made, reason=str(error))
        flat = label.accgrad_log2.size > 1 and not np.ptp(label.accgrad_log2)
        return replace(made, packed=pack_label(label), flat=bool(flat))


_loaded = lru_cache(maxsize=1)(Labeller)
"""With the first job, and once in a process: a network takes seconds to load."""


def work_here(
    item: Job | Passed, *, card: Path, settings: LabelSettings, threads: int | None, device: str
) -> Outcome | Passed:
    """`Labeller.work` in whatever process this is; what is no job is handed on."""
    if isinstance(item, Passed):
        return item
    try:
        labeller = _loaded(card, settings, threads=threads, device=device)
    except AccmpegError as error:
        return Outcome(item.clip, item.source, item.frame_index, reason=str(error), fatal=True)
    return labeller.work(item)
