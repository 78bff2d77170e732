"""Labelling one frame: qualities, reference, accuracy gradient, planes; here or in a spawned process."""

import signal
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.errors import AccmpegError, DnnAwayError, NoGradientError
from accmpeg.media.decoder import encode_still
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.planes import frame_planes
from accmpeg.tasks.arrays import result_arrays
from accmpeg.training.labels import ACCGRAD_LOG2_FLOOR, Label, label_file, write_label
from accmpeg.training.settings import LabelSettings

__all__ = ["Job", "Labeller", "Outcome", "log2_accgrad", "start_worker", "work_here"]


@dataclass(frozen=True, slots=True)
class Job:
    """A frame to label, in a form that crosses process boundaries (tightly packed yuv420p planes)."""

    number: int
    clip: str
    source: str
    frame_index: int
    width_px: int
    height_px: int
    colour: tuple[int, int]
    planes: tuple[bytes, bytes, bytes]

    @classmethod
    def of(cls, frame: VideoFrame, number: int, clip: str, source: str, frame_index: int) -> "Job":
        y, u, v = (plane_view(frame, index).tobytes() for index in range(3))
        colour = int(frame.colorspace), int(frame.color_range)
        return cls(number, clip, source, frame_index, frame.width, frame.height, colour, (y, u, v))

    def frame(self) -> VideoFrame:
        frame = VideoFrame(self.width_px, self.height_px, "yuv420p")
        for index, packed in enumerate(self.planes):
            view = plane_view(frame, index)
            view[:] = np.frombuffer(packed, np.uint8).reshape(view.shape)
        frame.colorspace, frame.color_range = self.colour
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        return frame


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a label, a skipped frame (`reason`), or a `fatal` reason to stop all work.

    `flat`: the label is the same for all macroblocks, so it says nothing.
    """

    reason: str | None = None
    fatal: bool = False
    flat: bool = False


def log2_accgrad(accgrad: NDArray[np.float32]) -> NDArray[np.float32]:
    """log₂ of an AccGrad map; zeros become `ACCGRAD_LOG2_FLOOR`."""
    return np.log2(np.maximum(accgrad, np.float32(2.0**ACCGRAD_LOG2_FLOOR)))


class Labeller:
    """Labels frames with one server DNN: `label` makes one, `work` makes and files one."""

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

    def work(self, job: Job, folder: Path) -> Outcome:
        """Labels a job's frame and writes the file; what goes wrong comes back as an `Outcome`."""
        try:
            label = self.label(job.frame())
            write_label(label_file(folder, job.number), label)
        except NoGradientError as error:
            return Outcome(f"{error}: use --black-box N", fatal=True)
        except DnnAwayError as error:
            return Outcome(str(error), fatal=True)
        except AccmpegError as error:
            return Outcome(str(error))
        except OSError as error:
            return Outcome(f"can't write labels to {folder}: {error.strerror or error}", fatal=True)
        return Outcome(flat=label.accgrad_log2.size > 1 and not np.ptp(label.accgrad_log2))


_start: tuple[Path, LabelSettings] | None = None
_labeller: Labeller | None = None


def start_worker(card: Path, settings: LabelSettings) -> None:
    """Prepares a spawned process; Ctrl-C is left to the parent, which lets it finish its frame."""
    global _start
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _start = (card, settings)


def work_here(job: Job, folder: Path) -> Outcome:
    """`Labeller.work` in a process made ready by `start_worker`."""
    global _labeller
    if _labeller is None:
        assert _start is not None
        # Loaded with the first job, not in the pool's initialiser, whose errors break the pool unexplained.
        try:
            _labeller = Labeller(*_start, threads=1)
        except AccmpegError as error:
            return Outcome(str(error), fatal=True)
    return _labeller.work(job, folder)
