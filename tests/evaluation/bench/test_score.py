"""The score S: by hand, against pathological results, and properties that hold for any result."""

from typing import Any

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st

from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, KeypointCard
from accmpeg.evaluation.bench.references import FrameReference, confirmed_references, object_weights
from accmpeg.evaluation.bench.score import frame_counts, judged_result, score, scores
from accmpeg.tasks import TaskName, get_task

SIZE_PX = 400


def card(task: TaskName = "detection", classes: tuple[str, ...] = ("person", "car")) -> DnnCard:
    return DnnCard(
        name="tiny",
        task=task,
        adapter="onnx",
        model="tiny.onnx",
        classes=list(classes),
        score_threshold=0.25,
        input=InputCard(name="x", width_px=64, height_px=64),
        head=HeadCard(name="yolo"),
        keypoints=KeypointCard(names=["nose", "tail"]) if task == "keypoints" else None,
    )


def boxes(*rows: tuple[float, ...]) -> sv.Detections:
    """Rows of x0, y0, x1, y1, score and class."""
    table = np.asarray(rows, np.float64).reshape(-1, 6)
    return sv.Detections(
        xyxy=table[:, :4].astype(np.float32),
        confidence=table[:, 4].astype(np.float32),
        class_id=table[:, 5].astype(np.int64),
    )


def counts_of(result: Any, reference: Any, task: TaskName = "detection", **more: Any) -> list[float]:
    (row,) = frame_counts(get_task(task), result, FrameReference(reference, **more), card(task))
    return [round(float(value), 6) for value in row]


def s_of(result: Any, reference: Any, task: TaskName = "detection") -> float:
    return score(frame_counts(get_task(task), result, FrameReference(reference), card(task)), task)


