"""DDS: both passes and the round trip are counted, only asked-for regions get finer, sure objects stay."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import supervision as sv

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.methods.dds import dds, regions_wanted
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid

Record = Callable[..., Any]
GRID = MacroblockGrid(640, 360)
DDS = dds(chunk_frames=4)


def pixels(mask: np.ndarray) -> np.ndarray:
    return mask.repeat(16, axis=0).repeat(16, axis=1)[:360, :640]


def found(*boxes: tuple[float, ...]) -> sv.Detections:
    """Detections of (x0, y0, x1, y1, score)."""
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return sv.Detections(xyxy=rows[:, :4], confidence=rows[:, 4], class_id=np.zeros(len(rows), np.int64))


def test_both_passes_and_the_round_trip_are_counted(
    street: Clip, context: MethodContext, record: Record
) -> None:
    session = record(street, DDS, context, frames=6)
    coarse = record(street, METHODS["constant-qp"], context, frames=6, quality=40)
    flows = session.flows
    # Two chunks: one of four frames, and what was left when the clip ended.
    assert [bytes_of([flow], "uplink") > 0 for flow in flows] == [False, False, False, True, False, True]
    for flow, indices in ((flows[3], range(4)), (flows[5], range(4, 6))):
        path = [step.place for step in flow.steps]
        up, down, up_again = (i for i, place in enumerate(path) if place in ("uplink", "downlink"))
        assert path[up] == path[up_again] == "uplink"
        assert path[down] == "downlink"
        # One batch in each pass: no inference waits for another.
        first, second = (step.pictures for step in flow.steps if step.place == "dnn")
        assert first == len(indices) >= second
        assert path[up + 1 : down] == ["server", "dnn", *["server"] * (down - up - 3)]
        assert path[down + 1 : up_again] == ["camera"] * (up_again - down - 1)
        assert set(path[up_again + 1 :]) == {"server", "dnn"}
        first_pass = sum(unit.size_bytes for index in indices for unit in coarse.sent[index])
        assert flow.steps[up].size_bytes == first_pass
        assert flow.steps[up_again].size_bytes > 0
        assert sorted(each.index for step in flow.steps for each in step.delivers) == list(indices)
    assert bytes_of(flows, "downlink") > 0


def test_regions_are_fine_and_the_rest_is_the_coarse_pass(
    street: Clip, context: MethodContext, record: Record
) -> None:
    session = record(street, DDS, context, frames=4, keep=[2])
    coarse = record(street, METHODS["constant-qp"], context, frames=4, quality=40, keep=[2])
    asked = regions_wanted(coarse.results[2], GRID, context.dnn.card.score_threshold)
    assert 0 < asked.mean() < 0.9
    source, first, last = (
        plane_view(frame, 0).astype(float) for frame in (street.frames[2], coarse.seen[2], session.seen[2])
    )
    assert np.array_equal(first[~pixels(asked)], last[~pixels(asked)])
    before, after = (np.square(picture - source)[pixels(asked)].mean() for picture in (first, last))
    assert after < before / 2


def test_what_is_asked_for() -> None:
    sure, unsure = (100, 100, 160, 200, 0.9), (300, 100, 330, 180, 0.4)
    assert not regions_wanted(found(sure), GRID, 0.3).any()
    assert np.array_equal(
        regions_wanted(found(sure, unsure), GRID, 0.3), GRID.cover_boxes(np.array([unsure[:4]]))
    )
    beside_a_sure_one, huge, hopeless = (
        (105, 105, 165, 200, 0.4),
        (0, 0, 500, 300, 0.4),
        (400, 10, 420, 40, 0.05),
    )
    assert not regions_wanted(found(sure, beside_a_sure_one, huge, hopeless), GRID, 0.3).any()
    assert not regions_wanted(found(), GRID, 0.3).any()


def test_unsure_people_are_asked_for_by_their_points_too() -> None:
    boxes = np.array([[100, 100, 160, 200], [300, 100, 360, 200]], np.float32)
    people = sv.KeyPoints(
        xy=boxes[:, None, :2].repeat(3, axis=1),
        keypoint_confidence=np.array([[0.95] * 3, [0.5] * 3], np.float32),
        detection_confidence=np.array([0.9, 0.9], np.float32),
        class_id=np.zeros(2, np.int64),
        data={"xyxy": boxes},
    )
    assert np.array_equal(regions_wanted(people, GRID, 0.3), GRID.cover_boxes(boxes[1:]))
    nobody = people[np.zeros(2, np.bool_)]
    assert not regions_wanted(nobody, GRID, 0.3).any()


def test_class_borders_are_asked_for_in_segmentation() -> None:
    classes = np.zeros((90, 160), np.uint8)
    classes[40:60, 40:80] = 3
    asked = regions_wanted(classes, GRID, 0.3)
    assert 0 < asked.mean() <= 0.25
    rows, cols = np.nonzero(asked)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (9, 15, 9, 20)
    assert not asked[11:13, 12:17].any()
    assert not regions_wanted(np.zeros((90, 160), np.uint8), GRID, 0.3).any()


def test_a_sure_object_that_the_second_pass_lost_stays(street: Clip, context: MethodContext) -> None:
    sure, unsure = (100, 100, 160, 200, 0.9), (300, 100, 330, 180, 0.4)
    scripted = [found(sure, unsure), found((301, 100, 330, 181, 0.7))]

    class Scripted(Session):
        def _infer(self, frame: Any) -> Any:
            return scripted.pop(0)

    session = Scripted(street, context, wanted=frozenset(range(12)))
    stream_format = StreamFormat(640, 360, street.frame_rate, street.time_base)
    stream = DDS.open(stream_format, OperatingPoint(quality=30), session)
    stream.push(0, session.capture(0))
    stream.finish()
    assert sorted(session.results[0].confidence.round(2).tolist()) == pytest.approx([0.7, 0.9])


def test_a_bitrate_is_refused(street: Clip, context: MethodContext) -> None:
    stream_format = StreamFormat(640, 360, street.frame_rate, street.time_base)
    with pytest.raises(UsageError, match="quality"):
        DDS.open(
            stream_format, OperatingPoint(bitrate_bps=500_000), Session(street, context, wanted=frozenset())
        )
