"""What a method did, as work that has to be done one after another somewhere: the link emulator's input.

```
frame captured ─▶ camera 6 ms ─▶ uplink 2100 bytes ─▶ server 12 ms ─▶ result of the frame
```

A flow starts when its frame is captured and goes through its steps in order. Steps of different flows meet at
the camera's one core, the link and the server, and wait for each other there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Flow", "Place", "Step", "bytes_of"]

Place = Literal["camera", "uplink", "server", "downlink"]


@dataclass(frozen=True, slots=True)
class Step:
    """Work at one place: `work_ms` of computing at the camera or the server, `size_bytes` over a link.

    When it is done, the results of the frames in `delivers` (indices) are there.
    """

    place: Place
    work_ms: float = 0.0
    size_bytes: int = 0
    delivers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """The steps that one captured frame sets off, in their order."""

    captured_ms: float
    steps: tuple[Step, ...]


def bytes_of(flows: Sequence[Flow], place: Place) -> int:
    """Everything that crossed one direction of the link."""
    return sum(step.size_bytes for flow in flows for step in flow.steps if step.place == place)
