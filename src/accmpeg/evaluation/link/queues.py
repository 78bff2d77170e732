"""Where work waits: a core, the DNN's workers with their batches, one direction of a link.

One list of events drives them all; time is in the events alone, so the same work takes the same time on any
machine.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from accmpeg.evaluation.link.link import PACKET_BYTES, Link, Serialiser

__all__ = ["Action", "Core", "Direction", "DnnCopies", "Events", "LinkStats"]

Action = Callable[[float], None]
"""What happens at a time in ms."""


class Events:
    """What happens when; at the same time, in the order in which it was planned, captures last.

    So a capture meets all that has happened by then, whether it was planned in advance or only just now.
    """

    def __init__(self) -> None:
        self.now_ms = -math.inf
        self._planned: list[tuple[float, bool, int, Action]] = []
        self._count = 0

    def at(self, time_ms: float, action: Action, *, is_capture: bool = False) -> None:
        heapq.heappush(self._planned, (time_ms, is_capture, self._count, action))
        self._count += 1

    def run_until(self, time_ms: float) -> None:
        """All that happens up to this time, the time itself included."""
        planned = self._planned
        while planned and planned[0][0] <= time_ms:
            self.now_ms, _, _, action = heapq.heappop(planned)
            action(self.now_ms)
        self.now_ms = max(self.now_ms, time_ms)


class Core:
    """Does one piece of work after another."""

    def __init__(self, events: Events) -> None:
        self.busy_ms = 0.0
        self._events = events
        self._waiting: deque[tuple[float, float, Action]] = deque()
        self._is_busy = False

    def work(self, now_ms: float, work_ms: float, done: Action, after_ms: float = 0.0) -> None:
        """`done` after `work_ms`; what waits begins `after_ms` later."""
        self._waiting.append((work_ms, after_ms, done))
        self._begin(now_ms)

    def _begin(self, now_ms: float) -> None:
        if self._waiting and not self._is_busy:
            self._is_busy = True
            work_ms, after_ms, done = self._waiting.popleft()
            self.busy_ms += work_ms + after_ms
            self._events.at(now_ms + work_ms, partial(self._end, done, after_ms))

    def _end(self, done: Action, after_ms: float, now_ms: float) -> None:
        if after_ms:
            self._events.at(now_ms + after_ms, self._free)
        else:
            self._free(now_ms)
        done(now_ms)

    def _free(self, now_ms: float) -> None:
        self._is_busy = False
        self._begin(now_ms)


@dataclass(slots=True)
class _Asked:
    """Pictures of one step that the DNN has not answered yet."""

    pictures: int
    done: Action


class DnnCopies:
    """Copies of the DNN: a free one takes the pictures that wait, up to `max_batch`, as `accmpeg serve` does.

    Nobody waits for a batch to fill: `serve` gathers while other cameras are about to send, and there is one.
    """

    def __init__(
        self, events: Events, workers: int, max_batch: int, batch_ms: Callable[[int], float]
    ) -> None:
        self.busy_ms = 0.0
        self._events, self._max_batch, self._batch_ms = events, max_batch, batch_ms
        self._idle = workers
        self._waiting: deque[_Asked] = deque()

    def infer(self, now_ms: float, pictures: int, done: Action) -> None:
        """`done` when all `pictures` have been looked at."""
        self._waiting.extend([_Asked(pictures, done)] * pictures)
        self._begin(now_ms)

    def _begin(self, now_ms: float) -> None:
        while self._idle and self._waiting:
            self._idle -= 1
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            work_ms = self._batch_ms(len(batch))
            self.busy_ms += work_ms
            self._events.at(now_ms + work_ms, partial(self._end, batch))

    def _end(self, batch: list[_Asked], now_ms: float) -> None:
        self._idle += 1
        self._begin(now_ms)
        for asked in batch:
            asked.pictures -= 1
            if not asked.pictures:
                asked.done(now_ms)


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
    sent_bytes: int = 0
    """With what was sent again."""


@dataclass(slots=True)
class _Packet:
    number: int
    size_bytes: int
    handed_ms: float
    done: Action | None
    """What waits for the message that ends with this packet."""
    tries: int = 0
    wait_ms: float = 0.0


@dataclass(slots=True)
class _Counts:
    max_queue_bytes: int = 0
    again: int = 0
    sent_bytes: int = 0
    waits_ms: list[float] = field(default_factory=list)


class Direction:
    """One direction of the link: sender, queue, serialiser, and a receiver that puts packets in order."""

    def __init__(self, link: Link, serialiser: Serialiser, events: Events, seed: int) -> None:
        self._link, self._serialiser, self._events = link, serialiser, events
        self._chance = random.Random(seed)
        self._sender: deque[_Packet] = deque()
        self._queue: deque[_Packet] = deque()
        self._queue_bytes = 0
        self._is_busy = False
        self._stopped_until_ms = -math.inf
        self._packets = self._next = 0
        self._arrived: dict[int, Action | None] = {}
        self._counts = _Counts()

    def send(self, now_ms: float, size_bytes: int, done: Action) -> None:
        count = max(math.ceil(size_bytes / PACKET_BYTES), 1)
        for index in range(count):
            packet_bytes = min(size_bytes - index * PACKET_BYTES, PACKET_BYTES)
            last = index == count - 1
            self._sender.append(_Packet(self._packets, packet_bytes, now_ms, done if last else None))
            self._packets += 1
        self._fill(now_ms)

    def stats(self) -> LinkStats:
        """Call when all has been sent."""
        counts = self._counts
        waits_ms = counts.waits_ms or [0.0]
        return LinkStats(
            max_queue_bytes=counts.max_queue_bytes,
            mean_queue_ms=sum(waits_ms) / len(waits_ms),
            max_queue_ms=max(waits_ms),
            packets=self._packets,
            retransmitted_packets=counts.again,
            sent_bytes=counts.sent_bytes,
        )

    def _fill(self, now_ms: float) -> None:
        """Moves packets into the queue while they fit; on overflow the sender stops for a timeout."""
        limit_bytes, counts = self._link.queue_limit_bytes, self._counts
        while self._sender and now_ms >= self._stopped_until_ms:
            packet = self._sender[0]
            if limit_bytes is not None and self._queue_bytes + packet.size_bytes > limit_bytes:
                counts.again += 1
                self._stopped_until_ms = now_ms + self._link.timeout_ms(1)
                self._events.at(self._stopped_until_ms, self._fill)
                return
            self._queue.append(self._sender.popleft())
            self._queue_bytes += packet.size_bytes
            if not self._is_busy:
                self._begin(now_ms)
            if self._queue_bytes > counts.max_queue_bytes:
                counts.max_queue_bytes = self._queue_bytes

    def _begin(self, now_ms: float) -> None:
        if self._queue:
            self._is_busy = True
            packet = self._queue.popleft()
            packet.tries += 1
            packet.wait_ms = now_ms - packet.handed_ms
            self._queue_bytes -= packet.size_bytes
            self._counts.sent_bytes += packet.size_bytes
            finish_ms = self._serialiser.finish_ms(now_ms, packet.size_bytes)
            self._events.at(finish_ms, partial(self._sent, packet))

    def _sent(self, packet: _Packet, now_ms: float) -> None:
        link = self._link
        self._is_busy = False
        if link.loss and self._chance.random() < link.loss:
            self._counts.again += 1
            self._events.at(now_ms + link.timeout_ms(packet.tries), partial(self._send_again, packet))
        else:
            jitter_ms = self._chance.uniform(0, link.jitter_ms) if link.jitter_ms else 0.0
            self._counts.waits_ms.append(packet.wait_ms)
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
