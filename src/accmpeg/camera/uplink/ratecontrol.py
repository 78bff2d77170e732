"""How many bits the link can take now: controllers that turn acknowledgements into a target bitrate.

```
acknowledgements ─▶ LinkEstimate ─▶ queue delay, capacity, round trip ─▶ controller ─▶ bitrate, admit a frame?
camera's send queue ─▶ age of its oldest frame, bytes under way ──────────▲
```

Pure: every call takes the time, nothing reads a clock. Times are milliseconds. The receiver's clock may be
any distance from the camera's: only differences of one-way delays are used.

- `DelayRate` holds a delay budget: it falls to what the link was seen to carry as soon as the queue takes a
  third of the budget, drains what has gathered, returns to just below the capacity and probes on slowly.
- `FixedRate` never changes.
"""

from collections import deque
from dataclasses import dataclass

__all__ = ["DelayRate", "FixedRate", "LinkEstimate", "LinkSample", "RateController"]

LOWEST_BPS = 50_000
HIGHEST_BPS = 20_000_000

_BASE_WINDOW_MS = 30_000.0
_BUSY_QUEUE_MS = 30.0
_LEAST_BUSY_MS = 4.0
_LEAST_BYTES = 1000


@dataclass(frozen=True, slots=True)
class LinkSample:
    """One acknowledgement, with what the camera remembers about the frames that it covers."""

    received_bytes: int
    """All that has arrived since the connection opened."""
    received_ms: float
    """The receiver's clock when the last of it arrived."""
    first_sent_ms: float
    """The camera's clock when the first frame that the sample before did not cover went out."""
    last_sent_ms: float
    """The camera's clock when the last covered frame went out."""


class LinkEstimate:
    """Queue delay, capacity and round trip of a link, from acknowledgements."""

    def __init__(self, capacity_bps: float) -> None:
        self.capacity_bps = capacity_bps
        self.queue_ms = 0.0
        """What the last covered frame waited in the network beyond the least one-way delay seen lately."""
        self.rtt_ms = 100.0
        """Least time from sending a frame to its acknowledgement, smoothed."""
        self.goodput_bps = 0.0
        self._one_way: deque[tuple[float, float]] = deque()
        self._last: LinkSample | None = None

    def add(self, now_ms: float, sample: LinkSample) -> None:
        """Takes the next acknowledgement; samples come in order."""
        one_way_ms = sample.received_ms - sample.last_sent_ms
        while self._one_way and self._one_way[-1][1] >= one_way_ms:
            self._one_way.pop()
        self._one_way.append((now_ms, one_way_ms))
        while now_ms - self._one_way[0][0] > _BASE_WINDOW_MS:
            self._one_way.popleft()
        base_ms = self._one_way[0][1]
        self.queue_ms = one_way_ms - base_ms
        round_trip_ms = max(1.0, now_ms - sample.last_sent_ms - self.queue_ms)
        self.rtt_ms += (0.5 if round_trip_ms < self.rtt_ms else 0.05) * (round_trip_ms - self.rtt_ms)
        last, self._last = self._last, sample
        if last is None:
            return
        bits = 8 * (sample.received_bytes - last.received_bytes)
        elapsed_ms = sample.received_ms - last.received_ms
        if elapsed_ms > 0:
            weight = min(1.0, elapsed_ms / 500)
            self.goodput_bps += weight * (1000 * bits / elapsed_ms - self.goodput_bps)
        # The link worked on these bits at most since the last ones were through and the first had come.
        busy_ms = sample.received_ms - max(last.received_ms, sample.first_sent_ms + base_ms)
        if bits < 8 * _LEAST_BYTES or busy_ms < _LEAST_BUSY_MS:
            return
        measured_bps = 1000 * bits / busy_ms
        if self.queue_ms > _BUSY_QUEUE_MS:
            # Saturated: this is the capacity. Believe bad news at once, good news by and by.
            share = 0.7 if measured_bps < self.capacity_bps else 0.4
            self.capacity_bps += share * (measured_bps - self.capacity_bps)
        else:
            self.capacity_bps = max(self.capacity_bps, measured_bps)


