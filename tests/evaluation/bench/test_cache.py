"""What a sweep keeps comes back as it was; what a power cut left is worked out again."""

from pathlib import Path

import numpy as np
import pytest
import supervision as sv

from accmpeg.evaluation.bench.cache import read_results, write_results


def test_results_come_back(tmp_path: Path) -> None:
    boxes = np.asarray([[1, 2, 30, 40]], np.float32)
    kept = [
        sv.Detections(xyxy=boxes, class_id=np.asarray([2]), confidence=np.asarray([0.5], np.float32)),
        sv.Detections.empty(),
    ]
    write_results(tmp_path / "answers.npz", kept)
    assert read_results(tmp_path / "answers.npz") == kept


def test_masks_come_back_and_stay_small(tmp_path: Path) -> None:
    """A frame of a crowd has 90 candidates: their masks, whole, filled a disk with eight gigabytes a clip."""
    boxes = np.asarray([[16 * n, 9 * n, 16 * n + 100, 9 * n + 80] for n in range(60)], np.float32)
    dense = np.zeros((60, 720, 1280), np.bool_)
    for n in range(60):
        dense[n, 9 * n + 5 : 9 * n + 60, 16 * n : 16 * n + 70 : 2 + n % 2] = True
    masks = sv.CompactMask.from_dense(dense, boxes, (720, 1280))
    scores = np.full(60, 0.5, np.float32)
    kept = [
        sv.Detections(xyxy=boxes, mask=masks, class_id=np.zeros(60, int), confidence=scores),
        sv.Detections(xyxy=boxes[:0], mask=masks[:0], class_id=np.zeros(0, int), confidence=scores[:0]),
    ]
    path = tmp_path / "answers.npz"
    write_results(path, kept)
    assert path.stat().st_size < 2_000_000
    back = read_results(path)
    assert back == kept
    assert all(isinstance(result.mask, sv.CompactMask) for result in back)
    np.testing.assert_array_equal(np.asarray(back[0].mask), dense)


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_that_is_not_whole_is_none(left: int, tmp_path: Path) -> None:
    """Else all cells of the clip would fail, also with --retry-failed."""
    path = tmp_path / "answers.npz"
    assert read_results(path) is None
    write_results(path, [sv.Detections.empty()])
    path.write_bytes(path.read_bytes()[:left])
    assert read_results(path) is None
