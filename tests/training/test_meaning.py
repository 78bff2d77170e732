"""What AccGrad is for: quality given by it raises the real accuracy of real networks."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.media.decoder import encode_still
from accmpeg.media.source import read_still
from accmpeg.training.blackbox import black_box_gradient
from accmpeg.training.gradient import accuracy_gradient

pytestmark = pytest.mark.slow

STILLS = (
    "street_camvid_0001TP_008490.jpg",
    "street_camvid_0016E5_05970.jpg",
    "street_bdd_0ace96c3-48481887.jpg",
    "coco_000000000036.jpg",
    "coco_000000000436.jpg",
)
QP_HIGH, QP_LOW = 20, 40


@pytest.fixture(scope="module")
def dnn(shared_data, tmp_path_factory):
    card = import_model(shared_data / "models" / "yolo11n.onnx", tmp_path_factory.mktemp("cards")).card
    return load_dnn(card)


@pytest.fixture(scope="module")
def measured(dnn, shared_data):
    """Still by still: the frame, both qualities, the reference and AccGrad."""
    differentiable = dnn.differentiable()
    rows = []
    for name in STILLS:
        frame = read_still(shared_data / "images" / name)
        (high, _), (low, _) = encode_still(frame, QP_HIGH), encode_still(frame, QP_LOW)
        reference = dnn.infer(high)
        rows.append(
            (frame, high, low, reference, accuracy_gradient(differentiable, dnn.task, reference, high, low))
        )
    return rows


def test_a_tenth_by_accgrad_beats_a_tenth_at_random_and_from_the_bottom(dnn, measured):
    accuracies = {}
    for name, ranking in {
        "top": lambda accgrad: accgrad,
        "random": lambda accgrad: np.random.default_rng(1).random(accgrad.shape),
        "bottom": lambda accgrad: -accgrad,
    }.items():
        results = []
        for frame, _, _, _, accgrad in measured:
            chosen = ranking(accgrad) >= np.quantile(ranking(accgrad), 0.9)
            offsets = np.where(chosen, QP_HIGH - QP_LOW, 0).astype(np.float32)
            results.append(dnn.infer(encode_still(frame, QP_LOW, offsets)[0]))
        references = [dnn.infer(frame) for frame, *_ in measured]
        accuracies[name] = dnn.task.clip_accuracy(results, references).value
    assert accuracies["top"] > accuracies["random"] + 0.05, accuracies
    assert accuracies["top"] > accuracies["bottom"] + 0.05, accuracies


def test_the_black_box_agrees_with_it_in_rank(dnn, measured):
    ranks = []
    for _, high, low, reference, accgrad in measured[:3]:
        box = black_box_gradient(dnn, reference, high, low, inferences=96)
        ranks.append(spearmanr(tile_sums(accgrad), tile_sums(box)).statistic)
    assert np.mean(ranks) >= 0.5, ranks


def tile_sums(values: np.ndarray, macroblocks: int = 4) -> np.ndarray:
    rows, cols = (size // macroblocks for size in values.shape)
    cut = values[: rows * macroblocks, : cols * macroblocks]
    return cut.reshape(rows, macroblocks, cols, macroblocks).sum(axis=(1, 3)).ravel()
