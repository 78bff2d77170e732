"""The encoder that follows plans, and what it tells the rate controller of each new map."""

import threading
from typing import Any

import av
import numpy as np
import pytest

import accmpeg
from accmpeg.accmodel.runtime import Scores
from accmpeg.camera.capture import FrameSlot, TimedFrame
from accmpeg.camera.encode_loop import EncodeLoop, PlannedEncoder
from accmpeg.camera.options import CameraOptions
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.accuracy import AccuracyCurve
from accmpeg.camera.uplink.adaptation import FramePlan
from accmpeg.camera.uplink.ladder import Level
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.camera.uplink.uplink import NoUplink
from accmpeg.media.clock import SteadyClock
from accmpeg.media.encoder import EncoderSettings
from accmpeg.media.grid import MacroblockGrid
from accmpeg.steering.feedback import FeedbackMap
from tests.camera.conftest import HEIGHT_PX, WIDTH_PX
from tests.camera.peer import peer


class Even:
    """A scorer to which every macroblock is worth the same."""

    object_threshold = 0.5

    def predict(self, frame: av.VideoFrame) -> Scores:
        return Scores(np.zeros(MacroblockGrid(frame.width, frame.height).shape, dtype=np.float32), None)


def planned(every: int, gop_frames: int = 300) -> PlannedEncoder:
    settings = EncoderSettings(
        width_px=WIDTH_PX, height_px=HEIGHT_PX, frame_rate=15, bitrate_bps=500_000, gop_frames=gop_frames
    )
    return PlannedEncoder(settings, Even(), CameraOptions(policy="graded", every=every))


def frames(rendered: list[av.VideoFrame], count: int) -> list[TimedFrame]:
    found = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(rendered[index % len(rendered)].to_ndarray(), format="yuv420p")
        frame.pts, frame.time_base = index, rendered[0].time_base
        found.append(TimedFrame(frame, 66_667 * index))
    return found


@pytest.mark.parametrize(
    ("every", "gop_frames", "told"),
    [
        (1, 300, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, 300, [1, 3, 6]),
        (4, 4, [1, 5]),  # a keyframe's QP does not say what the rate gives, the next frame's does
    ],
)
def test_each_new_map_tells_once_how_accuracy_moves_with_the_bitrate(
    rendered: list[av.VideoFrame], every: int, gop_frames: int, told: list[int]
) -> None:
    encoder = planned(every, gop_frames)
    curves = {}
    for index, timed in enumerate(frames(rendered, 9)):
        (coded,) = encoder.encode(timed, FramePlan(), {}, keyframe=False)
        curves[index] = encoder.curve(coded.unit)
    assert [index for index, curve in curves.items() if curve is not None] == told
    last = curves[told[-1]]
    assert last is not None
    assert last.bitrate_bps == 500_000
    assert 0 < last.frame_qp < 52


@pytest.mark.parametrize("objects", [[], [{"box_xyxy": [10, 10, 90, 90]}]])
def test_a_map_of_answers_tells_no_curve(rendered: list[av.VideoFrame], objects: list[object]) -> None:
    settings = EncoderSettings(width_px=WIDTH_PX, height_px=HEIGHT_PX, frame_rate=15, bitrate_bps=500_000)
    feedback = FeedbackMap((WIDTH_PX, HEIGHT_PX))
    encoder = PlannedEncoder(settings, Even(), CameraOptions(policy="feedback"), feedback=feedback)
    first, second = frames(rendered, 2)
    (key,) = encoder.encode(first, FramePlan(), {}, keyframe=False)
    assert encoder.steered.map_source == "accmodel"
    assert encoder.curve(key.unit) is None, "no keyframe does"
    feedback.take({"objects": objects})
    (coded,) = encoder.encode(second, FramePlan(), {}, keyframe=False)
    assert encoder.steered.map_source == "answers"
    assert encoder.curve(coded.unit) is None


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9"])
def test_an_encoder_that_begins_anew_for_another_rate_does_so_seldom(
    rendered: list[av.VideoFrame], codec: str
) -> None:
    settings = EncoderSettings(
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        frame_rate=15,
        codec=codec,
        bitrate_bps=500_000,
        steerable=False,
    )
    encoder = PlannedEncoder(settings, None, CameraOptions(policy="none", codec=codec))
    keyframes = []
    for index, timed in enumerate(frames(rendered, 50)):
        bitrate_bps = 200_000 if index >= 45 else round(500_000 * 1.03**index)
        for coded in encoder.encode(timed, FramePlan(bitrate_bps), {}, keyframe=False):
            keyframes += [round(coded.captured_us / 66_667)] if coded.unit.is_keyframe else []
    assert keyframes == [0, 30, 45], "at the start, after two seconds, and where the link breaks down"


