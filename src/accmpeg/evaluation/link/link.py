"""A link between a camera and its server, and how long bytes take to leave it.

```
sender ─▶ queue ─▶ serialiser ─▶ propagation (+ jitter) ─▶ put in order
```

The link carries packets of up to 1500 bytes. One that finds the queue full or is lost on the way isn't gone:
as TCP would, the sender repeats it after a timeout, and what came after it waits at the receiver. Congestion
control is not modelled: a sender hands over all it has, and stops for one timeout when the queue is full.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from accmpeg.errors import UsageError

__all__ = ["PACKET_BYTES", "Link", "Serialiser", "read_trace"]

PACKET_BYTES = 1500
"""The largest packet, and what one line of a trace delivers."""

_MAX_TIMEOUT_MS = 60_000.0


@dataclass(frozen=True)
class Link:
    """Both directions between a camera and its server: a constant bandwidth or a trace. Raises UsageError.

    A trace holds the milliseconds at which one packet of 1500 bytes can be delivered, and starts again after
    its last one for ever (Mahimahi's format, see `read_trace`). A gap in it is an outage: all waits.
    """

    bandwidth_bps: float | None = None
    trace: tuple[int, ...] | None = None
    downlink_bps: float | None = None
    """As the uplink (its trace, too) where it is not given."""
    propagation_ms: float = 0.0
    """Each way."""
    jitter_ms: float = 0.0
    """Each packet takes up to this much longer, evenly spread; order is kept."""
    queue_limit_bytes: int | None = None
    """What may wait for the link, without the packet being sent; more is sent again after a timeout."""
    loss: float = 0.0
    """Probability that a packet, once sent, does not arrive."""
    retransmit_ms: float = 200.0
    """A timeout is this above the round trip, as Linux does; it doubles each time, up to a minute."""
    seed: int = 0
    """Of losses and jitter."""

    def __post_init__(self) -> None:
        if (self.bandwidth_bps is None) == (self.trace is None):
            raise UsageError("a link has either a bandwidth or a trace")
        for name, bandwidth_bps in (("bandwidth", self.bandwidth_bps), ("downlink", self.downlink_bps)):
            if bandwidth_bps is not None and not 0 < bandwidth_bps < math.inf:
                raise UsageError(
                    f"a {name} of {bandwidth_bps} bit/s: give more than 0 (a trace can have outages)"
                )
        if self.trace is not None:
            _check_trace(self.trace, "the trace")
        if not 0 <= self.loss < 1:
            raise UsageError(f"a loss of {self.loss}: give a probability from 0 to below 1")
        for name in ("propagation_ms", "jitter_ms", "retransmit_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} of {getattr(self, name)}: give 0 or more")
        if self.retransmit_ms + self.propagation_ms == 0:
            raise UsageError("retransmit_ms of 0 without propagation: a sender would try again without end")
        if self.queue_limit_bytes is not None and self.queue_limit_bytes < PACKET_BYTES:
            raise UsageError(
                f"a queue of {self.queue_limit_bytes} bytes can't hold a packet of {PACKET_BYTES}"
            )

    def serialisers(self) -> tuple["Serialiser", "Serialiser"]:
        """New ones for the uplink and the downlink."""
        down = (
            (self.downlink_bps, None) if self.downlink_bps is not None else (self.bandwidth_bps, self.trace)
        )
        return Serialiser(self.bandwidth_bps, self.trace), Serialiser(*down)

    def capacity_bytes(self, duration_ms: float) -> tuple[float, float]:
        """What the uplink and the downlink can carry from their start on."""

        def carried(bandwidth_bps: float | None) -> float:
            if bandwidth_bps is not None:
                return bandwidth_bps * duration_ms / 8000
            assert self.trace is not None
            rounds, rest_ms = divmod(duration_ms, self.trace[-1])
            return PACKET_BYTES * (rounds * len(self.trace) + bisect_right(self.trace, rest_ms))

        return carried(self.bandwidth_bps), carried(self.downlink_bps or self.bandwidth_bps)

    def timeout_ms(self, tries: int) -> float:
        """How long a sender waits for a packet sent `tries` times (from 1) before it sends it again."""
        return min(
            (self.retransmit_ms + 2 * self.propagation_ms) * 2.0 ** min(tries - 1, 30), _MAX_TIMEOUT_MS
        )


class Serialiser:
    """When bytes have left one direction of a link that sends one thing after another.

    >>> Serialiser(bandwidth_bps=1e6).finish_ms(100, 1250)
    110.0
    >>> Serialiser(trace=(10, 50)).finish_ms(20, 3000)
    60.0
    """

    def __init__(self, bandwidth_bps: float | None = None, trace: Sequence[int] | None = None) -> None:
        self._bandwidth_bps, self._trace = bandwidth_bps, trace
        self.position = (0, PACKET_BYTES)
        """The next delivery, counted over all rounds of the trace, and the bytes it can still carry."""

    def finish_ms(self, start_ms: float, size_bytes: int) -> float:
        """`size_bytes` that begin at `start_ms`, which must not be before an earlier call's end."""
        if self._bandwidth_bps is not None:
            return start_ms + size_bytes * 8000 / self._bandwidth_bps
        if size_bytes == 0:
            return start_ms
        count, room_bytes = self._first_from(start_ms)
        if size_bytes > room_bytes:
            more, rest_bytes = divmod(size_bytes - room_bytes - 1, PACKET_BYTES)
            count, room_bytes, size_bytes = count + 1 + more, PACKET_BYTES, rest_bytes + 1
        self.position = (count, room_bytes - size_bytes)
        return self._delivery_ms(count)

    def _delivery_ms(self, count: int) -> float:
        assert self._trace is not None
        rounds, index = divmod(count, len(self._trace))
        return float(rounds * self._trace[-1] + self._trace[index])

    def _first_from(self, start_ms: float) -> tuple[int, int]:
        """The position at or after a time; deliveries that nothing was waiting for are gone."""
        assert self._trace is not None
        if self._delivery_ms(self.position[0]) >= start_ms:
            return self.position
        rounds = max(math.ceil(start_ms / self._trace[-1]) - 1, 0)
        index = bisect_left(self._trace, start_ms - rounds * self._trace[-1])
        return rounds * len(self._trace) + index, PACKET_BYTES


def read_trace(path: Path) -> tuple[int, ...]:
    """A Mahimahi trace: a line per packet of 1500 bytes, the millisecond at which it can be delivered.

    Args:
        path: The file.

    Returns:
        The milliseconds, for `Link(trace=…)`.

    Raises:
        UsageError: The file can't be read, or is no such trace.
    """
    deliveries_ms = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can't read the link trace ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            deliveries_ms.append(int(line))
        except ValueError as error:
            raise UsageError(
                f"{path}, line {number}: '{line.strip()[:40]}' is no whole number of milliseconds"
            ) from error
    _check_trace(deliveries_ms, str(path))
    return tuple(deliveries_ms)


def _check_trace(deliveries_ms: Sequence[int], name: str) -> None:
    if not deliveries_ms:
        raise UsageError(f"{name} is empty: a trace has a line per packet that can be delivered")
    if deliveries_ms[0] < 0:
        raise UsageError(f"{name} begins at {deliveries_ms[0]} ms: times start at 0")
    for number, (before, after) in enumerate(pairwise(deliveries_ms), 2):
        if after < before:
            raise UsageError(
                f"{name}: entry {number} goes back from {before} to {after} ms; times must be sorted"
            )
    if deliveries_ms[-1] == 0:
        raise UsageError(
            f"{name} has no time but 0, so it would never end: its last entry is its length in ms"
        )
