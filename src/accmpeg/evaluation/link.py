"""Delay from capture to result over an emulated link, and the paper's closed formula.

```
capture ─▶ camera (one core) ─▶ uplink ─▶ server ─▶ result           each box: first come, first served
                                 └ sender ─▶ queue ─▶ serialiser ─▶ propagation ─▶ put in order
```

Time is in the events alone: the same flows over the same link give the same delays on any machine.

The link carries packets of up to 1500 bytes. One that finds the queue full or is lost on the way isn't gone:
as TCP would, the sender repeats it after a timeout, and what came after it waits at the receiver. Congestion
control is not modelled: a sender hands over all it has, and stops for one timeout when the queue is full.
"""

import heapq
import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from accmpeg.errors import EvaluationError, UsageError
from accmpeg.evaluation.flow import Flow

__all__ = [
    "PACKET_BYTES",
    "Emulated",
    "Link",
    "LinkStats",
    "Serialiser",
    "emulate",
    "paper_delay_s",
    "read_trace",
]

PACKET_BYTES = 1500
"""The largest packet, and what one line of a trace delivers."""

_MAX_TIMEOUT_MS = 60_000.0
_CHUNK_FRAMES = 10
_BASE_S = 0.1
_ENCODE_S = 0.131
_ACCMODEL_S = 0.08


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


@dataclass(frozen=True)
class LinkStats:
    """What one direction of the link did."""

    max_queue_bytes: int = 0
    """Waiting in the queue at once."""
    mean_queue_ms: float = 0.0
    """From being handed to the sender to the start of (the last) sending, over packets."""
    max_queue_ms: float = 0.0
    packets: int = 0
    retransmitted_packets: int = 0
    """Sent again, after a loss or because the queue was full."""


@dataclass(frozen=True)
class Emulated:
    """The delays of a method's frames over a link."""

    delays_ms: list[float] = field(repr=False)
    """Capture to result by frame index; NaN for a frame that never gets one."""
    uplink: LinkStats
    downlink: LinkStats


def emulate(flows: Sequence[Flow], frame_count: int, link: Link) -> Emulated:
    """Runs what a method did over a link.

    A flow of downlink steps alone is a message of the server; the others are those of frame 0, 1, … in order.
    Raises EvaluationError if their number isn't `frame_count`.

    >>> from accmpeg.evaluation.flow import Step
    >>> steps = (Step("camera", 5), Step("uplink", size_bytes=12500), Step("server", 20, delivers=(0,)))
    >>> emulate([Flow(0, steps)], 1, Link(bandwidth_bps=1e6, propagation_ms=10)).delays_ms
    [135.0]
    """
    captured_ms = [flow.captured_ms for flow in flows if not _is_message(flow)]
    if len(captured_ms) != frame_count:
        raise EvaluationError(f"{len(captured_ms)} flows do not belong to {frame_count} frames")
    events = _Events()
    up, down = link.serialisers()
    directions = {
        "uplink": _Direction(link, up, events, random.Random(2 * link.seed)),
        "downlink": _Direction(link, down, events, random.Random(2 * link.seed + 1)),
    }
    cores = {"camera": _Core(events), "server": _Core(events)}
    delays_ms = [math.nan] * frame_count

    def advance(flow: Flow, begun: int, now_ms: float) -> None:
        """Step `begun - 1` is done; the next one can begin."""
        if begun:
            for index in flow.steps[begun - 1].delivers:
                if math.isnan(delays_ms[index]):
                    delays_ms[index] = now_ms - captured_ms[index]
        if begun == len(flow.steps):
            return
        step, done = flow.steps[begun], partial(advance, flow, begun + 1)
        if step.place in directions:
            directions[step.place].send(now_ms, step.size_bytes, done)
        else:
            cores[step.place].work(now_ms, step.work_ms, done)

    for flow in flows:
        events.at(flow.captured_ms, partial(advance, flow, 0))
    events.run()
    return Emulated(delays_ms, directions["uplink"].stats(), directions["downlink"].stats())


def paper_delay_s(size_bytes: int, frames: int, bandwidth_bps: float, *, accmodel: bool = True) -> float:
    """The AccMPEG paper's mean delay: 0.1 s, a ten-frame chunk's bits over the bandwidth, fixed compute.

    >>> round(paper_delay_s(8_000_484, 1800, 0.5e6), 3)
    1.022
    """
    chunk_bits = size_bytes * 8 / (frames / _CHUNK_FRAMES)
    return _BASE_S + chunk_bits / bandwidth_bps + _ENCODE_S + (_ACCMODEL_S if accmodel else 0.0)


