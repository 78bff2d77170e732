"""The three references: own answers, those a stronger DNN confirms, true labels; kept in files."""

from typing import Any

import numpy as np
import pytest
import supervision as sv

from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, KeypointCard
from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.references import (
    FrameReference,
    confirmed_references,
    label_references,
    own_references,
)
from accmpeg.evaluation.bench.score import frame_counts, score
from accmpeg.tasks import TaskName, get_task


def card(classes: tuple[str, ...], threshold: float = 0.25, task: TaskName = "detection") -> DnnCard:
    return DnnCard(
        name=f"{task} of {len(classes)}",
        task=task,
        adapter="onnx",
        model="tiny.onnx",
        classes=list(classes),
        score_threshold=threshold,
        input=InputCard(name="x", width_px=64, height_px=64),
        head=HeadCard(name="yolo"),
        keypoints=KeypointCard(names=["nose"]) if task == "keypoints" else None,
    )


OWN = card(("person", "car", "kite"))
STRONG = card(("car", "bus", "person"), threshold=0.4)


def boxes(*rows: tuple[float, ...]) -> sv.Detections:
    table = np.asarray(rows, np.float64).reshape(-1, 6)
    return sv.Detections(
        xyxy=table[:, :4].astype(np.float32),
        confidence=table[:, 4].astype(np.float32),
        class_id=table[:, 5].astype(np.int64),
    )


def unscored(*rows: tuple[float, ...]) -> sv.Detections:
    labels = boxes(*[(*row[:4], 1.0, row[4]) for row in rows])
    labels.confidence = None
    return labels


def confirmed(
    own: Any, strong: Any, own_card: DnnCard = OWN, strong_card: DnnCard = STRONG
) -> FrameReference:
    (reference,) = confirmed_references([own], own_card, [strong], strong_card)
    return reference


def test_own_answers_are_the_reference_as_they_are() -> None:
    answers = boxes((0, 0, 9, 9, 0.9, 0))
    (reference,) = own_references([answers])
    assert reference.result is answers
    assert len(reference.ignored) == len(reference.unlabelled) == 0


def test_an_answer_counts_where_the_stronger_dnn_sees_the_same_class() -> None:
    own = boxes(
        (0, 0, 100, 100, 0.9, 0),  # confirmed by name, though the numbers differ
        (200, 0, 300, 100, 0.9, 1),  # the stronger one sees a bus
        (0, 200, 100, 300, 0.9, 1),  # moved too far: IoU 0.43
        (200, 200, 300, 300, 0.9, 2),  # a class that the stronger one does not know
        (300, 300, 350, 350, 0.05, 0),  # no weight: as good as not said
    )
    strong = boxes(
        (5, 0, 105, 100, 0.9, 2),
        (200, 0, 300, 100, 0.9, 1),
        (40, 200, 140, 300, 0.9, 0),
        (300, 300, 350, 350, 0.2, 2),  # below the foot of its own card's ramp, 0.25
    )
    reference = confirmed(own, strong)
    assert reference.result.xyxy.tolist() == [[0, 0, 100, 100]]
    assert reference.result.confidence.tolist() == pytest.approx([0.9])
    assert reference.ignored.tolist() == [
        [200, 0, 300, 100],
        [0, 200, 100, 300],
        [200, 200, 300, 300],
        [200, 0, 300, 100],
        [40, 200, 140, 300],
    ]


def test_one_answer_is_confirmed_by_one_and_confirms_one() -> None:
    own = boxes((0, 0, 100, 100, 0.9, 0), (10, 0, 110, 100, 0.8, 0))
    reference = confirmed(own, boxes((10, 0, 110, 100, 0.9, 2)))
    assert reference.result.xyxy.tolist() == [[10, 0, 110, 100]]
    assert reference.ignored.tolist() == [[0, 0, 100, 100]]


def test_a_stream_is_punished_neither_for_losing_doubtful_answers_nor_for_keeping_them() -> None:
    certain, doubtful = (0, 0, 100, 100, 0.9, 0), (200, 0, 300, 100, 0.9, 1)
    only_strong, nobody = (0, 200, 100, 300, 0.9, 1), (200, 200, 300, 300, 0.9, 0)
    reference = confirmed(boxes(certain, doubtful), boxes((*certain[:5], 2), (*only_strong[:5], 0)))
    task = get_task("detection")
    for result, expected in (
        (boxes(certain), 1.0),
        (boxes(certain, doubtful), 1.0),
        (boxes(certain, only_strong), 1.0),
        (boxes(certain, nobody), 2 / 3),
        (boxes(doubtful), 0.0),
    ):
        assert score(frame_counts(task, result, reference, OWN), "detection") == pytest.approx(expected)


