"""What steers a stream: maps of scores in, QP offsets out, and the encoder that follows them."""

from accmpeg.steering.binary import BinaryPolicy
from accmpeg.steering.graded import GradedPolicy
from accmpeg.steering.policy import MapHistory, QualityPolicy
from accmpeg.steering.registry import make_policy

__all__ = ["BinaryPolicy", "GradedPolicy", "MapHistory", "QualityPolicy", "make_policy"]
