"""AWStream: the profile is monotone, the choice follows the budget, and the stream runs what was chosen."""

import itertools
import math
from fractions import Fraction

import pytest

from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods import METHODS, MethodContext, OperatingPoint
from accmpeg.evaluation.methods.awstream import (
    PROFILE_FRAMES,
    Configuration,
    Profile,
    Profiled,
    pareto_front,
    profile_key,
)
from tests.evaluation.methods.method_clips import context, deliveries, moving_clip, run, sizes, uplink_bytes

CLIP_FRAMES = 40
"""With a warm-up of 13: the profile is whole."""


@pytest.fixture(scope="module")
def profiled() -> MethodContext:
    """A context in which the method has run once and left its profile."""
    shared = context()
    run(METHODS["awstream"], moving_clip(CLIP_FRAMES), 40, step=4, shared=shared)
    return shared


@pytest.fixture(scope="module")
def profile(profiled: MethodContext) -> Profile:
    (made,) = profiled.shared.values()
    assert isinstance(made, Profile)
    return made


def test_the_front_rises_in_bytes_and_accuracy(profile: Profile) -> None:
    rows = [(row.size_bytes, row.accuracy) for row in profile.front]
    assert len(rows) > 3
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(rows))


def test_the_profile_knows_what_pays(profile: Profile) -> None:
    """Full size and rate cost less the coarser the QP, and small pictures are cheaper than large ones."""
    sizes = [profile.full_bytes[qp] for qp in sorted(profile.full_bytes)]
    assert sizes == sorted(sizes, reverse=True)
    assert profile.front[0].configuration.width_px < 640
    assert profile.front[-1].accuracy > 0.8


def test_finer_points_get_more_bytes_and_accuracy(profile: Profile) -> None:
    by_configuration = {row.configuration: row for row in profile.front}
    chosen = []
    for quality in range(44, 19, -1):
        budget = profile.budget_bytes(OperatingPoint(quality=quality), gop_s=8.0)
        row = by_configuration[profile.best(budget)]
        assert row.size_bytes <= budget * 1.001
        chosen.append(row)
    assert [row.size_bytes for row in chosen] == sorted(row.size_bytes for row in chosen)
    assert [row.accuracy for row in chosen] == sorted(row.accuracy for row in chosen)
    assert len(set(chosen)) > 3


def test_a_bitrate_is_a_budget(profile: Profile) -> None:
    assert profile.budget_bytes(OperatingPoint(bitrate_bps=80_000), gop_s=2.0) == 20_000
    assert profile.best(0) == profile.front[0].configuration


def test_dominated_rows_are_no_part_of_the_front() -> None:
    rows = [
        Profiled(Configuration(16, 16, 1, qp), *point)
        for qp, point in enumerate([(5.0, 0.5), (5.0, 0.6), (6.0, 0.6), (7.0, 0.9), (9.0, 0.8)])
    ]
    assert [row.configuration.qp for row in pareto_front(rows)] == [1, 3]


def with_profile(configuration: Configuration, quality: int = 32) -> Session:
    """A run in which the profile leaves one choice."""
    clip = moving_clip(CLIP_FRAMES)
    shared = context()
    front = [Profiled(configuration, 1.0, 0.5)]
    shared.shared[profile_key(clip)] = Profile(front, {quality: 2.0})
    return run(METHODS["awstream"], clip, quality, shared=shared)


def test_the_configuration_runs_after_the_profile() -> None:
    session = with_profile(Configuration(320, 180, 2, 36))
    # Each stream at its own cost: a millisecond a call here.
    adapted = math.ceil((CLIP_FRAMES - PROFILE_FRAMES) / 2)
    assert session.stage_ms["camera: encode"] == PROFILE_FRAMES + 1
    assert session.stage_ms["camera: encode 320x180"] == adapted + 1
    sent = [sum(row) for row in sizes(session, "uplink")]
    left_out = [index for index, size_bytes in enumerate(sent) if size_bytes == 8]
    assert left_out == list(range(PROFILE_FRAMES + 1, CLIP_FRAMES, 2))
    assert sent[PROFILE_FRAMES] > 2 * sent[PROFILE_FRAMES + 2]  # a keyframe begins the new stream
    for index in left_out:
        assert session.results[index] is session.results[index - 1]
    assert deliveries(session) == [[index] for index in range(CLIP_FRAMES)]
    reused = [each for flow in session.flows for step in flow.steps for each in step.delivers]
    assert [each.of for each in reused if each.index in left_out] == [index - 1 for index in left_out]


def test_the_profile_and_its_keyframe_belong_to_the_warm_up() -> None:
    """What is measured is the adapted stream alone, which carries half of the frames."""
    session = with_profile(Configuration(320, 180, 2, 36))
    assert session.clip.warm_frames > PROFILE_FRAMES
    sent = [sum(row) for row in sizes(session, "uplink")]
    blocks = session.traffic.blocks()
    assert sum(blocks.frames) == CLIP_FRAMES - session.clip.warm_frames
    assert sum(blocks.bytes) == sum(sent[session.clip.warm_frames :])
    carried = sum(size_bytes > 8 for size_bytes in sent[session.clip.warm_frames :])
    share = carried / (CLIP_FRAMES - session.clip.warm_frames)
    assert share == pytest.approx(0.5, abs=0.05)
    assert session.traffic.keyframe_bytes == pytest.approx(sent[PROFILE_FRAMES] * share)


def test_no_new_stream_where_nothing_is_better() -> None:
    changed = with_profile(Configuration(640, 360, 1, 34))
    same = with_profile(Configuration(640, 360, 1, 32))
    keyframes = [sum(sizes(session, "uplink")[PROFILE_FRAMES]) for session in (changed, same)]
    assert keyframes[1] < keyframes[0] / 3


def test_the_whole_method(profiled: MethodContext, profile: Profile) -> None:
    fine, coarse = (
        run(METHODS["awstream"], moving_clip(CLIP_FRAMES), quality, step=4, shared=profiled)
        for quality in (24, 40)
    )
    assert uplink_bytes(fine) > 1.5 * uplink_bytes(coarse)
    assert [*profiled.shared.values()] == [profile]  # made once for the clip


def test_a_clip_shorter_than_the_profile_is_sent_as_it_is() -> None:
    session = run(METHODS["awstream"], moving_clip(5))
    assert session.clip.frame_rate == Fraction(30)
    assert not session.context.shared
