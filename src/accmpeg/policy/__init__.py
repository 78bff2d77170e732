"""Scores in, QP offsets out: pure arithmetic on `(rows, cols)` maps."""

from accmpeg.policy.base import MapHistory, QualityPolicy, make_policy
from accmpeg.policy.binary import BinaryPolicy
from accmpeg.policy.graded import GradedPolicy

__all__ = ["BinaryPolicy", "GradedPolicy", "MapHistory", "QualityPolicy", "make_policy"]
