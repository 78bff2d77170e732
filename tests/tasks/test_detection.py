"""Detection accuracy against pycocotools and by hand; the agreement's value and gradient."""

import numpy as np
import pytest
import supervision as sv
import torch

from accmpeg.tasks import Dense, get_task
from tests.tasks.coco_reference import coco_average_precision

task = get_task("detection", score_threshold=0.25)


def detections(*rows, with_scores=True):
    """Rows of x0, y0, x1, y1, class, score."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return sv.Detections(
        xyxy=table[:, :4],
        class_id=table[:, 4].astype(int),
        confidence=table[:, 5] if with_scores else None,
    )


def dense_of(result, classes=3, extra=()):
    """A network's candidates that say exactly what a result says."""
    scores = torch.zeros(len(result), classes)
    scores[torch.arange(len(result)), torch.as_tensor(result.class_id)] = torch.as_tensor(result.confidence)
    return Dense(boxes_xyxy=torch.as_tensor(result.xyxy), scores=scores, frame_size_px=(200, 200))


def random_clip(seed, frames=12):
    """References, and results that resemble them: shifted, missed, doubled, of a wrong class."""
    rng = np.random.default_rng(seed)
    references, results = [], []
    for _ in range(frames):
        truth = []
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.integers(0, 100), rng.integers(0, 100), rng.integers(8, 80), rng.integers(8, 80)
            truth.append((x, y, x + w, y + h, rng.integers(0, 3), 1.0))
        found = [
            (
                *(np.array(row[:4]) + rng.integers(-8, 9, 4) * [1, 1, 0, 0] + [0, 0, 9, 9]),
                row[4],
                rng.random(),
            )
            for row in truth + truth[:2]
            if rng.random() < 0.8
        ]
        found += [(*rng.integers(0, 90, 2), *rng.integers(100, 199, 2), rng.integers(0, 4), rng.random())]
        references.append(detections(*truth, with_scores=False))
        results.append(detections(*found))
    return results, references


def as_coco(result):
    return [
        {
            "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": float((x1 - x0) * (y1 - y0)),
            "category_id": int(class_id),
            **({} if result.confidence is None else {"score": float(result.confidence[i])}),
        }
        for i, ((x0, y0, x1, y1), class_id) in enumerate(zip(result.xyxy, result.class_id, strict=True))
    ]


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_pycocotools(seed):
    results, references = random_clip(seed)
    expected = coco_average_precision(
        "bbox", [as_coco(r) for r in references], [as_coco(r) for r in results], [0.5]
    )
    assert task.clip_accuracy(results, references).value == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected < 0.99


def test_a_result_equals_itself():
    result = detections((0, 0, 50, 50, 0, 0.9), (60, 60, 90, 90, 1, 0.5), (5, 5, 9, 9, 1, 0.1))
    accuracy = task.clip_accuracy([result, result], [result, result])
    assert accuracy.value == accuracy.per_frame_mean == accuracy.extras["f1"] == 1


def test_f1_by_hand():
    reference = detections((0, 0, 10, 10, 0, 0.9), (20, 0, 30, 10, 0, 0.9), (40, 0, 50, 10, 0, 0.2))
    # One found, one missed, one doubled, one below the threshold; the reference at 0.2 does not count.
    result = detections((0, 0, 10, 9, 0, 0.8), (0, 0, 9, 10, 0, 0.7), (20, 0, 30, 10, 0, 0.1))
    extras = task.clip_accuracy([result], [reference]).extras
    assert extras["precision"] == 0.5
    assert extras["recall"] == 0.5
    assert extras["f1"] == 0.5


def test_an_empty_frame_counts_once():
    empty, full = sv.Detections.empty(), detections((0, 0, 10, 10, 0, 0.9))
    accuracy = task.clip_accuracy([empty, full, empty], [empty, full, full])
    assert accuracy.per_frame_mean == pytest.approx(2 / 3)
    assert accuracy.extras["f1_per_frame_mean"] == pytest.approx(2 / 3)
    assert accuracy.extras["f1"] == pytest.approx(2 / 3)


def test_clips_of_different_length_are_refused():
    with pytest.raises(ValueError, match="argument 2"):
        task.clip_accuracy([sv.Detections.empty()], [])


def test_object_boxes_are_the_sure_ones():
    result = detections((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 0, 0.2))
    assert task.object_boxes(result).tolist() == [[0, 0, 10, 10]]


def test_agreement_of_a_result_with_itself_is_its_mean_score():
    result = detections((0, 0, 50, 50, 0, 1.0), (60, 60, 90, 90, 1, 0.8))
    assert float(task.agreement(dense_of(result), result)) == pytest.approx(0.9)


def test_agreement_by_hand():
    reference = detections((0, 0, 10, 10, 0, 0.9))
    # IoU 1/3 is no match: it earns 0.6 · 1/3 and costs a sixth of 0.6; the other class only costs.
    result = detections((5, 0, 15, 10, 0, 0.6), (0, 0, 10, 10, 1, 0.3))
    assert float(task.agreement(dense_of(result), reference)) == pytest.approx(0.2 - 0.6 / 6 - 0.3 / 6)


def test_agreement_falls_as_boxes_shift():
    reference = detections((0, 0, 50, 50, 0, 0.9), (60, 60, 100, 100, 1, 0.7))
    values = []
    for shift in (0, 3, 8, 20):
        moved = detections((shift, 0, 50 + shift, 50, 0, 0.9), (60, 60 + shift, 100, 100 + shift, 1, 0.7))
        values.append(float(task.agreement(dense_of(moved), reference)))
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


@pytest.mark.parametrize("references", [0, 2])
def test_agreement_has_a_gradient(references):
    result = detections((2, 1, 50, 50, 0, 0.9), (60, 60, 90, 92, 1, 0.8), (5, 100, 30, 140, 2, 0.7))
    dense = dense_of(result)
    dense.boxes_xyxy.requires_grad_(True)
    dense.scores.requires_grad_(True)
    task.agreement(dense, result[:references]).backward()
    assert torch.isfinite(dense.scores.grad).all()
    assert dense.scores.grad.abs().sum() > 0
    if references:
        assert dense.boxes_xyxy.grad.abs().sum() > 0


def test_agreement_of_a_dnn_that_says_nothing_is_zero_with_a_gradient():
    nothing = Dense(
        boxes_xyxy=torch.zeros(0, 4), scores=torch.zeros(0, 3, requires_grad=True), frame_size_px=(200, 200)
    )
    agreement = task.agreement(nothing, detections((0, 0, 50, 50, 1, 0.9)))
    assert agreement.item() == 0
    assert agreement.requires_grad
