"""The black-box mode: additive cases by hand, and rank agreement with the true gradient."""

import numpy as np
import pytest
from av import VideoFrame
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from scipy.stats import spearmanr

from accmpeg.dnn.base import load_dnn
from accmpeg.media.decoder import encode_still
from accmpeg.training.blackbox import black_box_gradient, tile_gradient
from accmpeg.training.gradient import accuracy_gradient
from accmpeg.training.labelling import label_footage
from accmpeg.training.labels import read_labels
from accmpeg.training.settings import LabelSettings
from tests.dnn.exported import imported, value, write


def test_the_one_macroblock_that_matters_is_found():
    effects = np.zeros((9, 16), np.float32)
    effects[6, 11] = 0.5
    accgrad = tile_gradient(lambda mask: float(effects[mask].sum()), np.ones((9, 16), np.float32), 40)
    np.testing.assert_allclose(accgrad, effects)


def test_a_tile_is_shared_by_magnitude():
    magnitude = np.asarray([[1.0, 3.0]], np.float32)
    # Two inferences: nothing, and the one tile that there is.
    np.testing.assert_allclose(tile_gradient(lambda mask: 8.0 * mask.any(), magnitude, 3), [[2.0, 6.0]])


@given(st.integers(1, 20), st.integers(1, 30), st.integers(2, 80))
def test_every_macroblock_is_covered_within_the_budget(rows, cols, inferences):
    effects = np.random.default_rng(rows * cols).random((rows, cols)).astype(np.float32)
    calls = 0

    def measure(mask):
        nonlocal calls
        calls += 1
        return -float(effects[mask].sum())

    accgrad = tile_gradient(measure, np.ones((rows, cols), np.float32), inferences)
    assert calls <= inferences
    # The effects add up, so no tile may be lost or counted twice, however it was split.
    np.testing.assert_allclose(accgrad.sum(), effects.sum(), rtol=1e-4)


@pytest.mark.parametrize("card", ["segmenter_card", "detector_card"])
def test_it_agrees_in_rank_with_the_true_gradient_of_small_networks(card, request, textured):
    dnn = load_dnn(request.getfixturevalue(card), threads=1)
    original = textured(128, 128)
    (high, _), (low, _) = encode_still(original, 20), encode_still(original, 44)
    reference = dnn.infer(high)
    true = accuracy_gradient(dnn.differentiable(), dnn.task, reference, high, low)
    measured = black_box_gradient(dnn, reference, high, low, inferences=200)
    assert spearmanr(true.ravel(), measured.ravel()).statistic > 0.3


def test_keypoints_count_from_the_visibility_that_the_card_says(tmp_path):
    """The second keypoint, of visibility 0.3, moves with the brightness; all else stands still."""
    row = np.float32([[[4, 4, 28, 28, 0.9, 0, 8, 8, 0.9, 16, 16, 0.3]]])
    moves = np.zeros_like(row)
    moves[..., 9] = 12
    network = write(
        tmp_path / "n.onnx",
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "shape"], ["brightness"]),
            helper.make_node("Mul", ["brightness", "moves"], ["moved"]),
            helper.make_node("Add", ["moved", "row"], ["output"]),
        ],
        [value("output", ["batch", 1, 12])],
        {"shape": np.int64([-1, 1, 1]), "moves": moves, "row": row},
    )
    high, low = (
        VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24").reformat(
            format="yuv420p"
        )
        for level in (230, 20)
    )
    for threshold, counts in (("0.5", False), ("0.2", True)):
        more = {"classes": "person", "keypoints.names": "a,b", "keypoints.visibility_threshold": threshold}
        dnn = load_dnn(imported(network, "keypoints", "end2end_pose", **more))
        assert black_box_gradient(dnn, dnn.infer(high), high, low, inferences=8).any() == counts


def test_labels_can_be_made_without_a_gradient(detector_card, write_picture, tmp_path):
    write_picture(tmp_path / "one.png")
    settings = LabelSettings(black_box=20)
    report = label_footage(
        [tmp_path / "one.png"], dnn=detector_card, out=tmp_path / "labels", settings=settings, workers=1
    )
    assert report.new == 1
    stored = read_labels(tmp_path / "labels").items[0].load()
    assert stored.accgrad_log2.max() > -20
