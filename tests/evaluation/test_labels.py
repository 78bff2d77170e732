"""True labels: COCO files read, numbered as the server DNN does, refused when they are something else."""

import json
from pathlib import Path

import numpy as np
import pytest

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.labels import in_classes_of, read_coco

DOCUMENT = {
    "categories": [{"id": 7, "name": "bus"}, {"id": 3, "name": "car"}],
    "images": [
        {"id": 1, "file_name": "b.png", "frame_index": 1},
        {"id": 2, "file_name": "a.png", "frame_index": 0},
        {"id": 5, "file_name": "c.png", "frame_index": 2},
    ],
    "annotations": [
        {"image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40]},
        {"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 2, "category_id": 3, "bbox": [5, 5, 5, 5]},
        {"image_id": 2, "category_id": 3, "bbox": [0, 0, 900, 900], "iscrowd": 1},
    ],
}


def written(folder: Path, document: object) -> Path:
    path = folder / "clip.json"
    path.write_text(json.dumps(document))
    return path


def test_frames_are_in_order_and_boxes_are_corners(tmp_path: Path) -> None:
    labels, names = read_coco(written(tmp_path, DOCUMENT))
    assert names == ("car", "bus")
    assert [len(frame) for frame in labels] == [2, 1, 0]
    np.testing.assert_allclose(labels[0].xyxy, [[1, 2, 4, 6], [5, 5, 10, 10]])
    np.testing.assert_array_equal(labels[0].class_id, [1, 0])
    np.testing.assert_allclose(labels[1].xyxy, [[10, 20, 40, 60]])


def test_classes_are_those_of_the_server_dnn(tmp_path: Path) -> None:
    labels, names = read_coco(written(tmp_path, DOCUMENT))
    renumbered = in_classes_of(labels, names, ["person", "bus"])
    assert renumbered is not None
    assert [frame.class_id.tolist() if len(frame) else [] for frame in renumbered] == [[1], [], []]
    assert in_classes_of(labels, names, ["person"]) is None


@pytest.mark.parametrize(
    "document", [[], {}, {**DOCUMENT, "annotations": [{"image_id": 99, "category_id": 3, "bbox": [0] * 4}]}]
)
def test_other_files_are_refused_by_name(tmp_path: Path, document: object) -> None:
    with pytest.raises(EvaluationError, match=r"clip\.json is no COCO"):
        read_coco(written(tmp_path, document))
    with pytest.raises(EvaluationError, match="no COCO"):
        read_coco(tmp_path / "missing.json")
