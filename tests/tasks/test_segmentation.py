"""mIoU and pixel agreement against plain counting; the soft agreement's value and gradient."""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from accmpeg.tasks import Dense, get_task
from accmpeg.tasks.segmentation import IGNORED

task = get_task("segmentation")


def plain_mean_iou(results, references):
    result, reference = (
        np.concatenate([r.ravel() for r in results]),
        np.concatenate([r.ravel() for r in references]),
    )
    counted = reference != IGNORED
    result, reference = result[counted], reference[counted]
    return np.mean(
        [
            ((result == c) & (reference == c)).sum() / ((result == c) | (reference == c)).sum()
            for c in np.unique(reference)
        ]
    )


def random_clip(seed, frames=4):
    rng = np.random.default_rng(seed)
    references = [zoom(rng.integers(0, 5, (3, 4)), 10, order=0).astype(np.uint8) for _ in range(frames)]
    results = []
    for reference in references:
        result = np.roll(reference, 3, axis=1)
        result[5:9] = 6
        reference[:3] = IGNORED
        results.append(result)
    return results, references


@pytest.mark.parametrize("seed", range(4))
def test_mean_iou_equals_plain_counting(seed):
    results, references = random_clip(seed)
    accuracy = task.clip_accuracy(results, references)
    assert accuracy.value == pytest.approx(plain_mean_iou(results, references))
    per_frame = [plain_mean_iou([r], [g]) for r, g in zip(results, references, strict=True)]
    assert accuracy.per_frame_mean == pytest.approx(np.mean(per_frame))
    right = sum(((r == g) & (g != IGNORED)).sum() for r, g in zip(results, references, strict=True))
    assert accuracy.extras["pixel_agreement"] == pytest.approx(
        right / sum((g != IGNORED).sum() for g in references)
    )


def test_mean_iou_by_hand():
    reference, result = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 2]], np.uint8)
    # Class 0: 1 of 2; class 1: 1 of 3; class 2 is not in the reference.
    assert task.frame_accuracy(result, reference) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_another_resolution_of_the_same_map_agrees():
    reference = np.zeros((40, 60), np.uint8)
    reference[:20, 30:] = 1
    assert task.frame_accuracy(reference[::2, ::2], reference) == 1


def test_a_frame_without_labels_is_right():
    assert task.frame_accuracy(np.zeros((4, 4), np.uint8), np.full((4, 4), IGNORED, np.uint8)) == 1


def test_a_class_map_has_no_objects():
    assert task.object_boxes(np.zeros((4, 4), np.uint8)) is None


def test_agreement_is_one_for_a_sure_and_right_network_and_falls_with_errors():
    reference = np.zeros((20, 30), np.uint8)
    reference[:, 15:] = 2
    values = []
    for shift in (0, 1, 4, 9):
        logits = torch.nn.functional.one_hot(torch.as_tensor(np.roll(reference, shift, 1).astype(int)), 4)
        values.append(float(task.agreement(Dense(logits=20.0 * logits.permute(2, 0, 1).float()), reference)))
    assert values[0] == pytest.approx(1, abs=1e-4)
    assert values == sorted(values, reverse=True)


def test_agreement_by_hand():
    # Two pixels, two classes, all probabilities a half: each IoU is 0.5 / (1 + 1 − 0.5).
    value = task.agreement(Dense(logits=torch.zeros(2, 1, 2)), np.array([[0, 1]], np.uint8))
    assert float(value) == pytest.approx(1 / 3)


@pytest.mark.parametrize("label", [1, IGNORED])
def test_agreement_has_a_finite_gradient(label):
    logits = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    task.agreement(Dense(logits=logits), np.full((8, 8), label, np.uint8)).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().sum() > 0) == (label != IGNORED)
