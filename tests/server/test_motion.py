"""Objects between seen frames: who they are, how fast they are, and what is not moved."""

from typing import Any

import pytest

pytest.importorskip("trackers", reason="the tracking extra is not installed")

from accmpeg.server.motion import BELIEVED_SHARE, LOST_S, MOST_OBJECTS, Motion
from accmpeg.tasks.result_json import from_json

SIZE_PX = (640, 360)


def document(*left_px: float, **more: Any) -> dict[str, Any]:
    """Boxes of 60x100 pixels."""
    objects = [
        {"class": "car", "class_id": 1, "score": 0.9, "box_xyxy": [x, 100.0, x + 60, 200.0], **more}
        for x in left_px
    ]
    return {"task": "detection", "objects": objects}


def seen_twice(motion: Motion, px_per_s: float, **more: Any) -> None:
    """A car at 100 px and one that stands at 400 px, last seen at 1 s."""
    for tenth in range(11):
        motion.see(document(100 + px_per_s * tenth / 10, 400, **more), tenth / 10)


def test_objects_go_on_as_they_went() -> None:
    motion = Motion(SIZE_PX)
    seen_twice(motion, 50)
    moving, standing = (each["box_xyxy"] for each in motion.at(1.1)["objects"])
    assert moving[0] == pytest.approx(150 + BELIEVED_SHARE * 5, abs=1.0)
    assert moving[2] - moving[0] == pytest.approx(60, abs=0.2), "and keep their size"
    assert standing[0] == pytest.approx(400, abs=0.5)
    assert motion.at(1.0)["objects"][0]["class"] == "car"


def test_an_object_seen_once_stays_where_it_is() -> None:
    motion = Motion(SIZE_PX)
    assert motion.at(0.5)["objects"] == []
    motion.see(document(100), 0.0)
    assert motion.at(0.5)["objects"][0]["box_xyxy"] == [100, 100, 160, 200]


def test_a_camera_whose_clock_is_set_back_is_followed_on() -> None:
    motion = Motion(SIZE_PX)
    for tenth in range(11):
        motion.see(document(100 + 5 * tenth), 7200 + tenth / 10)
    seen_twice(motion, 50)
    motion.see(document(0), 0.5)  # a frame that another has overtaken
    assert motion.at(1.1)["objects"][0]["box_xyxy"][0] == pytest.approx(150 + BELIEVED_SHARE * 5, abs=1.0)


def test_what_leaves_the_frame_is_gone() -> None:
    motion = Motion(SIZE_PX)
    for tenth in range(6):
        motion.see(document(430 + 30 * tenth), tenth / 10)
    assert motion.at(0.55)["objects"][0]["box_xyxy"][2] <= SIZE_PX[0]
    assert motion.at(1.5)["objects"] == []


def test_an_object_that_was_away_for_long_has_no_speed() -> None:
    motion = Motion(SIZE_PX)
    seen_twice(motion, 50)
    for tenth in range(11, 12 + round(10 * LOST_S)):
        motion.see(document(), tenth / 10)
    back_s = 1.2 + LOST_S
    motion.see(document(160), back_s)
    assert motion.at(back_s + 0.1)["objects"][0]["box_xyxy"][0] == 160


def test_an_earlier_frame_changes_nothing() -> None:
    motion = Motion(SIZE_PX)
    seen_twice(motion, 50)
    before = motion.at(1.1)
    motion.see(document(10), 0.95)
    assert motion.at(1.1) == before


def test_a_crowd_without_end_is_bounded_and_whole() -> None:
    motion = Motion(SIZE_PX)
    crowd = document(*[float(number % 600) for number in range(2 * MOST_OBJECTS)])
    for tenth in range(3):
        motion.see(crowd, tenth / 10)
    assert len(motion.at(0.25)["objects"]) == 2 * MOST_OBJECTS


def test_keypoints_and_masks_go_along() -> None:
    motion = Motion(SIZE_PX)
    seen_twice(motion, 50, keypoints=[[110.0, 120.0, 1.0]])
    found = motion.at(1.1)["objects"][0]
    assert found["keypoints"][0][0] == pytest.approx(110 + BELIEVED_SHARE * 5, abs=1.0)
    assert found["keypoints"][0][1:] == [pytest.approx(120.0, abs=0.2), 1.0]
    motion = Motion(SIZE_PX)
    mask = {"offset_px": [580, 100], "size_px": [60, 100], "runs": [0, 6000]}
    for tenth in range(6):
        motion.see(document(540 + 8 * tenth, mask=mask) | {"size_px": list(SIZE_PX)}, tenth / 10)
    late = motion.at(0.8) | {"task": "instances"}
    assert late["objects"][0]["mask"]["offset_px"][0] == 580, "whole within the frame"
    assert from_json(late).mask is not None
