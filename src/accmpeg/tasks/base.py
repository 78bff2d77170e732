"""What every task offers: accuracy of a result against a reference, and a differentiable agreement.

```
server DNN on a frame ─▶ result ──────────▶ frame_accuracy, clip_accuracy (NumPy)
server DNN in PyTorch ─▶ Dense (tensors) ─▶ agreement (a scalar with a gradient)
```
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "ClipAccuracy", "Dense", "Task", "TaskName", "class_name"]

TaskName = Literal["detection", "segmentation", "keypoints", "instances"]

Array = Any
"""A NumPy array or a PyTorch tensor: the same code runs on both."""


def class_name(class_id: int, classes: Sequence[str]) -> str:
    """What a class is called where people read it."""
    return classes[class_id] if 0 <= class_id < len(classes) else f"class {class_id}"


@dataclass(frozen=True, slots=True)
class Dense:
    """Everything a network said about one frame, before thresholds and suppression.

    N candidates, C classes, K keypoints, M mask prototypes. NumPy arrays, or tensors that carry a gradient.
    """

    boxes_xyxy: Array | None = None
    """`(N, 4)`, frame pixels."""
    scores: Array | None = None
    """`(N, C)`, 0 to 1."""
    keypoints: Array | None = None
    """`(N, K, 3)`: x and y in frame pixels, visibility 0 to 1."""
    mask_coefficients: Array | None = None
    """`(N, M)`."""
    prototypes: Array | None = None
    """`(M, h, w)`, covering exactly the frame; the mask logit is Σ coefficient·prototype."""
    logits: Array | None = None
    """`(C, h, w)` per-pixel class logits, covering exactly the frame."""
    class_map: Array | None = None
    """`(h, w)` finished classes, covering exactly the frame: in place of logits, and without a gradient."""
    frame_size_px: tuple[int, int] = (0, 0)
    """Width and height of the frame."""


@dataclass(frozen=True, slots=True)
class ClipAccuracy:
    """Accuracy over a clip, 0 to 1.

    `value` pools all frames; `per_frame_mean` is the mean of `frame_accuracy`; `extras` are the task's other
    measures by name.
    """

    value: float
    per_frame_mean: float
    extras: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """One kind of question put to a server DNN."""

    @property
    def name(self) -> TaskName: ...

    def frame_accuracy(self, result: Any, reference: Any) -> float:
        """Accuracy of one frame's result, 0 to 1; a frame with nothing to find and nothing found is 1."""
        ...

    def clip_accuracy(self, results: Sequence[Any], references: Sequence[Any]) -> ClipAccuracy:
        """Accuracy over a clip; both sequences hold one entry per frame, else `ValueError`."""
        ...

    def object_boxes(self, result: Any) -> NDArray[np.float32] | None:
        """Boxes `(n, 4)` in frame pixels of the reported objects; None where the task has no objects."""
        ...

    def similarity(self, result: Any, reference: Any) -> NDArray[Any] | None:
        """How alike each reported object is to each of the reference, `(n, m)`, 0 to 1, whatever their
        classes and scores; None where the task has no objects."""
        ...

    def agreement(self, dense: Dense, reference: Any) -> Any:
        """How far `dense` (tensors) agrees with `reference`: a differentiable scalar, about 0 to 1."""
        ...