def run_loop(timed: list[TimedFrame], scorer: Even, options: CameraOptions, uplink: NoUplink) -> None:
    """All of these frames through a loop, to its end."""
    settings = EncoderSettings(width_px=WIDTH_PX, height_px=HEIGHT_PX, frame_rate=15, bitrate_bps=500_000)
    slot, encoder = FrameSlot(lossless=True), PlannedEncoder(settings, scorer, options)
    loop = EncodeLoop(slot, encoder, [], uplink, threading.Event(), SteadyClock(), CameraStats())
    loop.start()
    for each in timed:
        slot.put(each)
    slot.end()
    loop.join()
    assert loop.error is None


@pytest.mark.parametrize("every", [1, 4])
def test_no_b_frame_and_none_of_the_map_before_tells_it(rendered: list[av.VideoFrame], every: int) -> None:
    settings = EncoderSettings(
        width_px=WIDTH_PX, height_px=HEIGHT_PX, frame_rate=15, bitrate_bps=500_000, b_frames=2
    )
    encoder = PlannedEncoder(settings, Even(), CameraOptions(policy="graded", every=every, b_frames=2))
    newest_us, told_us = -1, []
    for timed in frames(rendered, 24):
        for coded in encoder.encode(timed, FramePlan(), {}, keyframe=False):
            if encoder.curve(coded.unit) is not None:
                assert coded.captured_us > newest_us, "a B-frame comes after one that is shown later"
                told_us.append(coded.captured_us)
            newest_us = max(newest_us, coded.captured_us)
    due_us = [66_667 * index for index in range(every, 18, every)]
    assert len(told_us) >= 3
    if every > 1:  # the first that can of each map
        after_key_us, *others = told_us
        assert after_key_us < due_us[0]
        assert all(0 <= told - due < 3 * 66_667 for told, due in zip(others, due_us, strict=False))


@pytest.mark.parametrize("first", [0, 1])
def test_half_of_half_of_the_frames_is_a_quarter_and_not_nothing(
    rendered: list[av.VideoFrame], first: int
) -> None:
    delivered: list[int] = []

    class Outlet(NoUplink):
        def plan(self, captured_us: int, shown_us: int) -> FramePlan:
            wanted = round(captured_us / 66_667) % 2 == first
            return FramePlan(None, Level(1, 2), None if wanted else "unanswered")

        def deliver(self, unit: TimedUnit, curve: AccuracyCurve | None) -> None:
            delivered.append(round(unit.captured_us / 66_667))

    run_loop(frames(rendered, 16), Even(), CameraOptions(policy="graded"), Outlet(500_000))
    assert delivered == [first + 2, first + 6, first + 10, first + 14]


def test_a_frame_is_handed_on_before_the_map_of_the_next_one_is_made(rendered: list[av.VideoFrame]) -> None:
    done: list[str] = []

    class Telling(Even):
        def predict(self, frame: av.VideoFrame) -> Scores:
            done.append("map")
            return super().predict(frame)

    class Outlet(NoUplink):
        def deliver(self, unit: TimedUnit, curve: AccuracyCurve | None) -> None:
            done.append("sent")

    run_loop(frames(rendered, 5), Telling(), CameraOptions(policy="graded", every=2), Outlet(500_000))
    assert done == ["map", "sent", "sent", "map", "sent", "sent", "map", "sent"]


