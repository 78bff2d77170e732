"""Mask accuracy against pycocotools; the agreement on masks made of known prototypes."""

import numpy as np
import pytest
import supervision as sv
import torch
from pycocotools import mask as coco_mask

from accmpeg.tasks import Dense, get_task
from tests.tasks.coco_reference import coco_average_precision

task = get_task("instances", score_threshold=0.25)
SIZE = 80


def objects(masks, class_ids, scores=None, compact=True):
    masks = np.asarray(masks, bool).reshape(-1, SIZE, SIZE)
    boxes = sv.mask_to_xyxy(masks).astype(np.float32)
    boxes[:, 2:] += 1
    return sv.Detections(
        xyxy=boxes,
        mask=sv.CompactMask.from_dense(masks, boxes, (SIZE, SIZE)) if compact else masks,
        class_id=np.asarray(class_ids, int),
        confidence=None if scores is None else np.asarray(scores, np.float32),
    )


def disc(x, y, radius):
    rows, cols = np.mgrid[:SIZE, :SIZE]
    return (cols - x) ** 2 + (rows - y) ** 2 <= radius**2


def as_coco(result):
    entries = []
    for i in range(len(result)):
        encoded = coco_mask.encode(np.asfortranarray(np.asarray(result.mask[i]), np.uint8))
        entry = {
            "segmentation": encoded,
            "area": float(coco_mask.area(encoded)),
            "category_id": int(result.class_id[i]),
        }
        entry |= {"bbox": coco_mask.toBbox(encoded).tolist()}
        entries.append(
            entry if result.confidence is None else {**entry, "score": float(result.confidence[i])}
        )
    return entries


@pytest.mark.parametrize("compact", [True, False])
def test_average_precision_equals_pycocotools(compact):
    rng = np.random.default_rng(3)
    references, results = [], []
    for _ in range(6):
        places = rng.integers(15, 65, (rng.integers(1, 5), 2))
        radii = rng.integers(5, 14, len(places))
        classes = rng.integers(0, 2, len(places))
        truth = [disc(*place, radius) for place, radius in zip(places, radii, strict=True)]
        moved = [disc(*(place + rng.integers(-4, 5, 2)), r) for place, r in zip(places, radii, strict=True)]
        references.append(objects(truth, classes, compact=compact))
        results.append(objects(moved, classes, rng.random(len(places)), compact=compact))
    truth, found = [as_coco(r) for r in references], [as_coco(r) for r in results]
    expected = coco_average_precision("segm", truth, found, [0.5], SIZE)
    assert task.clip_accuracy(results, references).value == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected < 0.99


def test_nothing_and_nothing_agree():
    assert task.frame_accuracy(sv.Detections.empty(), sv.Detections.empty()) == 1
    assert task.frame_accuracy(sv.Detections.empty(), objects([disc(30, 30, 9)], [0])) == 0


def dense_of(shift):
    """Two candidates whose masks are exactly one prototype each, at half the frame's resolution."""
    masks = np.stack([disc(25 + shift, 30, 12), disc(55, 50 + shift, 9)])
    boxes = objects(masks, [0, 1]).xyxy
    return Dense(
        boxes_xyxy=torch.tensor(boxes, requires_grad=True),
        scores=torch.tensor([[1.0, 0.0], [0.0, 0.8]], requires_grad=True),
        mask_coefficients=torch.eye(2, requires_grad=True),
        prototypes=torch.as_tensor(masks[:, 1::2, 1::2] * 40.0 - 20.0, dtype=torch.float32),
        frame_size_px=(SIZE, SIZE),
    )


def test_agreement_is_the_mean_score_for_the_same_masks_and_falls_as_they_shift():
    reference = objects([disc(25, 30, 12), disc(55, 50, 9)], [0, 1], [1.0, 0.8])
    values = [float(task.agreement(dense_of(shift), reference).detach()) for shift in (0, 2, 4, 8)]
    assert values[0] == pytest.approx(0.9, abs=0.01)
    assert values == sorted(values, reverse=True)


def test_agreement_has_a_gradient_through_scores_boxes_and_masks():
    dense = dense_of(2)
    task.agreement(dense, objects([disc(25, 30, 12), disc(55, 50, 9)], [0, 1], [1.0, 0.8])).backward()
    for tensor in (dense.boxes_xyxy, dense.scores, dense.mask_coefficients):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0


def test_agreement_without_references_only_costs():
    assert float(task.agreement(dense_of(0), sv.Detections.empty()).detach()) == pytest.approx(-1.8 / 6)
