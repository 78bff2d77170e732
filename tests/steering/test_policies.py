"""Policies: bounds, centring, protection of thin things, and never a look ahead."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from accmpeg.errors import UsageError
from accmpeg.steering import BinaryPolicy, GradedPolicy, make_policy
from accmpeg.steering.policy import bit_weights, centred

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
SCORES = SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-24, 24, width=32)))


@given(SCORES, st.floats(0.05, 1.0))
def test_binary_has_two_levels_and_the_asked_share(scores: np.ndarray, share: float) -> None:
    offsets = BinaryPolicy(top_share=share, dilate_macroblocks=0).qp_offsets(scores)
    assert set(np.unique(offsets)) <= {0.0, 10.0}
    assert (offsets == 0).sum() == max(1, round(share * scores.size))


def test_binary_takes_the_highest_and_grows_them() -> None:
    scores = np.zeros((5, 5), dtype=np.float32)
    scores[2, 2] = 9
    plain = BinaryPolicy(top_share=0.04, dilate_macroblocks=0).qp_offsets(scores)
    grown = BinaryPolicy(top_share=0.04, dilate_macroblocks=1).qp_offsets(scores)
    assert np.argwhere(plain == 0).tolist() == [[2, 2]]
    assert (grown[1:4, 1:4] == 0).all()
    assert (grown == 0).sum() == 9


def test_binary_threshold_is_absolute() -> None:
    scores = np.array([[-3.0, 1.0, 4.0]], dtype=np.float32)
    offsets = BinaryPolicy(threshold_log2=0.5, dilate_macroblocks=0, qp_high=28, qp_low=36).qp_offsets(scores)
    assert offsets.tolist() == [[8.0, 0.0, 0.0]]


@pytest.mark.parametrize("bad", [{"top_share": 0.0}, {"qp_high": 40, "qp_low": 30}])
def test_binary_refuses_senseless_settings(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"top_share|qp_low"):
        BinaryPolicy(**bad)


@given(SCORES)
def test_graded_stays_within_its_limits_in_whole_numbers(scores: np.ndarray) -> None:
    offsets = GradedPolicy().qp_offsets(scores, np.full(scores.shape, 0.3, dtype=np.float32))
    assert offsets.shape == scores.shape
    assert offsets.min() >= -11
    assert offsets.max() <= 13
    assert (offsets == np.rint(offsets)).all()


@given(SCORES, st.integers(0, 2**32 - 1))
def test_rate_controlled_maps_have_a_bit_weighted_mean_near_zero(scores: np.ndarray, seed: int) -> None:
    weights = np.random.default_rng(seed).uniform(0.5, 20, scores.shape).astype(np.float32)
    offsets = GradedPolicy().qp_offsets(scores, None, weights)
    assert abs(np.average(offsets, weights=weights)) <= 0.51


def test_graded_ranks_by_gradient_and_spares_objects() -> None:
    scores = np.zeros((9, 16), dtype=np.float32)
    scores[:, 10:] = 6
    objects = np.zeros((9, 16), dtype=np.float32)
    objects[4, 12] = 1.0
    offsets = GradedPolicy().qp_offsets(scores, objects)
    assert offsets[4, 12] < offsets[0, 15] < offsets[0, 2]
    # The object's edge lies in its neighbours: they are spared too.
    assert (offsets[3:6, 11:14] == offsets[4, 12]).all()


def test_a_thin_object_keeps_its_neighbours() -> None:
    scores = np.full((7, 7), -10, dtype=np.float32)
    scores[:, 3] = 5
    offsets = GradedPolicy().qp_offsets(scores)
    assert (offsets[:, 2] < offsets[:, 0]).all()
    assert (offsets[:, 4] < offsets[:, 6]).all()


def test_a_flat_map_is_plain_video() -> None:
    flat = np.full((9, 16), 3.0, dtype=np.float32)
    assert (GradedPolicy().qp_offsets(flat, np.zeros_like(flat)) == 0).all()


def test_running_mean_is_zero_and_single_frames_shift_within_bounds() -> None:
    rng = np.random.default_rng(1)
    policy = GradedPolicy(history_maps=64)
    means = []
    for index in range(64):
        scores = rng.normal(index % 5, 2, (12, 20)).astype(np.float32)
        means.append(float(policy.qp_offsets(scores).mean()))
    assert max(map(abs, means)) <= 4.5
    assert abs(np.mean(means)) < 0.5
    assert means[4] < means[0], "a frame with more at stake gets more bits"


def test_a_policy_does_not_change_what_it_said_before() -> None:
    rng = np.random.default_rng(2)
    maps = [rng.normal(0, 3, (8, 8)).astype(np.float32) for _ in range(6)]
    alone, longer = GradedPolicy(), GradedPolicy()
    first = [alone.qp_offsets(scores) for scores in maps[:3]]
    assert all(
        (a == b).all() for a, b in zip(first, (longer.qp_offsets(scores) for scores in maps), strict=False)
    )


@given(
    hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-60, 60, width=32)),
)
def test_centred_solves_for_a_zero_mean(values: np.ndarray) -> None:
    shift = centred(values, -11, 13)
    assert abs(np.clip(values + shift, -11, 13).mean()) < 1e-2


def test_bit_weights_follow_texture() -> None:
    luma = np.full((37, 50), 90, dtype=np.uint8)
    luma[:16, 16:32] = np.random.default_rng(0).integers(0, 255, (16, 16))
    weights = bit_weights(luma, 3, 4)
    assert weights.shape == (3, 4)
    assert weights.argmax() == 1
    assert weights[2, 0] == pytest.approx(1.0)


def test_unknown_policies_are_named() -> None:
    with pytest.raises(UsageError, match=r"'fancy'.*binary or graded"):
        make_policy("fancy")
