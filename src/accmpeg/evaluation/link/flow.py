"""What a method did, as work that has to be done one after another somewhere: the link emulator's input.

```
frame captured ─▶ camera 6 ms ─▶ uplink 2100 bytes ─▶ server 1 ms ─▶ dnn ─▶ result of the frame
                                                                      └▶ beside: downlink 80 bytes ─▶ message
```

A flow starts when its frame is captured and goes through its steps in order. Steps of different flows meet at
the camera's one core, the link, the server's decoder and its DNN, and wait for each other there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Delivery", "Flow", "Place", "Step", "bytes_of", "go_on"]

Place = Literal["camera", "uplink", "server", "dnn", "downlink"]
"""`server` is what the server does beside its DNN (decoding, merging), `dnn` one pass of the DNN."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of source frame `index` is there; it says what was in the picture of frame `of`.

    `of` is `index` where the frame itself was looked at, an earlier frame where an old result is used again.
    """

    index: int
    of: int


@dataclass(frozen=True, slots=True)
class Step:
    """Work at one place: `work_ms` at camera or server, `size_bytes` over a link, `pictures` at the DNN.

    When it is done, the results in `delivers` are there, the message with the number `message` has reached
    the camera (a downlink step), and the steps in `beside` begin, one after another; nothing in this flow
    waits for them. What the server does beside a flow, it does on a core of its own. The core of the camera
    or server itself goes on for `after_ms`, for which other steps wait.
    """

    place: Place
    work_ms: float = 0.0
    after_ms: float = 0.0
    size_bytes: int = 0
    pictures: int = 1
    """What the DNN is asked to look at, all at once; done when the last of them is."""
    delivers: tuple[Delivery, ...] = ()
    message: int | None = None
    beside: tuple["Step", ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """The steps that one captured frame sets off, in their order."""

    captured_ms: float
    steps: tuple[Step, ...]


def go_on(steps: list[Step], place: Place, work_ms: float) -> None:
    """A place was busy for `work_ms` more after the last that it did among these steps."""
    last = max(number for number, step in enumerate(steps) if step.place == place)
    steps[last] = replace(steps[last], after_ms=steps[last].after_ms + work_ms)


def bytes_of(flows: Sequence[Flow], place: Place) -> int:
    """Everything that crossed one direction of the link."""

    def total(steps: Sequence[Step]) -> int:
        return sum((step.size_bytes if step.place == place else 0) + total(step.beside) for step in steps)

    return sum(total(flow.steps) for flow in flows)
