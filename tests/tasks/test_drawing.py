"""Drawn results: a new picture of the same size that differs where the result is."""

import numpy as np
import pytest
import supervision as sv

from accmpeg.errors import SinkError
from accmpeg.media.footage import read_still
from accmpeg.tasks.drawing import draw, write_png

GREY = np.full((120, 160, 3), 128, np.uint8)


def changed(drawn):
    return (drawn != 128).any(axis=2)


def detections(score=0.9, mask=None):
    return sv.Detections(
        xyxy=np.array([[40, 50, 100, 90]], np.float32),
        confidence=np.array([score], np.float32),
        class_id=np.array([0]),
        mask=mask,
    )


def test_boxes_are_drawn_and_the_frame_is_left_alone():
    frame = GREY.copy()
    drawn = draw(frame, detections(), ["car"])
    assert (frame == 128).all()
    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    assert changed(drawn)[50, 40:100].all()
    assert not changed(drawn)[60:80, 50:90].any()


def test_unsure_results_and_empty_ones_leave_the_picture_as_it_is():
    assert not changed(draw(GREY, detections(0.2), ["car"])).any()
    assert not changed(draw(GREY, sv.Detections.empty(), ["car"])).any()
    assert not changed(draw(GREY, sv.KeyPoints.empty(), ["person"])).any()


def test_masks_are_filled():
    mask = np.zeros((1, 120, 160), bool)
    mask[0, 60:80, 50:90] = True
    assert changed(draw(GREY, detections(mask=mask), ["car"]))[60:80, 50:90].all()


def test_skeletons_join_visible_keypoints():
    points = np.zeros((1, 17, 2), np.float32)
    points[0, 5], points[0, 6] = (40, 60), (100, 60)
    visibility = np.zeros((1, 17), np.float32)
    visibility[0, 5:7] = 1
    people = sv.KeyPoints(
        xy=points,
        keypoint_confidence=visibility,
        detection_confidence=np.array([0.9], np.float32),
        class_id=np.array([0]),
        data={"xyxy": np.array([[20, 30, 120, 110]], np.float32)},
    )
    drawn = draw(GREY, people, ["person"])
    assert changed(drawn)[60, 40:100].all()
    assert not changed(drawn)[:10, :10].any()


def test_class_maps_are_blended_except_the_background():
    labels = np.zeros((12, 16), np.uint8)
    labels[6:] = 1
    drawn = draw(GREY, labels, ["background", "road"])
    assert changed(drawn)[60:].all()
    assert not changed(drawn)[:60].any()


def test_colours_are_red_first_and_survive_the_png(tmp_path):
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[..., 0] = 255
    drawn = draw(frame, sv.Detections.empty(), [])
    assert (drawn == frame).all()
    write_png(tmp_path / "drawn.png", drawn)
    read = read_still(tmp_path / "drawn.png").to_ndarray(format="rgb24")
    assert read[16, 24, 0] > 240
    assert read[16, 24, 2] < 15


def test_a_png_that_can_not_be_written_is_named(tmp_path):
    with pytest.raises(SinkError, match=r"can't write the picture .*nowhere"):
        write_png(tmp_path / "nowhere" / "drawn.png", GREY)
