import numpy as np
import pytest

from accmpeg.training.quality import frame_quality, mean_quality, threshold_for_recall, top_share


def test_top_share_by_hand() -> None:
    truth = np.log2(np.array([[8.0, 4.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]]))
    assert top_share(truth, truth) == pytest.approx(1)
    # Two of ten macroblocks: the best hold 8 + 4, the predicted ones 8 + 1.
    predicted = np.array([[9.0, 0, 0, 0, 0], [5.0, 0, 0, 0, 0]])
    assert top_share(predicted, truth) == pytest.approx(9 / 12)


def test_frame_quality_by_hand() -> None:
    truth = np.array([[0.0, 1.0, 2.0, 3.0]])
    found = np.array([[0.1, 0.9, 0.6, 0.2]])
    objects = np.array([[False, True, True, True]])
    quality = frame_quality(truth**3, truth, found, objects, 0.5)
    assert quality.rank_correlation == pytest.approx(1)
    assert quality.log_correlation == pytest.approx(np.corrcoef(truth**3, truth)[0, 1])
    assert quality.objects_iou == pytest.approx(2 / 3)
    assert quality.objects_recall == pytest.approx(2 / 3)


def test_mean_leaves_out_what_a_frame_does_not_define() -> None:
    truth = np.array([[0.0, 1.0]])
    nothing = frame_quality(truth, truth, np.zeros((1, 2)), np.zeros((1, 2), bool))
    half = frame_quality(truth, truth, np.array([[1.0, 0.0]]), np.ones((1, 2), bool))
    assert np.isnan(nothing.objects_iou)
    assert mean_quality([nothing, half]).objects_iou == pytest.approx(0.5)
    assert np.isnan(frame_quality(np.zeros((1, 2)), truth).log_correlation)


def test_a_frame_without_objects_is_ranked_apart() -> None:
    truth, wrong = np.array([[0.0, 1.0, 5.0, 0.0, 0.0]]), np.array([[9.0, 1.0, 5.0, 0.0, 0.0]])
    nothing = frame_quality(wrong, truth, np.zeros((1, 5)), np.zeros((1, 5), bool))
    something = frame_quality(truth, truth, np.zeros((1, 5)), np.eye(1, 5, dtype=bool))
    assert np.isnan(nothing.top_share)
    assert nothing.top_share_all == pytest.approx(1 / 32)
    mean = mean_quality([nothing, something])
    assert mean.top_share == pytest.approx(1)
    assert mean.top_share_all == pytest.approx((1 + 1 / 32) / 2)
    # A server DNN without objects has no such frames.
    assert frame_quality(wrong, truth).top_share == pytest.approx(1 / 32)


def test_threshold_reaches_the_recall() -> None:
    probability = np.linspace(0, 1, 101)
    truth = probability > 0.5
    threshold = threshold_for_recall(probability, truth, 0.9)
    assert (probability[truth] >= threshold).mean() >= 0.9
    assert threshold > 0.5
    assert threshold_for_recall(probability, np.zeros(101, bool), 0.9) == 0.5
