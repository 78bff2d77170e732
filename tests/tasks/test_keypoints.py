"""Keypoint accuracy against pycocotools and by hand; the agreement's value and gradient."""

import numpy as np
import pytest
import supervision as sv
import torch

from accmpeg.tasks import Dense, get_task
from accmpeg.tasks.keypoints import BOX_AREA_SHARE, oks_matrix
from tests.tasks.coco_reference import coco_average_precision

task = get_task("keypoints", score_threshold=0.25)


def people(boxes, points, scores, visibility=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    points = np.asarray(points, np.float32).reshape(len(boxes), 17, 2)
    return sv.KeyPoints(
        xy=points,
        keypoint_confidence=np.ones(points.shape[:2], np.float32) if visibility is None else visibility,
        detection_confidence=np.asarray(scores, np.float32),
        class_id=np.zeros(len(boxes), int),
        data={"xyxy": boxes},
    )


def random_clip(seed, frames=8):
    rng = np.random.default_rng(seed)
    references, results = [], []
    for _ in range(frames):
        count = rng.integers(1, 5)
        corner, size = rng.integers(0, 100, (count, 2)), rng.integers(20, 90, (count, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        points = np.round(corner[:, None] + rng.random((count, 17, 2)) * size[:, None])
        visible = (rng.random((count, 17)) < 0.7).astype(np.float32)
        visible[:, 0] = 1
        references.append(people(boxes, points, np.ones(count), visible))
        noise = np.round(rng.normal(0, rng.choice([1, 3, 8], (count, 1, 1)), (count, 17, 2)))
        results.append(people(boxes, points + noise, rng.uniform(0.05, 1, count)))
    return results, references


def as_coco(result, truth):
    entries = []
    for i, (points, box) in enumerate(zip(result.xy, result.data["xyxy"], strict=True)):
        visible = result.keypoint_confidence[i] >= 0.5
        flags = np.where(visible, 2, 0)[:, None] if truth else np.full((17, 1), 2)
        area = float(np.prod(box[2:] - box[:2]) * BOX_AREA_SHARE)
        entry = {
            "keypoints": np.concatenate([points, flags], axis=1).ravel().astype(float).tolist(),
            "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))],
            "area": area,
            "category_id": 0,
        }
        entry |= (
            {"num_keypoints": int(visible.sum())}
            if truth
            else {"score": float(result.detection_confidence[i])}
        )
        entries.append(entry)
    return entries


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_pycocotools(seed):
    results, references = random_clip(seed)
    truth, found = [as_coco(r, True) for r in references], [as_coco(r, False) for r in results]
    expected = coco_average_precision("keypoints", truth, found, np.linspace(0.5, 0.95, 10).tolist())
    accuracy = task.clip_accuracy(results, references)
    assert accuracy.value == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected < 0.99
    expected = coco_average_precision("keypoints", truth, found, [0.5])
    assert accuracy.extras["oks_ap50"] == pytest.approx(expected, abs=1e-6)


def test_oks_by_hand():
    # One keypoint, five pixels off; σ = 1/17, s² = 0.53 · 10000.
    similarity = oks_matrix(
        np.array([[[53.0, 54.0]]]),
        np.array([[[50.0, 50.0]]]),
        np.ones((1, 1), bool),
        np.array([[0, 0, 100, 100]]),
    )
    assert similarity[0, 0] == pytest.approx(np.exp(-25 / (2 * 5300 * (2 / 17) ** 2)))


def test_pck_by_hand():
    box, points = [0, 0, 30, 40], np.tile([[15.0, 20.0]], (17, 1))
    moved = points.copy()
    moved[0] += [0, 11]
    moved[1] += [0, 9]
    reference = people([box], points, [0.9])
    # The diagonal is 50 px, so up to 10 px is near enough: one of 17 keypoints is not.
    assert task.clip_accuracy([people([box], moved, [0.9])], [reference]).extras["pck"] == pytest.approx(
        16 / 17
    )
    nobody = people(np.zeros((0, 4)), np.zeros((0, 17, 2)), [])
    assert task.clip_accuracy([sv.KeyPoints.empty()], [reference]).extras["pck"] == 0
    assert task.clip_accuracy([nobody], [nobody]).value == 1


def test_a_person_without_visible_keypoints_counts_with_all_of_them():
    hidden = people([[0, 0, 50, 90]], np.full((17, 2), 20.0), [0.9], np.zeros((1, 17), np.float32))
    assert task.frame_accuracy(hidden, hidden) == 1


def dense_of(result):
    points = torch.as_tensor(np.concatenate([result.xy, result.keypoint_confidence[..., None]], axis=2))
    return Dense(
        boxes_xyxy=torch.as_tensor(result.data["xyxy"]),
        scores=torch.as_tensor(result.detection_confidence)[:, None],
        keypoints=points,
        frame_size_px=(200, 200),
    )


def test_agreement_falls_as_keypoints_shift_and_has_a_gradient():
    rng = np.random.default_rng(0)
    boxes = [[0, 0, 60, 120], [80, 20, 150, 180]]
    points = np.stack([rng.uniform(box[:2], box[2:], (17, 2)) for box in boxes])
    reference = people(boxes, points, [1.0, 0.8])
    values = [
        float(task.agreement(dense_of(people(boxes, points + shift, [1.0, 0.8])), reference))
        for shift in (0, 2, 5, 9)
    ]
    assert values[0] == pytest.approx(0.9)
    assert values == sorted(values, reverse=True)

    dense = dense_of(people(boxes, points + 2, [1.0, 0.8]))
    dense.keypoints.requires_grad_(True)
    task.agreement(dense, reference).backward()
    assert torch.isfinite(dense.keypoints.grad).all()
    assert dense.keypoints.grad.abs().sum() > 0


def test_agreement_without_references_still_has_a_gradient():
    dense = dense_of(people([[0, 0, 60, 120]], np.full((17, 2), 20.0), [0.6]))
    dense.scores.requires_grad_(True)
    task.agreement(dense, sv.KeyPoints.empty()).backward()
    assert dense.scores.grad.tolist() == [[pytest.approx(-1 / 6)]]