def test_frames_without_answers_have_nothing_confirmed() -> None:
    seen = boxes((0, 0, 100, 100, 0.9, 0))
    for reference, ignored in (
        (confirmed(boxes(), boxes()), 0),
        (confirmed(seen, boxes()), 1),
        (confirmed(boxes(), seen), 1),
    ):
        assert len(reference.result) == 0
        assert len(reference.ignored) == ignored
        assert frame_counts(get_task("detection"), seen, reference, OWN)[0, 2] == 0


def test_people_with_keypoints_are_confirmed_by_their_boxes() -> None:
    box = np.asarray([[0, 0, 100, 100], [200, 0, 300, 100]], np.float32)
    people = sv.KeyPoints(
        xy=box.reshape(2, 2, 2)[:, :1],
        keypoint_confidence=np.ones((2, 1), np.float32),
        detection_confidence=np.asarray([0.9, 0.9], np.float32),
        class_id=np.zeros(2, np.int64),
        data={"xyxy": box},
    )
    pose = card(("person",), task="keypoints")
    reference = confirmed(people, boxes((0, 0, 100, 100, 0.9, 2)), pose)
    assert reference.result.data["xyxy"].tolist() == [[0, 0, 100, 100]]
    assert reference.ignored.tolist() == [[200, 0, 300, 100]]
    assert frame_counts(get_task("keypoints"), people, reference, pose).tolist() == [[1, 1, 1]]


def test_dnns_that_can_confirm_nothing_are_named() -> None:
    with pytest.raises(EvaluationError, match=r"detection of 1 can't confirm .* no class name in common"):
        confirmed_references([], OWN, [], card(("zebra",)))
    with pytest.raises(EvaluationError, match="segmentation of 2 reports no objects"):
        confirmed_references([], OWN, [], card(("person", "car"), task="segmentation"))


def test_labels_have_the_numbers_of_the_card_and_what_they_do_not_know_is_not_judged() -> None:
    labels = [unscored((0, 0, 50, 100, 0), (100, 0, 150, 100, 1), (200, 0, 250, 20, 0))]
    references = label_references(labels, ("person", "tram"), OWN, min_height_px=25)
    assert references is not None
    (reference,) = references
    assert reference.result.xyxy.tolist() == [[0, 0, 50, 100]]
    assert reference.result.class_id.tolist() == [0]
    assert reference.ignored.tolist() == [[200, 0, 250, 20]]
    task = get_task("detection")
    person, car, kite = ((0, 0, 50, 100, 0.9, 0), (100, 0, 150, 100, 0.9, 1), (300, 0, 350, 50, 0.9, 2))
    assert frame_counts(task, boxes(person, car, kite), reference, OWN).tolist() == [[1, 1, 1]]
    (alike,) = label_references(labels, ("Person ", "TRAM"), OWN, min_height_px=25) or ()
    assert alike.result.xyxy.tolist() == reference.result.xyxy.tolist()
    assert label_references(labels, ("tram", "zebra"), OWN) is None
    assert label_references(labels, ("person", "tram"), card(("person",), task="segmentation")) is None


def test_cars_are_all_vehicles_where_the_labels_know_no_other() -> None:
    own = card(("person", "car", "bus", "truck"))
    labels = [unscored((0, 0, 100, 50, 0))]
    task = get_task("detection")
    truck = boxes((0, 0, 100, 50, 0.9, 3))

    def counts(names: tuple[str, ...], result: sv.Detections) -> list[list[float]]:
        references = label_references(labels, names, own)
        assert references is not None
        return frame_counts(task, result, references[0], own).tolist()

    assert counts(("car",), truck) == [[1, 1, 1]]
    assert counts(("car", "bicycle"), truck) == [[1, 1, 1]]
    assert counts(("car",), boxes((0, 0, 100, 50, 0.9, 0))) == [[0, 0, 1]]  # people were not labelled
    assert counts(("car", "truck"), truck) == [[0, 1, 1]]