class RateController:
    """What all controllers share. `bitrate_bps` is the target; `newest_wins` allows frames to be left out.

    The camera calls `on_sample` for each acknowledgement, `on_frame` before each frame, and then asks
    `admits` and `must_flush`. `ceiling_bps` is set from outside: above it nothing is gained.
    """

    def __init__(
        self,
        bitrate_bps: int,
        *,
        budget_ms: float = 300.0,
        lowest_bps: int = LOWEST_BPS,
        highest_bps: int = HIGHEST_BPS,
        newest_wins: bool = True,
    ) -> None:
        if not 0 < lowest_bps <= bitrate_bps <= highest_bps:
            raise ValueError(
                f"a bitrate of {bitrate_bps} bit/s does not lie between {lowest_bps} and {highest_bps}"
            )
        if budget_ms <= 0:
            raise ValueError(f"a delay budget of {budget_ms} ms: give one above zero")
        self.budget_ms = budget_ms
        self.lowest_bps = lowest_bps
        self.highest_bps = highest_bps
        self.newest_wins = newest_wins
        self.ceiling_bps = highest_bps
        self.link = LinkEstimate(bitrate_bps)
        self.waiting_ms = 0.0
        self._target_bps = float(bitrate_bps)
        self._last_sample_ms: float | None = None
        self._last_flush_ms = -1e9

    @property
    def bitrate_bps(self) -> int:
        """The bitrate that the encoder should have now."""
        return int(min(max(self._target_bps, self.lowest_bps), self.ceiling_bps, self.highest_bps))

    @property
    def window_bytes(self) -> int:
        """How much may be under way unacknowledged; the rest waits where it can still be left out."""
        if not self.newest_wins:
            return 1 << 40
        span_ms = self.link.rtt_ms + 100 + self.budget_ms / 4
        return max(12_000, int(self.link.capacity_bps * span_ms / 8000))

    def begin(self, now_ms: float) -> None:
        """A new connection, on which nothing is known but the rate that was right on the last one."""
        self.link = LinkEstimate(self.bitrate_bps)
        self._last_sample_ms = now_ms

    def on_sample(self, now_ms: float, sample: LinkSample) -> None:
        """An acknowledgement came."""
        self.link.add(now_ms, sample)
        self._last_sample_ms = now_ms
        self._react(now_ms)

    def on_frame(self, now_ms: float, waiting_ms: float, unacknowledged_bytes: int) -> None:
        """A frame is about to be encoded; `waiting_ms` is the age of the oldest one not yet sent, or 0."""
        self.waiting_ms = waiting_ms
        if not unacknowledged_bytes:
            # Nothing is under way, so nothing queues there; without this a long last delay would shut the
            # camera up for ever.
            self.link.queue_ms = 0.0
            self._last_sample_ms = now_ms
        self._react(now_ms)

    def admits(self) -> bool:
        """Whether a frame encoded now has a chance to arrive within the budget."""
        if not self.newest_wins:
            return True
        return self.waiting_ms < self.budget_ms / 4 and self.delay_ms < 0.75 * self.budget_ms

    def must_flush(self, now_ms: float) -> bool:
        """Whether the waiting frames come too late anyway: drop them and go on with a keyframe."""
        late = self.newest_wins and self.waiting_ms > self.budget_ms
        if late and now_ms - self._last_flush_ms > max(1000.0, 3 * self.budget_ms):
            self._last_flush_ms = now_ms
            return True
        return False

    @property
    def delay_ms(self) -> float:
        """Queue delay that a new frame meets, in the camera and in the network."""
        return self.link.queue_ms + self.waiting_ms

    def silent_ms(self, now_ms: float) -> float:
        """How long bytes have been under way without an acknowledgement."""
        return 0.0 if self._last_sample_ms is None else now_ms - self._last_sample_ms

    def _react(self, now_ms: float) -> None:
        """Moves the target; here: not at all."""


FixedRate = RateController


class DelayRate(RateController):
    """Holds the delay budget.

    ```
    queue > 0.35 budget      target = capacity · (0.9 − queue/600 ms), at least 0.35 capacity     at once
    no acknowledgement       target halves every 400 ms
    queue < 0.2 budget       target back to 0.88 capacity, then + 4 %/s, + 8 %/s, … + 16 %/s
    between                  hold
    ```
    A link that got faster shows no sign of it but that nothing queues, hence the probing; it never goes
    beyond 1.5 times what has lately arrived, for an encoder that does not use its rate proves nothing.
    """

    _last_decrease_ms = -1e9
    _last_react_ms: float | None = None

    def _react(self, now_ms: float) -> None:
        since_ms = 0.0 if self._last_react_ms is None else min(200.0, now_ms - self._last_react_ms)
        self._last_react_ms = now_ms
        capacity_bps = self.link.capacity_bps
        settled = now_ms - self._last_decrease_ms > self.link.rtt_ms + 100
        if self.silent_ms(now_ms) > self.link.rtt_ms + 400:
            if now_ms - self._last_decrease_ms > 400:
                self.link.capacity_bps = max(capacity_bps / 2, self.lowest_bps)
                self._decrease(now_ms, self._target_bps / 2)
        elif self.delay_ms > 0.35 * self.budget_ms:
            drain = min(self.delay_ms / 600, 0.55)
            wanted_bps = capacity_bps * (0.9 - drain)
            if settled or wanted_bps < 0.8 * self._target_bps:
                self._decrease(now_ms, wanted_bps)
        elif self.delay_ms < 0.2 * self.budget_ms and settled:
            self._increase(now_ms, since_ms)

    def _decrease(self, now_ms: float, wanted_bps: float) -> None:
        self._target_bps = max(min(self._target_bps, wanted_bps), self.lowest_bps)
        self._last_decrease_ms = now_ms

    def _increase(self, now_ms: float, since_ms: float) -> None:
        calm_s = (now_ms - self._last_decrease_ms) / 1000
        near_bps = 0.88 * self.link.capacity_bps
        if self._target_bps < near_bps:
            self._target_bps += (near_bps - self._target_bps) * min(1.0, since_ms / 300)
            return
        per_s = 0.04 * 2 ** min(2.0, calm_s / 2)
        proven_bps = max(1.5 * self.link.goodput_bps, near_bps)
        raised_bps = self._target_bps * (1 + per_s * since_ms / 1000)
        self._target_bps = min(raised_bps, max(proven_bps, self._target_bps), self.ceiling_bps)
