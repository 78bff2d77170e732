"""Glimpse: still scenes send nothing, moving ones do, and boxes follow their objects at the camera."""

import itertools
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import supervision as sv

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods import METHODS, OperatingPoint
from accmpeg.evaluation.methods.glimpse import changed_share
from accmpeg.evaluation.methods.tracking import BoxTracker, grey_picture, moved_result, surest
from accmpeg.tasks import get_task
from accmpeg.tasks.matching import iou_matrix
from tests.evaluation.methods.method_clips import (
    HEIGHT_PX,
    WIDTH_PX,
    context,
    deliveries,
    detector,
    make_clip,
    moving_clip,
    run,
    scene,
    sizes,
    still_clip,
    stream_format,
)

GLIMPSE = METHODS["glimpse"]


def sliding_clip(frames: int, step_px: int = 2):
    """The street's first picture, seen by a camera that turns at a constant rate."""
    planes = scene().yuv420p(0)
    height = HEIGHT_PX

    def turned(index: int) -> np.ndarray:
        shift = index * step_px
        moved = np.empty_like(planes)
        moved[:height] = np.roll(planes[:height], shift, axis=1)
        # Half the width per chroma row; the two planes lie below each other.
        chroma = planes[height:].reshape(-1, WIDTH_PX // 2)
        moved[height:] = np.roll(chroma, shift // 2, axis=1).reshape(planes[height:].shape)
        return moved

    return make_clip([turned(index) for index in range(frames)], f"sliding {frames}")


def triggers(session: Session) -> list[int]:
    return [index for index, sent in enumerate(sizes(session, "uplink")) if sent]


def test_a_still_scene_sends_one_frame() -> None:
    session = run(GLIMPSE, still_clip(12))
    assert triggers(session) == [0]
    assert len(session.results[0]) > 0
    for result in session.results.values():
        np.testing.assert_allclose(result.xyxy, session.results[0].xyxy, atol=0.5)


def test_a_moving_scene_sends_more_but_one_at_a_time() -> None:
    session = run(GLIMPSE, moving_clip(16, every=8))
    sent = triggers(session)
    assert len(sent) >= 2
    # There and back takes 40 ms and the server 10, more than a frame at 30 frames/s.
    assert all(b - a >= 2 for a, b in itertools.pairwise(sent))


def test_the_knob_is_the_change_that_triggers() -> None:
    sent = {
        name: len(triggers(run(METHODS[name], moving_clip(24), step=24)))
        for name in ("glimpse:change=0.005", "glimpse", "glimpse:change=0.05")
    }
    assert list(sent.values()) == sorted(sent.values(), reverse=True)
    assert sent["glimpse:change=0.005"] > sent["glimpse:change=0.05"]


def test_boxes_follow_the_picture_between_triggers() -> None:
    """Two pixels a frame: the boxes of a frame that was not sent are where the objects have gone."""
    clip = sliding_clip(12)
    slow = Link(bandwidth_bps=1e9, propagation_ms=150)
    session = run(GLIMPSE, clip, shared=replace(context(), link=slow))
    index = next(i for i in range(11, 0, -1) if i not in triggers(session))
    first = session.results[0]
    sure = first.confidence >= 0.3
    wanted = first.xyxy[sure] + np.asarray([2 * index, 0, 2 * index, 0])
    inside = wanted[:, 2] < WIDTH_PX - 4
    assert inside.sum() >= 2
    best = iou_matrix(wanted[inside], session.results[index].xyxy).max(axis=1)
    assert np.median(best) > 0.8
    stale = iou_matrix(wanted[inside], first.xyxy[sure][inside]).max(axis=1)
    assert np.median(best) > np.median(stale)


def test_results_come_back_over_the_link_and_are_late_at_first() -> None:
    session = run(GLIMPSE, still_clip(12))
    back = sizes(session, "downlink")
    assert back[0] == [12 * len(session.results[0])]
    assert bytes_of(session.flows, "downlink") == back[0][0]
    delivered = deliveries(session)
    first = next(index for index, indices in enumerate(delivered[1:], 1) if indices)
    assert first >= 2
    assert delivered[0] == [0]
    assert delivered[1:first] == [[]] * (first - 1)  # nothing is known yet at the camera
    assert sorted(delivered[first]) == list(range(1, first + 1))


def test_a_clip_that_ends_before_the_first_answer_still_has_all_results() -> None:
    assert len(run(GLIMPSE, still_clip(4)).results) == 4


def test_changed_share_counts_pixels() -> None:
    a = np.full((10, 10), 100, np.uint8)
    b = a.copy()
    b[0, :5] = 140
    b[1, :5] = 130
    assert changed_share(a, b) == pytest.approx(0.05)


def test_the_tracker_follows_shift_and_growth() -> None:
    rng = np.random.default_rng(5)
    texture = rng.integers(0, 255, (20, 20)).astype(np.uint8)
    large = cv2.resize(texture, (200, 200), interpolation=cv2.INTER_CUBIC)

    def picture(x: int, side: int) -> np.ndarray:
        canvas = np.full((300, 400), 90, np.uint8)
        canvas[60 : 60 + side, x : x + side] = cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)
        return canvas

    tracker = BoxTracker(picture(50, 100), np.asarray([[50 / 400, 0.2, 150 / 400, 160 / 300]]))
    tracker.follow(picture(54, 104))
    x0, _, x1, _ = tracker.boxes[0] * 400
    assert x0 == pytest.approx(54, abs=1.5)
    assert x1 == pytest.approx(158, abs=1.5)
    assert tracker.kept_share > 0.6
    tracker.follow(rng.integers(0, 255, (300, 400)).astype(np.uint8))
    assert tracker.kept_share < 0.5


def test_keypoints_move_with_their_box() -> None:
    people = sv.KeyPoints(
        xy=np.asarray([[[10, 10], [20, 30]], [[600, 10], [620, 30]]], np.float32),
        keypoint_confidence=np.ones((2, 2), np.float32),
        detection_confidence=np.asarray([0.9, 0.8], np.float32),
        class_id=np.zeros(2, int),
        data={"xyxy": np.asarray([[10, 10, 20, 30], [600, 10, 620, 30]], np.float32)},
    )
    boxes = np.asarray([[30, 10, 50, 50], [645, 10, 665, 30]], np.float32)
    moved = moved_result(people, boxes, (640, 360))
    assert moved.xy.tolist() == [[[30, 10], [50, 50]]]  # the other one has left the frame
    assert moved.data["xyxy"].tolist() == [[30, 10, 50, 50]]
    assert len(surest(people, 1)) == 1
    assert surest(people, 1).xy[0, 0, 0] == 10


def test_class_maps_can_not_be_tracked() -> None:
    clip = still_clip(2)
    shared = context()
    session = Session(clip, shared, wanted=frozenset())
    task = detector().task
    try:
        detector().task = get_task("segmentation")
        with pytest.raises(UsageError, match="segmentation"):
            GLIMPSE.open(stream_format(clip), OperatingPoint(quality=30), session)
    finally:
        detector().task = task


def test_the_grey_picture_is_at_most_640_wide() -> None:
    frame = av.VideoFrame(1280, 720, "yuv420p")
    assert grey_picture(frame).shape == (360, 640)
