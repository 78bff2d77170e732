"""What a score is counted against: three references, each a `FrameReference` per frame.

```
own        the server DNN's answers on the pristine frames
confirmed  those of them that a stronger DNN gives too; what only one of the two sees is no one's fault
labels     true labels; what their file leaves out on purpose is no one's fault
```

*No one's fault* works both ways: a stream that loses such an object loses nothing, and a result that lies on
one and pairs with nothing else costs nothing. See docs/concepts/score.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from accmpeg.dnn.card import DnnCard
from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.labels import unlabelled_xyxy
from accmpeg.tasks.detection import class_ids_of
from accmpeg.tasks.keypoints import boxes_of
from accmpeg.tasks.matching import iou_matrix

__all__ = [
    "FrameReference",
    "confirmed_references",
    "label_references",
    "object_boxes",
    "object_weights",
    "own_references",
]

RAMP_WIDTH = 0.4
RAMP_BELOW_THRESHOLD = 0.15
CONFIRMING_IOU = 0.5
VEHICLES = ("car", "bus", "truck", "train")
"""Where a label file knows cars and none of the others, its cars are all of them."""


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class FrameReference:
    """The truth about one frame: a result of the task, and what counts neither way. Boxes in frame pixels."""

    result: Any
    ignored: NDArray[np.float32] = field(default_factory=_no_boxes)
    """`(k, 4)` objects that may be there or not: a result that overlaps one may be spurious."""
    unlabelled: NDArray[np.float32] = field(default_factory=_no_boxes)
    """`(z, 4)` regions in which objects were not labelled one by one."""
    counts_as: NDArray[np.int64] | None = None
    """For each class of the card the class that it counts as here, −1 for one that can't be judged; None
    where every class counts as itself."""
    min_height_px: float = 0.0
    """Results lower than this can't be judged either."""


def object_weights(result: Any, card: DnnCard) -> NDArray[np.float64]:
    """How much each object counts, `(n,)`: a ramp over scores about the card's threshold; 1 without scores.

    w(s) = clip((s − threshold + 0.15) / 0.4, 0, 1): for a threshold of 0.25 from 0 at 0.1 to 1 at 0.5.
    """
    scores = result.detection_confidence if isinstance(result, sv.KeyPoints) else result.confidence
    if scores is None:
        return np.ones(len(result))
    above = np.asarray(scores, np.float64) - card.score_threshold + RAMP_BELOW_THRESHOLD
    # Rounded, because a score of exactly the ramp's foot must not weigh 1e-17 and be somebody's fault.
    return np.clip(np.round(above / RAMP_WIDTH, 9), 0.0, 1.0)


def object_boxes(result: Any) -> NDArray[np.float32]:
    """The boxes of all objects of a result, `(n, 4)`, whatever their scores."""
    return boxes_of(result) if isinstance(result, sv.KeyPoints) else np.asarray(result.xyxy, np.float32)


def own_references(results: Sequence[Any]) -> list[FrameReference]:
    """The server DNN's own results on the pristine frames."""
    return [FrameReference(result) for result in results]


def confirmed_references(
    own_results: Sequence[Any], own_card: DnnCard, strong_results: Sequence[Any], strong_card: DnnCard
) -> list[FrameReference]:
    """The own results that a stronger DNN confirms, both on the same pristine frames.

    An object counts where both see one of the same class name at an IoU of boxes of at least 0.5, one-to-one,
    each with a weight above 0 by its own card. All other objects of either with a weight are ignored.
    Raises `EvaluationError` where one of the two has no objects or they have no class in common.
    """
    for card in (own_card, strong_card):
        if card.task == "segmentation":
            raise EvaluationError(
                f"{card.name} reports no objects (segmentation), so nothing can be confirmed: "
                "leave the stronger DNN out, or give one with objects"
            )
    numbers = {name: number for number, name in enumerate(own_card.classes)}
    # Own class numbers of the strong card's classes; −1 for what the own DNN does not know.
    renumbered = np.asarray([numbers.get(name, -1) for name in strong_card.classes], np.int64)
    if (renumbered < 0).all():
        raise EvaluationError(
            f"{strong_card.name} can't confirm {own_card.name}: their cards have no class name in common"
        )
    return [
        _confirmed(_with_weight(own, own_card), _with_weight(strong, strong_card), renumbered)
        for own, strong in zip(own_results, strong_results, strict=True)
    ]


def _with_weight(result: Any, card: DnnCard) -> Any:
    return result[object_weights(result, card) > 0] if len(result) else result


def _confirmed(own: Any, strong: Any, renumbered: NDArray[np.int64]) -> FrameReference:
    own_boxes, strong_boxes = object_boxes(own), object_boxes(strong)
    if len(own) == 0 or len(strong) == 0:
        return FrameReference(own[:0] if len(own) else own, np.concatenate([own_boxes, strong_boxes]))
    overlap = np.asarray(iou_matrix(own_boxes, strong_boxes), np.float64)
    overlap[class_ids_of(own)[:, None] != renumbered[class_ids_of(strong)][None, :]] = 0.0
    overlap[overlap < CONFIRMING_IOU] = 0.0
    rows, cols = linear_sum_assignment(overlap, maximize=True)
    paired = overlap[rows, cols] > 0
    mine, theirs = np.zeros(len(own), np.bool_), np.zeros(len(strong), np.bool_)
    mine[rows[paired]], theirs[cols[paired]] = True, True
    return FrameReference(own[mine], np.concatenate([own_boxes[~mine], strong_boxes[~theirs]]))


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def label_references(
    labels: Sequence[sv.Detections],
    label_classes: Sequence[str],
    card: DnnCard,
    *,
    min_height_px: float = 0.0,
) -> list[FrameReference] | None:
    """True labels (`read_coco`) by the class numbers of a card; every label weighs 1.

    Classes that the file does not know can't be judged, and neither can objects lower than `min_height_px`.
    A file that knows `car` and no other vehicle counts bus, truck and train as cars. Capitals and underscores
    in names do not matter. None where the DNN does not detect, or knows no class of the file: its results
    can't be judged by these labels.
    """
    if card.task != "detection":
        return None
    label_classes = [_plain(name) for name in label_classes]
    numbers = {_plain(name): number for number, name in enumerate(card.classes)}
    merged = "car" in label_classes and not set(VEHICLES[1:]) & set(label_classes)
    groups = {name: VEHICLES if merged and name == "car" else (name,) for name in label_classes}
    counts_as = np.full(len(card.classes), -1, np.int64)
    of_label = np.full(len(label_classes), -1, np.int64)
    for label_class, name in enumerate(label_classes):
        members = [numbers[member] for member in groups[name] if member in numbers]
        if members:
            of_label[label_class] = members[0]
            counts_as[members] = members[0]
    if (counts_as < 0).all():
        return None
    references = []
    for frame in labels:
        boxes = np.asarray(frame.xyxy, np.float32).reshape(-1, 4)
        class_ids = of_label[class_ids_of(frame)]
        small = boxes[:, 3] - boxes[:, 1] < min_height_px
        judged = (class_ids >= 0) & ~small
        references.append(
            FrameReference(
                sv.Detections(xyxy=boxes[judged], class_id=class_ids[judged]),
                boxes[(class_ids >= 0) & small],
                unlabelled_xyxy(frame),
                counts_as,
                min_height_px,
            )
        )
    return references
