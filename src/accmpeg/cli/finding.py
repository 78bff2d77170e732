"""One line of what `accmpeg doctor` reports."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State"]

State = Literal["ok", "missing", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    part: str
    state: State
    detail: str
    way_out: str = ""