def test_another_level_begins_with_a_keyframe_of_its_size(rendered: list[av.VideoFrame]) -> None:
    encoder = planned(1)
    first, second, third = frames(rendered, 3)
    half = FramePlan(200_000, Level(0.5, 1))
    coded = encoder.encode(first, FramePlan(), {}, keyframe=False)
    coded += encoder.encode(second, half, {}, keyframe=False)
    coded += encoder.encode(third, half, {}, keyframe=False)
    assert [each.unit.is_keyframe for each in coded] == [True, True, False]
    assert [each.captured_us for each in coded] == [0, 66_667, 133_334]
    assert encoder.size_px == (160, 90)
    assert encoder.steered.settings.bitrate_bps == 200_000
    curve = encoder.curve(coded[-1].unit)
    assert curve is not None
    assert curve.qp_offsets.shape == MacroblockGrid(160, 90).shape


def test_b_frames_come_and_go_with_the_plan_where_nobody_set_them(rendered: list[av.VideoFrame]) -> None:
    settings = EncoderSettings(
        width_px=WIDTH_PX, height_px=HEIGHT_PX, frame_rate=15, bitrate_bps=500_000, steerable=False
    )
    for chooses in (True, False):
        encoder = PlannedEncoder(
            settings, None, CameraOptions(policy="none", b_frames=None if chooses else 0)
        )
        coded = []
        for index, timed in enumerate(frames(rendered, 24)):
            plan = FramePlan(b_frames=2 if 8 <= index < 16 else 0)
            coded += encoder.encode(timed, plan, {}, keyframe=False)
        coded += encoder.flush()
        captured = [each.captured_us for each in coded]
        assert sorted(captured) == [66_667 * index for index in range(24)], "none is lost"
        assert [at for each, at in zip(coded, captured, strict=True) if each.unit.is_keyframe] == (
            [0, 66_667 * 8, 66_667 * 16] if chooses else [0]
        )
        assert (captured != sorted(captured)) == chooses
        assert captured[16:] == sorted(captured[16:])


def test_another_level_gives_first_what_b_frames_held(rendered: list[av.VideoFrame]) -> None:
    settings = EncoderSettings(
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        frame_rate=15,
        bitrate_bps=500_000,
        b_frames=2,
        steerable=False,
    )
    encoder = PlannedEncoder(settings, None, CameraOptions(policy="none", b_frames=2))
    coded = []
    for index, timed in enumerate(frames(rendered, 8)):
        plan = FramePlan(200_000, Level(0.5, 1)) if index >= 4 else FramePlan()
        coded += encoder.encode(timed, plan, {"wait": float(index)}, keyframe=False)
    coded += encoder.flush()
    assert sorted(each.captured_us for each in coded) == [66_667 * index for index in range(8)]
    assert [each.size_px for each in coded] == [(WIDTH_PX, HEIGHT_PX)] * 4 + [(160, 90)] * 4
    for each in coded:
        index = round(each.unit.pts * each.unit.time_base / rendered[0].time_base)
        assert (each.captured_us, each.stages_ms["wait"]) == (66_667 * index, index), "each of its own frame"


@pytest.mark.parametrize("every", [1, 5])
def test_predicted_accuracy_bounds_the_bitrate(scene: Any, every: int) -> None:
    with peer() as server:
        with accmpeg.stream(
            scene(25), server.url, accmodel=Even(), every=every, drop="none", tolerance=0.5
        ) as camera:
            list(camera)
        found = camera.snapshot()
    assert found["ceiling_bps"] < camera.options.highest_bps, "half of the accuracy costs far less"