def read_trace(path: Path) -> tuple[int, ...]:
    """A Mahimahi trace: a line per packet of 1500 bytes, the millisecond at which it can be delivered.

    Raises UsageError for a file that can't be read or is no such trace.
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


def _is_message(flow: Flow) -> bool:
    return bool(flow.steps) and all(step.place == "downlink" for step in flow.steps)


_Action = Callable[[float], None]


class _Events:
    """What happens when; at the same time, in the order in which it was planned."""

    def __init__(self) -> None:
        self._planned: list[tuple[float, int, _Action]] = []
        self._count = 0

    def at(self, time_ms: float, action: _Action) -> None:
        heapq.heappush(self._planned, (time_ms, self._count, action))
        self._count += 1

    def run(self) -> None:
        while self._planned:
            time_ms, _, action = heapq.heappop(self._planned)
            action(time_ms)


class _Core:
    """Does one piece of work after another."""

    def __init__(self, events: _Events) -> None:
        self._events = events
        self._waiting: deque[tuple[float, _Action]] = deque()
        self._busy = False

    def work(self, now_ms: float, work_ms: float, done: _Action) -> None:
        self._waiting.append((work_ms, done))
        self._begin(now_ms)

    def _begin(self, now_ms: float) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            work_ms, done = self._waiting.popleft()
            self._events.at(now_ms + work_ms, partial(self._end, done))

    def _end(self, done: _Action, now_ms: float) -> None:
        self._busy = False
        self._begin(now_ms)
        done(now_ms)


@dataclass
class _Packet:
    number: int
    size_bytes: int
    handed_ms: float
    done: _Action | None
    """What waits for the message that ends with this packet."""
    tries: int = 0


class _Direction:
    """One direction of the link: sender, queue, serialiser, and a receiver that puts packets in order."""

    def __init__(self, link: Link, serialiser: Serialiser, events: _Events, chance: random.Random) -> None:
        self._link, self._serialiser, self._events, self._chance = link, serialiser, events, chance
        self._sender: deque[_Packet] = deque()
        self._queue: deque[_Packet] = deque()
        self._queue_bytes = 0
        self._busy = False
        self._stopped_until_ms = -math.inf
        self._packets = self._next = 0
        self._arrived: dict[int, _Action | None] = {}
        self._max_queue_bytes = self._again = 0
        self._waits_ms: dict[int, float] = {}

    def send(self, now_ms: float, size_bytes: int, done: _Action) -> None:
        count = max(math.ceil(size_bytes / PACKET_BYTES), 1)
        for index in range(count):
            packet_bytes = min(size_bytes - index * PACKET_BYTES, PACKET_BYTES)
            last = index == count - 1
            self._sender.append(_Packet(self._packets, packet_bytes, now_ms, done if last else None))
            self._packets += 1
        self._fill(now_ms)

    def stats(self) -> LinkStats:
        waits_ms = list(self._waits_ms.values()) or [0.0]
        return LinkStats(
            max_queue_bytes=self._max_queue_bytes,
            mean_queue_ms=sum(waits_ms) / len(waits_ms),
            max_queue_ms=max(waits_ms),
            packets=self._packets,
            retransmitted_packets=self._again,
        )

    def _fill(self, now_ms: float) -> None:
        """Moves packets into the queue while they fit; on overflow the sender stops for a timeout."""
        limit_bytes = self._link.queue_limit_bytes
        while self._sender and now_ms >= self._stopped_until_ms:
            packet = self._sender[0]
            if limit_bytes is not None and self._queue_bytes + packet.size_bytes > limit_bytes:
                self._again += 1
                self._stopped_until_ms = now_ms + self._link.timeout_ms(1)
                self._events.at(self._stopped_until_ms, self._fill)
                return
            self._queue.append(self._sender.popleft())
            self._queue_bytes += packet.size_bytes
            self._begin(now_ms)
            self._max_queue_bytes = max(self._max_queue_bytes, self._queue_bytes)

    def _begin(self, now_ms: float) -> None:
        if self._queue and not self._busy:
            self._busy = True
            packet = self._queue.popleft()
            packet.tries += 1
            self._queue_bytes -= packet.size_bytes
            self._waits_ms[packet.number] = now_ms - packet.handed_ms
            finish_ms = self._serialiser.finish_ms(now_ms, packet.size_bytes)
            self._events.at(finish_ms, partial(self._sent, packet))

    def _sent(self, packet: _Packet, now_ms: float) -> None:
        link = self._link
        self._busy = False
        if link.loss and self._chance.random() < link.loss:
            self._again += 1
            self._events.at(now_ms + link.timeout_ms(packet.tries), partial(self._send_again, packet))
        else:
            jitter_ms = self._chance.uniform(0, link.jitter_ms) if link.jitter_ms else 0.0
            self._events.at(now_ms + link.propagation_ms + jitter_ms, partial(self._arrive, packet))
        self._begin(now_ms)

    def _send_again(self, packet: _Packet, now_ms: float) -> None:
        self._sender.appendleft(packet)
        self._fill(now_ms)

    def _arrive(self, packet: _Packet, now_ms: float) -> None:
        self._arrived[packet.number] = packet.done
        while self._next in self._arrived:
            done = self._arrived.pop(self._next)
            self._next += 1
            if done is not None:
                done(now_ms)
