"""Results of every task as JSON and back, and documents that are none."""

import json
from typing import Any

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st

from accmpeg.errors import WireError
from accmpeg.protocol.wire import HEADER_LIMIT_BYTES
from accmpeg.tasks.base import TaskName
from accmpeg.tasks.result_json import RUN_LIMIT, from_json, to_json
from accmpeg.tasks.segmentation import class_map_type


def documented(result: object, task: TaskName, classes: int = 3) -> dict[str, Any]:
    names = [f"class-{i}" for i in range(classes)]
    return to_json(result, task=task, classes=names, score_threshold=0.5)


BOXES = np.array([[1.04, 2, 30, 40], [5, 6, 7, 8], [10, 10, 20, 30]], np.float32)
SCORES = np.array([0.9, 0.2, 0.75], np.float32)
CLASS_IDS = np.array([2, 0, 1])


def through_json(result: object, task: TaskName, classes: int = 3) -> object:
    return from_json(json.loads(json.dumps(documented(result, task, classes))))


def test_detections() -> None:
    result = sv.Detections(xyxy=BOXES, confidence=SCORES, class_id=CLASS_IDS)
    document = documented(result, "detection")
    assert document == {
        "task": "detection",
        "objects": [
            {"class": "class-2", "class_id": 2, "score": 0.9, "box_xyxy": [1.0, 2.0, 30.0, 40.0]},
            {"class": "class-1", "class_id": 1, "score": 0.75, "box_xyxy": [10.0, 10.0, 20.0, 30.0]},
        ],
    }
    back = from_json(document)
    np.testing.assert_allclose(back.xyxy, BOXES[[0, 2]], atol=0.05)
    assert back.class_id.tolist() == [2, 1]
    assert len(from_json(documented(sv.Detections.empty(), "detection"))) == 0


def test_keypoints() -> None:
    points = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    result = sv.KeyPoints(
        xy=points,
        keypoint_confidence=np.full((3, 2), 0.5, np.float32),
        detection_confidence=SCORES,
        class_id=CLASS_IDS,
        data={"xyxy": BOXES},
    )
    back = through_json(result, "keypoints")
    assert isinstance(back, sv.KeyPoints)
    np.testing.assert_allclose(back.xy, points[[0, 2]])
    np.testing.assert_allclose(back.data["xyxy"], BOXES[[0, 2]], atol=0.05)


@pytest.mark.parametrize("compact", [True, False])
def test_instances(compact: bool) -> None:
    masks = np.zeros((3, 50, 60), bool)
    masks[0, 5:30, 4:20] = True
    masks[0, 10, 10] = False
    masks[2, 10:30, 10:20] = True
    mask = sv.CompactMask.from_dense(masks, BOXES, (50, 60)) if compact else masks
    result = sv.Detections(xyxy=BOXES, mask=mask, confidence=SCORES, class_id=CLASS_IDS)
    back = through_json(result, "instances")
    assert isinstance(back, sv.Detections)
    np.testing.assert_array_equal(np.asarray(back.mask), masks[[0, 2]])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 600), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_class_maps(width: int, height: int, classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, (height, width)).astype(class_map_type(classes))
    np.testing.assert_array_equal(through_json(labels, "segmentation", classes), labels)


def test_a_class_map_of_noise_is_halved_until_it_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 150, (512, 1024)).astype(np.uint8)
    document = documented(noise, "segmentation", 150)
    assert len(document["runs"]) <= 2 * RUN_LIMIT
    assert len(json.dumps(document, separators=(",", ":"))) < HEADER_LIMIT_BYTES
    width, height = document["size_px"]
    assert 1024 % width == 0
    np.testing.assert_array_equal(from_json(document), noise[:: 512 // height, :: 1024 // width])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {"task": st.sampled_from(["detection", "keypoints", "instances", "segmentation", "x"])},
        optional={
            "objects": st.lists(
                st.fixed_dictionaries(
                    {}, optional=dict.fromkeys(("box_xyxy", "score", "class_id", "keypoints", "mask"), VALUES)
                ),
                max_size=3,
            ),
            "size_px": VALUES,
            "runs": VALUES,
        },
    )
)
@settings(max_examples=200)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_other_documents_are_refused_or_read(document: dict[str, object]) -> None:
    try:
        from_json(document)
    except WireError:
        return


@pytest.mark.parametrize(
    "document",
    [
        {"task": "segmentation", "size_px": [4, 4], "runs": [1, 10**12]},
        {"task": "segmentation", "size_px": [10**6, 10**6], "runs": [0, 10**12]},
        {"task": "segmentation", "size_px": [2, 2], "runs": [1, -4, 1, 8]},
        {"task": "segmentation", "size_px": [2, 2], "runs": [70_000, 4]},
        {"task": "detection"},
    ],
)
def test_bombs_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(WireError):
        from_json(document)
