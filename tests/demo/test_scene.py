"""The embedded scene: the same every time, labelled exactly, and moving."""

from dataclasses import replace

import numpy as np
import pytest

from accmpeg.demo import DEMO_SEED, demo_scene
from accmpeg.demo.scene import CLASS_NAMES, SceneSource, SceneSpec, true_detections
from accmpeg.errors import UsageError
from scene.training_frames import FIRST_TRAINING_SEED

SMALL = {"width_px": 640, "height_px": 360}


@pytest.fixture(scope="module")
def scene() -> SceneSource:
    return SceneSource(SceneSpec(5, frame_count=4))


def test_a_seed_always_gives_the_same_pixels_and_labels() -> None:
    one, other = (SceneSource(SceneSpec(7, **SMALL)) for _ in range(2))
    # Drawn in another order, and after other frames.
    other.yuv420p(11)
    assert np.array_equal(one.yuv420p(40), other.yuv420p(40))
    for mine, its in zip(one.labels(40), other.labels(40), strict=True):
        assert np.array_equal(mine, its)


def test_seeds_give_different_streets() -> None:
    pictures = [SceneSource(SceneSpec(seed, **SMALL)).yuv420p(0).astype(int) for seed in (1, 2, 3)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 12
    assert np.abs(pictures[1] - pictures[2]).mean() > 12


def test_it_is_a_source_of_yuv420p_frames(scene: SceneSource) -> None:
    with scene as source:
        frames = list(source)
    assert scene.info.frame_count == len(frames) == 4
    for index, frame in enumerate(frames):
        assert (frame.width, frame.height, frame.format.name) == (1280, 720, "yuv420p")
        assert (frame.pts, frame.time_base) == (index, scene.info.time_base)
    assert not scene.info.is_live
    assert source.skipped_frames == 0


@pytest.mark.parametrize("seed", [2, 5, 9])
def test_labels_lie_in_the_frame_and_fit_their_objects(seed: int) -> None:
    scene = SceneSource(SceneSpec(seed))
    boxes, class_ids = scene.labels(20)
    ids, classes = scene.id_buffer(20)
    assert len(boxes) >= 3
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 1280).all()
    assert (boxes[:, 3] <= 720).all()
    assert set(class_ids) <= set(range(len(CLASS_NAMES)))
    for (x0, y0, x1, y1), class_id in zip(boxes.astype(int), class_ids, strict=True):
        inside = ids[y0:y1, x0:x1]
        owners = np.flatnonzero(classes == class_id) + 1
        tight = [
            number
            for number in owners
            if (inside[0] == number).any()
            and (inside[-1] == number).any()
            and (inside[:, 0] == number).any()
            and (inside[:, -1] == number).any()
            and (ids == number).sum() == (inside == number).sum()
        ]
        assert tight, f"no object of class {class_id} fills the box {(x0, y0, x1, y1)}"


def test_labelled_pixels_are_where_the_picture_changes_when_objects_move() -> None:
    scene = SceneSource(SceneSpec(5))
    # A camera and a sky at rest: what changes beyond noise is an object or its shadow.
    street = scene._street
    street.motion = replace(street.motion, pan_px=(0.0, 0.0), shake_px=0.0, roll_rad=0.0, zoom=0.0)
    street.light = replace(street.light, lowest=street.light.base.sunniness, flicker=0.0)
    first, later = (scene.yuv420p(index)[:720].astype(int) for index in (0, 15))
    changed = np.abs(first - later) > 40
    objects = (scene.id_buffer(0)[0] > 0) | (scene.id_buffer(15)[0] > 0)
    assert changed.sum() > 500
    assert objects[changed].mean() > 0.7
    assert objects.mean() < 0.5


def test_objects_move() -> None:
    scene = SceneSource(SceneSpec(5))
    masks = [scene.id_buffer(index)[0] > 0 for index in (0, 30)]
    assert (masks[0] ^ masks[1]).sum() > 2000


def test_hidden_objects_have_no_label() -> None:
    scene = SceneSource(SceneSpec(5))
    for index in (0, 60):
        ids, classes = scene.id_buffer(index)
        assert len(scene.labels(index).class_ids) <= len(np.unique(ids[ids > 0])) <= len(classes)


def test_every_kind_of_object_appears() -> None:
    seen: set[int] = set()
    for seed in range(1, 7):
        seen |= set(SceneSource(SceneSpec(seed, **SMALL)).labels(0).class_ids.tolist())
    assert seen == set(range(len(CLASS_NAMES)))


def test_the_demo_shows_a_street_that_nothing_was_trained_on() -> None:
    assert DEMO_SEED < FIRST_TRAINING_SEED
    scene = demo_scene(frame_count=2)
    assert scene.info.frame_count == 2
    detections = true_detections(scene)
    assert [len(d) for d in detections] == [len(scene.labels(i).boxes) for i in range(2)]
    assert len(set(np.concatenate([d.class_id for d in detections]))) >= 3


@pytest.mark.parametrize("wrong", [{"width_px": 641}, {"height_px": 10}, {"frame_count": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="a scene needs"):
        SceneSpec(1, **wrong)
