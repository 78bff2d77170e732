"""The policies by name; a new one is a file and a row here."""

from accmpeg.errors import UsageError
from accmpeg.steering.binary import BinaryPolicy
from accmpeg.steering.graded import GradedPolicy
from accmpeg.steering.policy import QualityPolicy

__all__ = ["make_policy"]


def make_policy(name: str, *, object_threshold: float = 0.5) -> QualityPolicy:
    """The policy of that name with its default settings.

    Raises UsageError for a name that is neither `binary` nor `graded`.
    """
    if name == "binary":
        return BinaryPolicy()
    if name == "graded":
        return GradedPolicy(object_threshold=object_threshold)
    raise UsageError(f"no policy is called {name!r}: choose binary or graded")
