"""Binary: the published fixed threshold, calibrated on the first maps, beside the top fifth of every map."""

import numpy as np
import pytest

from accmpeg.evaluation.methods.base import OperatingPoint
from accmpeg.evaluation.methods.binary import FixedThresholdPolicy, binary_policy

POINT = OperatingPoint(quality=30)


def scores(levels: list[float]) -> np.ndarray:
    """A map of 10 × 10 whose rows have these levels."""
    return np.repeat(np.asarray(levels, np.float32)[:, None], 10, axis=1)


def test_the_threshold_is_that_of_the_first_maps_and_stays() -> None:
    policy = FixedThresholdPolicy(binary_policy(POINT), calibration_maps=2)
    policy.qp_offsets(scores([9, 8, 1, 1, 1, 1, 1, 1, 1, 1]))
    policy.qp_offsets(scores([7, 6, 1, 1, 1, 1, 1, 1, 1, 1]))
    fixed = policy.threshold_log2
    assert 1 <= fixed <= 6
    policy.qp_offsets(scores([20.0] * 10))
    assert policy.threshold_log2 == fixed


@pytest.mark.parametrize(("level", "high"), [(20.0, 1.0), (0.0, 0.0)])
def test_the_high_area_follows_what_there_is_to_see(level: float, high: float) -> None:
    policy = FixedThresholdPolicy(binary_policy(POINT), calibration_maps=1)
    first = policy.qp_offsets(scores([9, 8, 1, 1, 1, 1, 1, 1, 1, 1]))
    assert 0.1 < (first == 0).mean() < 0.5
    later = policy.qp_offsets(scores([level] * 10))
    assert (later == 0).mean() == high
    assert set(np.unique(first)) == {0, 10}
    # The top fifth can't do that: it is a fifth, whatever there is.
    assert (binary_policy(POINT).qp_offsets(scores([level] * 10)) == 0).mean() < 0.5
