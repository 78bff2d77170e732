"""Reducto: the threshold keeps the target on what was profiled; still scenes are left out, others are not."""

import math

import numpy as np
import pytest

from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.methods import METHODS
from accmpeg.evaluation.methods.reducto import (
    FEATURES,
    PROFILE_FRAMES,
    SEGMENT_FRAMES,
    TARGET_ACCURACY,
    Sample,
    ThresholdTable,
    best_threshold,
    chosen_frames,
)
from tests.evaluation.methods.method_clips import (
    HEIGHT_PX,
    deliveries,
    make_clip,
    moving_clip,
    run,
    scene,
    sizes,
    still_clip,
    uplink_bytes,
)

REDUCTO = METHODS["reducto"]
SEGMENTS = 2
FRAMES = PROFILE_FRAMES + 6 + SEGMENTS * SEGMENT_FRAMES


def left_out(session: Session) -> int:
    return sum(size_bytes == 8 for row in sizes(session, "uplink") for size_bytes in row)


def first_of_segment(session: Session) -> int:
    """The frame with which the camera begins to gather: the table has arrived."""
    return next(index for index, indices in enumerate(deliveries(session)) if not indices)


@pytest.fixture(scope="module")
def still() -> Session:
    return run(REDUCTO, still_clip(FRAMES))


def test_a_still_scene_is_left_out_but_for_each_segments_first_frame(still: Session) -> None:
    gathered = FRAMES - first_of_segment(still)
    assert gathered >= SEGMENTS * SEGMENT_FRAMES
    assert left_out(still) == gathered - math.ceil(gathered / SEGMENT_FRAMES)


def test_reused_results_are_those_of_the_last_frame_sent(still: Session) -> None:
    first = first_of_segment(still)
    assert still.results[first + 5] is still.results[first]
    assert still.results[first + SEGMENT_FRAMES] is not still.results[first]


def test_a_moving_scene_sends_more() -> None:
    session = run(REDUCTO, moving_clip(FRAMES, every=8), step=4)
    assert left_out(session) < SEGMENTS * (SEGMENT_FRAMES - 1) / 2


def test_the_table_comes_back_and_is_used_only_then(still: Session) -> None:
    assert 0 < bytes_of(still.flows, "downlink") < 400
    delivering = [index for index, indices in enumerate(deliveries(still)) if indices]
    assert delivering[: first_of_segment(still)] == list(range(first_of_segment(still)))
    assert delivering[first_of_segment(still)] == first_of_segment(still) + SEGMENT_FRAMES - 1
    # The profile ends at frame 19; the way back alone takes 20 ms of the 33 to the next frame.
    assert first_of_segment(still) > PROFILE_FRAMES


def test_profiled_frames_carry_their_differences() -> None:
    session = run(REDUCTO, still_clip(4))
    assert all(4 * len(FEATURES) in row for row in sizes(session, "uplink"))
    assert uplink_bytes(session) > 4 * 4 * len(FEATURES)


@pytest.mark.parametrize("target", [0.7, 0.9, 0.99])
def test_the_target_holds_on_the_profile(target: float) -> None:
    """Accuracy that falls with the frames between: the threshold found keeps its mean at the target."""
    differences = [0.1, 0.3, 0.1, 0.1, 0.5, 0.1, 0.2, 0.1, 0.1]

    def accuracy(used: int, index: int) -> float:
        return max(0.0, 1 - sum(differences[used:index]))

    threshold, frames = best_threshold(differences, accuracy, target)
    chosen = chosen_frames(differences, threshold)
    newest = [max(i for i in chosen if i <= j) for j in range(10)]
    assert np.mean([accuracy(i, j) for j, i in enumerate(newest)]) >= target
    assert frames == len(chosen)


def test_stricter_targets_send_more_frames() -> None:
    differences = [0.1] * 9

    def accuracy(used: int, index: int) -> float:
        return 1 - 0.05 * (index - used)

    sent = [best_threshold(differences, accuracy, target)[1] for target in (0.5, 0.9, 0.999)]
    assert sent[0] < sent[1] < sent[2] == 10


def test_a_cluster_takes_its_most_careful_threshold() -> None:
    calm = [Sample([0.01 + 0.001 * i] * 9, 0.2 + 0.01 * i) for i in range(5)]
    busy = [Sample([0.3 + 0.01 * i] * 9, 0.9 + 0.01 * i) for i in range(5)]
    table = ThresholdTable.fit("pixel", [*busy, *calm])
    for sample in [*calm, *busy]:
        threshold = table.threshold(sample.differences)
        assert threshold is not None
        assert threshold <= sample.threshold + 1e-6
    assert table.threshold([0.01] * 9) == pytest.approx(0.2, abs=0.05)
    assert table.threshold([0.3] * 9) == pytest.approx(0.9, abs=0.05)


def test_an_unfamiliar_segment_has_no_threshold() -> None:
    table = ThresholdTable.fit("pixel", [Sample([0.01 * i] * 9, 0.2) for i in range(1, 6)])
    assert table.threshold([0.9] * 9) is None
    known = ThresholdTable.fit(
        "pixel", [*(Sample([0.01 * i] * 9, 0.2) for i in range(1, 6)), Sample([0.9] * 9, 0.5)]
    )
    assert known.threshold([0.9] * 9) is not None


def test_an_unfamiliar_segment_is_sent_whole_and_teaches_the_server() -> None:
    clip = still_clip(PROFILE_FRAMES + 6)
    street = moving_clip(FRAMES, every=8)
    pictures = [frame.to_ndarray() for frame in [*clip.frames, *street.frames[:12]]]
    session = run(REDUCTO, make_clip(pictures, "awakes"), step=4)
    tables = [size_bytes for row in sizes(session, "downlink") for size_bytes in row]
    assert len(tables) >= 2
    assert left_out(session) < SEGMENT_FRAMES


def test_features_see_what_they_are_for() -> None:
    planes = scene().yuv420p(0)
    picture = np.ascontiguousarray(planes[:HEIGHT_PX])
    square = picture.copy()
    square[100:140, 100:160] = 255 - square[100:140, 100:160]
    for feature in FEATURES.values():
        prepared = feature.prepare(picture)
        assert feature.difference(prepared, prepared) == 0
        assert feature.difference(prepared, feature.prepare(square)) > 0
    area = FEATURES["area"]
    assert 0.005 < area.difference(area.prepare(picture), area.prepare(square)) < 0.03
    assert 0 < TARGET_ACCURACY < 1
