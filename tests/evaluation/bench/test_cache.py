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


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_that_is_not_whole_is_none(left: int, tmp_path: Path) -> None:
    """Else all cells of the clip would fail, also with --retry-failed."""
    path = tmp_path / "answers.npz"
    assert read_results(path) is None
    write_results(path, [sv.Detections.empty()])
    path.write_bytes(path.read_bytes()[:left])
    assert read_results(path) is None
