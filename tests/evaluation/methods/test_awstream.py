"""AWStream: the profile is monotone, the choice follows the budget, and the stream runs what was chosen."""

import itertools
from fractions import Fraction

import pytest
from method_clips import context, moving_clip, run, uplink_bytes

from accmpeg.evaluation.methods import MethodContext, OperatingPoint
from accmpeg.evaluation.methods.awstream import (
    PROFILE_FRAMES,
    AwStream,
    Configuration,
    Profile,
    Profiled,
    pareto_front,
)
from accmpeg.evaluation.run import run_method
from accmpeg.evaluation.session import Session


@pytest.fixture(scope="module")
def profiled() -> MethodContext:
    """A context in which the method has run once and left its profile."""
    shared = context()
    run_method(moving_clip(16), AwStream(), OperatingPoint(quality=40), shared, step=4)
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
    clip = moving_clip(18)
    shared = context()
    front = [Profiled(configuration, 1.0, 0.5)]
    shared.shared[f"awstream {clip.name}"] = Profile(front, {quality: 2.0})
    return run_method(clip, AwStream(), OperatingPoint(quality=quality), shared)


def test_the_configuration_runs_after_the_profile() -> None:
    session = with_profile(Configuration(320, 180, 2, 36))
    flows = session.flows()
    sent = [sum(step.size_bytes for step in flow.steps if step.place == "uplink") for flow in flows]
    left_out = [index for index, size_bytes in enumerate(sent) if size_bytes == 8]
    assert left_out == list(range(PROFILE_FRAMES + 1, 18, 2))
    assert sent[PROFILE_FRAMES] > 2 * sent[PROFILE_FRAMES + 2]  # a keyframe begins the new stream
    for index in left_out:
        assert session.results[index] is session.results[index - 1]
    assert all(sum(step.delivers == (i,) for step in flow.steps) == 1 for i, flow in enumerate(flows))


def test_no_new_stream_where_nothing_is_better() -> None:
    changed = with_profile(Configuration(640, 360, 1, 34))
    same = with_profile(Configuration(640, 360, 1, 32))
    keyframes = [
        sum(step.size_bytes for step in session.flows()[PROFILE_FRAMES].steps if step.place == "uplink")
        for session in (changed, same)
    ]
    assert keyframes[1] < keyframes[0] / 3


def test_the_whole_method(profiled: MethodContext, profile: Profile) -> None:
    fine, coarse = (
        run_method(moving_clip(16), AwStream(), OperatingPoint(quality=quality), profiled, step=4)
        for quality in (24, 40)
    )
    assert uplink_bytes(fine) > 1.5 * uplink_bytes(coarse)
    assert [*profiled.shared.values()] == [profile]  # made once for the clip


def test_a_clip_shorter_than_the_profile_is_sent_as_it_is() -> None:
    session = run(AwStream(), moving_clip(5))
    assert session.clip.frame_rate == Fraction(30)
    assert not session.context.shared