def test_the_example_of_the_docs() -> None:
    reference = boxes((0, 0, 100, 100, 0.9, 1), (200, 0, 240, 100, 0.3, 0), (300, 0, 400, 100, 0.6, 1))
    result = boxes(
        (0, 0, 100, 60, 0.4, 1),  # IoU 0.6, so g = 0.75; w = 0.75
        (200, 0, 240, 100, 0.8, 0),  # w = 1 against 0.5 of the reference
        (0, 300, 50, 400, 0.2, 1),  # nothing there; w = 0.25
        (300, 0, 400, 100, 0.05, 1),  # too unsure to weigh anything
    )
    np.testing.assert_allclose(object_weights(result, card()), [0.75, 1, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(object_weights(reference, card()), [1, 0.5, 1], atol=1e-6)
    assert counts_of(result, reference) == [0.75 * 0.75 + 0.5, 2.0, 2.5]
    assert s_of(result, reference) == pytest.approx(2 * 1.0625 / 4.5, abs=1e-6)


def test_counts_of_frames_add_up_so_that_every_object_counts_once() -> None:
    box = (0, 0, 10, 10, 0.9, 0)
    full = frame_counts(
        get_task("detection"), boxes(box), FrameReference(boxes(*[box] * 1)), card()
    ) + frame_counts(
        get_task("detection"),
        boxes(),
        FrameReference(boxes(*[(x, 0, x + 9, 9, 0.9, 0) for x in (0, 20, 40)])),
        card(),
    )
    assert full.tolist() == [[1, 1, 4]]
    assert score(full, "detection") == pytest.approx(0.4)


def test_nothing_to_find_and_nothing_found_is_no_score() -> None:
    assert np.isnan(s_of(boxes(), boxes()))
    assert counts_of(boxes((0, 0, 9, 9, 0.05, 0)), boxes()) == [0, 0, 0]
    assert s_of(boxes((0, 0, 9, 9, 0.9, 0)), boxes()) == 0
    assert s_of(boxes(), boxes((0, 0, 9, 9, 0.9, 0))) == 0


def test_a_score_that_flickers_about_the_threshold_moves_s_smoothly() -> None:
    steady = (200, 200, 300, 300, 0.9, 0)
    reference = boxes(steady, (0, 0, 100, 100, 0.25, 0))
    values = [
        s_of(boxes(steady, (0, 0, 100, 100, seen, 0)), reference) for seen in np.linspace(0.15, 0.35, 21)
    ]
    assert np.abs(np.diff(values)).max() < 0.015
    # F1 at the threshold falls from 1 to 0.67 at once where the score goes from 0.26 to 0.24.
    task = get_task("detection")
    f1 = [
        task.clip_accuracy([boxes(steady, (0, 0, 100, 100, seen, 0))], [reference]).extras["f1"]
        for seen in (0.24, 0.26)
    ]
    assert f1 == [pytest.approx(2 / 3), 1.0]


def test_a_box_that_drifts_away_moves_s_smoothly() -> None:
    reference = boxes((0, 0, 100, 100, 0.9, 0))
    values = [s_of(boxes((x, 0, 100 + x, 100, 0.9, 0)), reference) for x in range(101)]
    assert values[0] == 1
    assert values[-1] == 0
    assert np.diff(values).max() <= 0
    assert np.abs(np.diff(values)).max() < 0.05


def test_two_classes_swapped_are_two_faults() -> None:
    reference = boxes((0, 0, 100, 100, 0.9, 0), (200, 0, 300, 100, 0.9, 1))
    swapped = boxes((0, 0, 100, 100, 0.9, 1), (200, 0, 300, 100, 0.9, 0))
    assert s_of(swapped, reference) == 0


def test_a_box_split_in_two_is_half_right_at_most() -> None:
    reference = boxes((0, 0, 100, 100, 0.9, 0))
    halves = boxes((0, 0, 50, 100, 0.9, 0), (50, 0, 100, 100, 0.9, 0))
    # One half pairs (IoU 0.5, g 0.5); the other is spurious.
    assert counts_of(halves, reference) == [0.5, 2, 1]
    doubled = boxes((0, 0, 100, 100, 0.9, 0), (0, 0, 100, 100, 0.8, 0))
    assert s_of(doubled, reference) == pytest.approx(2 / 3)


def test_pairs_are_the_best_of_all_and_not_the_best_one_first() -> None:
    reference = boxes((0, 0, 100, 100, 0.9, 0), (30, 0, 130, 100, 0.9, 0))
    # The middle box fits either, the left one only the first: greed for the best pair would lose the other.
    result = boxes((14, 0, 114, 100, 0.95, 0), (-30, 0, 70, 100, 0.9, 0))
    both, spoken, wanted = counts_of(result, reference)
    assert (spoken, wanted) == (2, 2)
    gains = [(84 + 0) / 116, 70 / 130]
    expected = min(1, (gains[0] - 0.3) / 0.4) + (gains[1] - 0.3) / 0.4
    assert both == pytest.approx(expected, abs=1e-4)


def test_what_is_ignored_is_no_ones_fault_in_both_directions() -> None:
    certain, doubtful = (0, 0, 100, 100, 0.9, 0), (200, 0, 300, 100, 0.9, 1)
    ignored = np.asarray([[200, 0, 300, 100]], np.float32)
    for result in (boxes(certain), boxes(certain, doubtful), boxes(certain, (210, 0, 310, 100, 0.9, 0))):
        assert counts_of(result, boxes(certain), ignored=ignored) == [1, 1, 1]
    # Elsewhere it is spurious, and what is right counts even where it lies on an ignored box.
    assert counts_of(boxes(certain, (270, 0, 370, 100, 0.9, 1)), boxes(certain), ignored=ignored) == [1, 2, 1]
    on_it = np.asarray([[0, 0, 100, 100]], np.float32)
    assert counts_of(boxes(certain), boxes(certain), ignored=on_it) == [1, 1, 1]


def test_a_surer_neighbour_that_is_ignored_does_not_take_the_place_of_the_right_box() -> None:
    right, neighbour = (0, 0, 100, 100, 0.35, 0), (10, 0, 110, 100, 0.9, 0)
    ignored = np.asarray([neighbour[:4]], np.float32)
    for result in (boxes(right, neighbour), boxes(neighbour, right)):
        assert counts_of(result, boxes(right), ignored=ignored) == [0.625, 0.625, 0.625]


def test_regions_without_labels_take_what_lies_in_them() -> None:
    region = np.asarray([[0, 0, 400, 115]], np.float32)
    inside, half, below = (0, 0, 50, 100, 0.9, 0), (100, 40, 150, 180, 0.9, 0), (200, 80, 250, 280, 0.9, 0)
    assert counts_of(boxes(inside, half, below), boxes(), unlabelled=region) == [0, 1, 0]
    assert counts_of(boxes(inside), boxes(inside), unlabelled=region) == [1, 1, 1]


def test_low_objects_and_unknown_classes_are_not_judged() -> None:
    tall, low = (0, 0, 50, 100, 0.9, 0), (100, 0, 150, 24, 0.9, 0)
    assert counts_of(boxes(tall, low), boxes(tall), min_height_px=25.0) == [1, 1, 1]
    only_people = np.asarray([0, -1])
    assert counts_of(boxes(tall, (200, 0, 300, 50, 0.9, 1)), boxes(tall), counts_as=only_people) == [1, 1, 1]
    one_class = np.asarray([0, 0])
    assert counts_of(boxes((0, 0, 50, 100, 0.9, 1)), boxes(tall), counts_as=one_class) == [1, 1, 1]


def test_labels_without_scores_weigh_one_whatever_the_threshold() -> None:
    labels = sv.Detections(xyxy=np.asarray([[0, 0, 9, 9]], np.float32), class_id=np.asarray([0]))
    assert counts_of(boxes((0, 0, 9, 9, 0.3, 0)), labels) == [0.5, 0.5, 1]


def test_results_to_be_judged_by_average_precision() -> None:
    right, low, elsewhere = (0, 0, 50, 100, 0.9, 1), (100, 0, 150, 20, 0.9, 0), (200, 0, 300, 90, 0.8, 0)
    reference = FrameReference(
        boxes((0, 0, 50, 100, 0.9, 0)), counts_as=np.asarray([0, 0]), min_height_px=25.0
    )
    judged = judged_result(boxes(right, low, elsewhere), reference)
    assert judged.xyxy.tolist() == [[0, 0, 50, 100], [200, 0, 300, 90]]
    assert judged.class_id is not None
    assert judged.class_id.tolist() == [0, 0]
    assert len(judged_result(boxes(), reference)) == 0


def people(*rows: tuple[float, float, float]) -> sv.KeyPoints:
    """Rows of x, shift of the first keypoint, and score; each person is 100 px wide and high."""
    x = np.asarray([row[0] for row in rows])
    shift = np.asarray([row[1] for row in rows])
    points = np.stack([np.stack([x + 20 + shift, 0 * x + 20], 1), np.stack([x + 80, 0 * x + 80], 1)], 1)
    return sv.KeyPoints(
        xy=points.astype(np.float32),
        keypoint_confidence=np.ones(points.shape[:2], np.float32),
        detection_confidence=np.asarray([row[2] for row in rows], np.float32),
        class_id=np.zeros(len(rows), np.int64),
        data={"xyxy": np.stack([x, 0 * x, x + 100, 0 * x + 100], 1).astype(np.float32)},
    )


def test_keypoints_pair_by_oks() -> None:
    reference = people((0, 0, 0.9), (200, 0, 0.9))
    assert s_of(reference, reference, "keypoints") == 1
    # One of two points is far off: OKS 0.5, so g = 0.5.
    assert counts_of(people((0, 60, 0.9), (200, 0, 0.3)), reference, "keypoints") == [1.0, 1.5, 2]
    nobody = reference[np.zeros(2, np.bool_)]
    assert counts_of(nobody, reference, "keypoints") == [0, 0, 2]
    assert counts_of(reference, nobody, "keypoints") == [0, 2, 0]


def masked(*rows: tuple[int, int, int, int, float, int]) -> sv.Detections:
    """Boxes whose mask is only the part left of their middle."""
    objects = boxes(*rows)
    mask = np.zeros((len(rows), SIZE_PX, SIZE_PX), np.bool_)
    for index, (x0, y0, x1, y1, _, _) in enumerate(rows):
        mask[index, y0:y1, x0 : (x0 + x1) // 2] = True
    objects.mask = mask
    return objects


def test_instances_pair_by_their_masks() -> None:
    reference = masked((0, 0, 200, 100, 0.9, 0))
    assert s_of(reference, reference, "instances") == 1
    # The masks are 100 and 50 px wide: IoU 0.5 where that of the boxes is 0.5 too; shifted, they part sooner.
    assert counts_of(masked((0, 0, 100, 100, 0.9, 0)), reference, "instances") == [0.5, 1, 1]
    assert counts_of(masked((60, 0, 260, 100, 0.9, 0)), reference, "instances") == [0, 1, 1]


def test_segmentation_by_hand() -> None:
    reference = np.asarray([[0, 0, 0, 1], [0, 0, 255, 1]], np.uint8)
    result = np.asarray([[0, 0, 1, 1], [0, 2, 2, 0]], np.uint8)
    three = card("segmentation", ("road", "car", "sky"))
    counts = frame_counts(get_task("segmentation"), result, FrameReference(reference), three)
    assert counts.tolist() == [[3, 4, 5], [1, 2, 2], [0, 1, 0]]
    # Road: 3 of 6 pixels, 5 of 7 pixels of the reference; car: 1 of 3, 2 of 7.
    assert score(counts, "segmentation") == pytest.approx(5 / 7 * 3 / 6 + 2 / 7 * 1 / 3)
    perfect = frame_counts(get_task("segmentation"), reference, FrameReference(reference), three)
    assert score(perfect, "segmentation") == 1
    assert np.isnan(score(np.zeros((3, 3)), "segmentation"))


def test_segmentation_weighs_classes_over_the_clip_and_not_in_a_frame() -> None:
    road, car = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    car[0, 0] = 1
    two = card("segmentation")
    task = get_task("segmentation")
    counts = sum(
        (frame_counts(task, road, FrameReference(truth), two) for truth in (road, car)), np.zeros((2, 3))
    )
    assert score(counts, "segmentation") == pytest.approx(199 / 200 * 199 / 200)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_many_sums_at_once_are_scored_as_each_alone(task: TaskName) -> None:
    random = np.random.default_rng(1)
    both = random.uniform(0, 5, (4, 3, 2))
    counts = np.stack([both, both + 1, both + 2], axis=-1)
    counts[1, 1] = 0
    alone = [[score(counts[i, j], task) for j in range(3)] for i in range(4)]
    assert np.isnan(alone[1][1])
    np.testing.assert_allclose(scores(counts, task), alone)


sides = st.floats(5, 150)
places = st.floats(0, 240)
rows = st.lists(st.tuples(places, places, sides, sides, st.floats(0, 1), st.integers(0, 1)), max_size=8).map(
    lambda drawn: boxes(*[(x, y, x + w, y + h, seen, kind) for x, y, w, h, seen, kind in drawn])
)


@settings(max_examples=150)
@given(rows, rows)
def test_s_is_a_symmetric_share_and_one_for_the_same(result: sv.Detections, reference: sv.Detections) -> None:
    value = s_of(result, reference)
    other = s_of(reference, result)
    assert (np.isnan(value) and np.isnan(other)) or value == pytest.approx(other, abs=1e-9)
    assert np.isnan(value) or 0 <= value <= 1
    same = s_of(reference, reference)
    assert np.isnan(same) or same == pytest.approx(1)


@settings(max_examples=60)
@given(rows, rows, rows)
def test_ignored_boxes_can_only_help(
    result: sv.Detections, reference: sv.Detections, ignored: sv.Detections
) -> None:
    plain = counts_of(result, reference)
    excused = counts_of(result, reference, ignored=ignored.xyxy)
    assert excused[0] == plain[0]
    assert excused[1] <= plain[1] + 1e-6
    assert excused[2] == plain[2]


@settings(max_examples=150)
@given(rows, rows)
def test_the_pristine_frames_score_one_whatever_is_confirmed(
    own: sv.Detections, strong: sv.Detections
) -> None:
    references = confirmed_references([own], card(), [strong], card())
    value = score(frame_counts(get_task("detection"), own, references[0], card()), "detection")
    assert np.isnan(value) or value == pytest.approx(1)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_segmentation_stays_a_share(seed: int, other: int) -> None:
    result, reference = (
        np.random.default_rng(number).integers(0, 3, (6, 5)).astype(np.uint8) for number in (seed, other)
    )
    three = card("segmentation", ("road", "car", "sky"))
    task = get_task("segmentation")
    assert 0 <= score(frame_counts(task, result, FrameReference(reference), three), "segmentation") <= 1
    assert score(frame_counts(task, result, FrameReference(result), three), "segmentation") == 1
