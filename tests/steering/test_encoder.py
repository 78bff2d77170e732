"""The steered encoder on real frames: maps are used, held, never from the future, and cost nothing else."""

from fractions import Fraction

import av
import numpy as np
import pytest

from accmpeg import AccModel, EncoderSettings, SteeredEncoder
from accmpeg.accmodel.runtime import Scores
from accmpeg.demo import assets_path, demo_scene
from accmpeg.media.decoder import Decoder, qp_map
from accmpeg.media.grid import MacroblockGrid
from accmpeg.steering import BinaryPolicy
from accmpeg.steering.feedback import FeedbackMap


class Recorder:
    """A scorer with known scores: the left half matters; it remembers which frames it saw."""

    object_threshold = 0.5

    def __init__(self) -> None:
        self.seen: list[int] = []

    def predict(self, frame: av.VideoFrame) -> Scores:
        self.seen.append(frame.pts or 0)
        grid = MacroblockGrid(frame.width, frame.height)
        accgrad = np.zeros(grid.shape, dtype=np.float32)
        accgrad[:, : grid.cols // 2] = 8
        return Scores(accgrad, None)


@pytest.fixture(scope="module")
def frames() -> list[av.VideoFrame]:
    with demo_scene(frame_count=12) as scene:
        return list(scene)


def settings(**changes: object) -> EncoderSettings:
    base: dict[str, object] = {"width_px": 1280, "height_px": 720, "frame_rate": Fraction(30), "qp": 30}
    base |= {"time_base": Fraction(1, 30)} | changes
    return EncoderSettings(**base)  # type: ignore[arg-type]


def test_the_map_reaches_the_bitstream(frames: list[av.VideoFrame]) -> None:
    policy = BinaryPolicy(top_share=0.5, dilate_macroblocks=0)
    with SteeredEncoder(settings(), Recorder(), policy) as camera:
        units = camera.encode(frames[0])
        decoder = Decoder("h264", camera.encoder.parameter_sets, read_qp=True)
        decoded = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    qps = qp_map(decoded[0])
    assert np.median(qps[:, :38]) == 30
    assert np.median(qps[:, 42:]) == 40


@pytest.mark.parametrize("by_answers", [False, True])
def test_strength_multiplies_whatever_map_there_is(frames: list[av.VideoFrame], by_answers: bool) -> None:
    maps = []
    for strength in (1.0, 1.5):
        feedback = FeedbackMap((1280, 720)) if by_answers else None
        if feedback is not None:
            feedback.answer(np.array([[0, 0, 320, 720]], np.float32))
        with SteeredEncoder(settings(), Recorder(), strength=strength, feedback=feedback) as camera:
            camera.encode(frames[0])
            assert camera.qp_offsets is not None
            maps.append(camera.qp_offsets)
    assert np.ptp(maps[0]) > 0
    assert (maps[1] == np.rint(1.5 * maps[0])).all()


def test_every_kth_frame_has_a_new_map_from_the_frame_before_it(frames: list[av.VideoFrame]) -> None:
    recorder = Recorder()
    with SteeredEncoder(settings(), recorder, "graded", every=5) as camera:
        for index, frame in enumerate(frames):
            camera.encode(frame)
            assert camera.map_renewed is (index % 5 == 0)
            assert max(recorder.seen) <= max(0, index - 1)
    assert recorder.seen == [0, 4, 9]


def test_only_the_first_frame_waits_for_a_map(frames: list[av.VideoFrame]) -> None:
    recorder = Recorder()
    with SteeredEncoder(settings(), recorder, every=1) as camera:
        seen = []
        for frame in frames[:3]:
            camera.encode(frame)
            seen.append(len(recorder.seen))
            camera.renew_map()
            seen.append(len(recorder.seen))
            camera.renew_map()
    assert seen == [1, 2, 2, 3, 3, 4]


def test_the_stream_is_the_same_whenever_the_map_is_made(frames: list[av.VideoFrame]) -> None:
    model = AccModel.load(assets_path() / "accmodel.card.toml")
    streams = []
    for at_once in (True, False):
        with SteeredEncoder(settings(crf=30, qp=None), model, every=3) as camera:
            coded = []
            for frame in frames[:8]:
                coded += camera.encode(frame)
                if at_once:
                    camera.renew_map()
            streams.append([unit.data for unit in [*coded, *camera.flush()]])
    assert streams[0] == streams[1]


def test_frames_of_another_size_are_scaled_to_the_stream(frames: list[av.VideoFrame]) -> None:
    with SteeredEncoder(settings(width_px=640, height_px=360), Recorder()) as camera:
        units = [unit for frame in frames[:3] for unit in camera.encode(frame)] + camera.flush()
        decoder = Decoder("h264", camera.encoder.parameter_sets)
        decoded = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
        assert camera.qp_offsets is not None
        assert camera.qp_offsets.shape == (23, 40)
    assert [(frame.width, frame.height) for frame in decoded] == [(640, 360)] * 3
    assert [unit.pts for unit in units] == [0, 1, 2]


def test_rate_controlled_maps_leave_the_bitrate_alone(frames: list[av.VideoFrame]) -> None:
    model = AccModel.load(assets_path() / "accmodel.card.toml")
    sizes = {}
    for name, scorer in (("plain", None), ("steered", model)):
        rated = settings(qp=None, bitrate_bps=1_500_000, steerable=scorer is not None)
        with SteeredEncoder(rated, scorer) as camera:
            units = [unit for frame in frames for unit in camera.encode(frame)]
            sizes[name] = sum(unit.size_bytes for unit in units)
    assert sizes["steered"] == pytest.approx(sizes["plain"], rel=0.35)


def test_stage_times_add_up(frames: list[av.VideoFrame]) -> None:
    with SteeredEncoder(settings(), Recorder()) as camera:
        for frame in frames[:4]:
            camera.encode(frame)
        assert set(camera.times.total_ms) == {"open", "accmodel", "policy", "encode"}


def test_a_map_every_zero_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="every 0 frames"):
        SteeredEncoder(settings(), None, every=0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_answers_make_the_map_and_the_accmodel_before_and_after(frames: list[av.VideoFrame]) -> None:
    clock, scorer = Clock(), Recorder()
    feedback = FeedbackMap((1280, 720), clock_s=clock)
    grid = MacroblockGrid(1280, 720)
    seen = []
    with SteeredEncoder(settings(gop_frames=1), scorer, BinaryPolicy(), every=1, feedback=feedback) as camera:
        for index, frame in enumerate(frames[:4]):
            if index == 1:
                feedback.answer(np.array([[0, 0, 320, 720]], np.float32))
            if index == 3:
                clock.now_s = 10.0
            (unit,) = camera.encode(frame)
            (decoded,) = Decoder(read_qp=True).decode(unit)
            seen.append((camera.map_source, camera.map_renewed, qp_map(decoded)))
    assert [source for source, _, _ in seen] == ["accmodel", "answers", "answers", "accmodel"]
    assert [renewed for _, renewed, _ in seen] == [True, False, False, True]
    assert len(scorer.seen) == 2, "no AccModel runs while answers make the map"
    by_answers = seen[1][2]
    assert by_answers[:, : 320 // 16].mean() + 6 < by_answers[:, 320 // 16 + 3 :].mean()
    assert by_answers.shape == grid.shape


def test_stale_answers_leave_no_map_without_an_accmodel(frames: list[av.VideoFrame]) -> None:
    clock = Clock()
    feedback = FeedbackMap((1280, 720), clock_s=clock)
    with SteeredEncoder(settings(), None, feedback=feedback) as camera:
        camera.encode(frames[0])
        assert camera.map_source == "none"
        feedback.answer(np.array([[0, 0, 320, 720]], np.float32))
        camera.encode(frames[1])
        assert camera.qp_offsets is not None
        clock.now_s = 10.0
        camera.encode(frames[2])
        assert camera.qp_offsets is None
        assert camera.map_source == "none"
