"""What the link allows, for the encoder and the sender: the rate controller between two threads.

```
encoder thread:  before_frame ─▶ FramePlan: bitrate, size and frame-rate level, whether to encode at all
network thread:  may_send · sent · acknowledged · connected
```
"""

import threading
from collections import deque
from dataclasses import dataclass

from accmpeg.camera.uplink.accuracy import AccuracyCurve
from accmpeg.camera.uplink.ladder import FULL, Ladder, Level
from accmpeg.camera.uplink.pace import BUDGET_SHARE, Pace
from accmpeg.camera.uplink.ratecontrol import LinkSample, RateController
from accmpeg.camera.uplink.reorder import BFrameRoom

__all__ = ["Adaptation", "FramePlan"]

_DRAIN_SHARE = 0.5
_EARLY_US = 5_000
_MANY_WAITING, _STANDING_MS = 8, 300.0
"""So many frames of a camera wait for long only at a server that does not read on: its DNN is behind."""


@dataclass(frozen=True, slots=True)
class FramePlan:
    """What to do with the next frame. `flush`: leave out what waits and begin anew with a keyframe."""

    bitrate_bps: int | None = None
    """None leaves it as it is."""
    level: Level = FULL
    left_out: str | None = None
    """Why the frame is not to be encoded, None where it is."""
    flush: bool = False
    b_frames: int = 0
    """As many in a row as the delay has room for, where nobody said how many there shall be."""


class Adaptation:
    """Feeds a `RateController`; without a `ladder` size and frame rate stay as they are.

    No more frames are encoded than results are asked for (`results_per_s`), than the server offers, or than
    come back within the delay budget (`Pace`), evenly by their time of capture. `spooling`: nothing is left
    out but what is more than was asked for, because a spool keeps what the link can't take now; while a
    backlog is sent, new frames take half of the link's rate, so that the backlog surely ends.
    """

    def __init__(
        self,
        controller: RateController,
        ladder: Ladder | None,
        *,
        spooling: bool = False,
        results_per_s: float | None = None,
    ) -> None:
        self._controller = controller
        self._asked_per_s = results_per_s
        self._offered_per_s: float | None = None
        self._pace = Pace(controller.budget_ms)
        self._room = BFrameRoom()
        self._frame_ms: float | None = None
        """From one wanted frame to the next, a running mean."""
        self._wanted_us: int | None = None
        self._due_us: float | None = None
        self._ladder = ladder
        self._spooling = spooling
        self._lock = threading.Lock()
        self._under_way: deque[tuple[int, int, float]] = deque()  # sequence, bytes, sent
        self._sent_bytes = 0
        self._acknowledged_bytes = 0
        self._answered_bytes = 0
        self._catching_up = False
        self._behind_since_ms: float | None = None
        """Since when many frames have waited at the server."""

    def connected(self, now_ms: float) -> None:
        """A new connection: its acknowledgements count from zero, and perhaps it takes another way."""
        with self._lock:
            self._under_way.clear()
            self._sent_bytes = self._acknowledged_bytes = self._answered_bytes = 0
            self._controller.begin(now_ms)
            self._pace.connected()
            self._behind_since_ms = None

    def served(self, now_ms: float, waiting: int) -> None:
        """So many frames wait at the server. Where it has to answer all, a slow DNN makes it read late.

        Then what is under way says nothing of the link, and the rate stays.
        """
        with self._lock:
            if self._spooling and waiting >= _MANY_WAITING:
                if self._behind_since_ms is None:
                    self._behind_since_ms = now_ms
                return
            if self._is_behind(now_ms):
                self._controller.begin(now_ms)
            self._behind_since_ms = None

    def offered(self, results_per_s: float | None) -> None:
        """So many results a second the server can give; None is as many as there are frames."""
        with self._lock:
            self._offered_per_s = None if self._spooling else results_per_s

    def took(self, now_s: float, captured_s: float, *, delay_ms: float, lag_ms: float) -> None:
        """A result has come so late after its frame's capture; see `Pace`."""
        with self._lock:
            self._pace.took(now_s, captured_s, delay_ms=delay_ms, lag_ms=lag_ms)

    def exchanged(self, now_s: float) -> None:
        """The server has put another DNN in place; see `Pace`."""
        with self._lock:
            self._pace.exchanged(now_s)

    def refit(self, width_px: int, height_px: int, frame_rate: float, highest_bps: int) -> None:
        """The full stream has another size, and another bound of its rate."""
        with self._lock:
            controller = self._controller
            if self._ladder is not None:
                every_frame = self._ladder.every_frame
                self._ladder = Ladder(width_px, height_px, frame_rate, every_frame=every_frame)
            controller.highest_bps = controller.ceiling_bps = max(highest_bps, controller.lowest_bps)

    def wants(self, captured_us: int) -> bool:
        """Whether the frame captured then is one of those that are to be answered."""
        with self._lock:
            wanted = self._is_due(captured_us)
            if wanted:
                before_us, self._wanted_us = self._wanted_us, captured_us
                if before_us is not None:
                    frame_ms = (captured_us - before_us) / 1000
                    mean_ms = frame_ms if self._frame_ms is None else self._frame_ms
                    self._frame_ms = mean_ms + 0.1 * (frame_ms - mean_ms)
            return wanted

    def before_frame(self, now_ms: float, waiting_ms: float, *, connected: bool, backlog: bool) -> FramePlan:
        """Decides about the next frame; `waiting_ms` is the age of the oldest frame not yet sent.

        While no server is there, the rate stays what it was: what was under way is never acknowledged, and
        says nothing of the link that comes next.
        """
        with self._lock:
            controller = self._controller
            self._catching_up = backlog
            if self._spooling and backlog:
                waiting_ms = 0.0  # old frames do not say how the link is
            behind = self._is_behind(now_ms)
            if connected and not behind:
                controller.on_frame(now_ms, waiting_ms, self._sent_bytes - self._acknowledged_bytes)
            bitrate_bps = controller.bitrate_bps
            if self._spooling and backlog and not behind:
                bitrate_bps = max(controller.lowest_bps, int(bitrate_bps * _DRAIN_SHARE))
            level = FULL if self._ladder is None else self._ladder.update(now_ms, bitrate_bps)
            if self._spooling:
                return FramePlan(bitrate_bps, level)
            left_out = None if controller.admits() else "link"
            b_frames = self._b_frames(now_ms, level)
            flush = connected and controller.must_flush(now_ms)
            return FramePlan(bitrate_bps, level, left_out, flush, b_frames)

    def may_send(self) -> bool:
        """Whether the network may be given more: the rest waits where it can still be left out."""
        with self._lock:
            arrived = max(self._acknowledged_bytes, self._answered_bytes)
            return self._sent_bytes - arrived < self._controller.window_bytes

    def sent(self, now_ms: float, sequence: int, size_bytes: int) -> None:
        """A frame goes out."""
        with self._lock:
            self._sent_bytes += size_bytes
            self._under_way.append((sequence, size_bytes, now_ms))

    def answered(self, sequence: int) -> None:
        """A result proves that its frame has arrived, though not when: it only makes room for more."""
        with self._lock:
            self._answered_bytes = self._acknowledged_bytes + sum(
                size_bytes for sent, size_bytes, _ in self._under_way if sent <= sequence
            )

    def acknowledged(self, now_ms: float, highest_sequence: int, received_ms: float) -> None:
        """The server has had frames up to `highest_sequence`, the last at `received_ms` of its own clock."""
        with self._lock:
            first_ms = last_ms = None
            while self._under_way and self._under_way[0][0] <= highest_sequence:
                _, size_bytes, sent_ms = self._under_way.popleft()
                self._acknowledged_bytes += size_bytes
                first_ms = sent_ms if first_ms is None else first_ms
                last_ms = sent_ms
            if first_ms is None or last_ms is None:
                return  # nothing new: the same feedback again, or a server that invents frames
            sample = LinkSample(self._acknowledged_bytes, received_ms, first_ms, last_ms)
            if not self._is_behind(now_ms):
                self._controller.on_sample(now_ms, sample)

    def accuracy(self, curve: AccuracyCurve, tolerance: float) -> None:
        """Stops the rate where the predicted accuracy no longer gains."""
        enough_bps = curve.enough_bps(self._controller.lowest_bps, self._controller.highest_bps, tolerance)
        with self._lock:
            # Smoothed, for one easy frame must not halve the rate of the next ones.
            ceiling_bps = self._controller.ceiling_bps
            self._controller.ceiling_bps = int(ceiling_bps + 0.3 * (enough_bps - ceiling_bps))

    def _is_behind(self, now_ms: float) -> bool:
        return self._behind_since_ms is not None and now_ms - self._behind_since_ms > _STANDING_MS

    def _is_due(self, captured_us: int) -> bool:
        paced_per_s = None if self._spooling else self._pace.per_s
        limits = self._asked_per_s, self._offered_per_s, paced_per_s
        rates = [rate for rate in limits if rate is not None]
        if not rates:
            self._due_us = None
            return True
        step_us = 1e6 / min(rates)
        if self._due_us is None or captured_us > self._due_us + step_us:
            self._due_us = float(captured_us)
        # A frame a little early is better than the next one, which is late.
        if captured_us < self._due_us - _EARLY_US:
            return False
        self._due_us += step_us
        return True

    def _b_frames(self, now_ms: float, level: Level) -> int:
        lag_ms, controller, link = self._pace.longest_ms, self._controller, self._controller.link
        if lag_ms is None or self._frame_ms is None:
            return self._room.count
        if not self._room.count and controller.bitrate_bps >= controller.highest_bps:
            return 0  # there are bits enough: delay is dearer
        spare_ms = BUDGET_SHARE * controller.budget_ms - lag_ms - link.rtt_ms - link.queue_ms
        return self._room.update(now_ms / 1000, frame_ms=self._frame_ms * level.divisor, spare_ms=spare_ms)

    def snapshot(self) -> dict[str, float]:
        """Present values for the statistics."""
        with self._lock:
            link, controller = self._controller.link, self._controller
            return {
                "target_bps": controller.bitrate_bps,
                "ceiling_bps": controller.ceiling_bps,
                "capacity_bps": int(link.capacity_bps),
                "goodput_bps": int(link.goodput_bps),
                "link_queue_ms": round(link.queue_ms, 1),
                "link_rtt_ms": round(link.rtt_ms, 1),
                "catching_up": self._catching_up,
                **_rounded(offered_per_s=self._offered_per_s, paced_per_s=self._pace.per_s),
            }


def _rounded(**rates: float | None) -> dict[str, float]:
    """Those that there are."""
    return {name: round(rate, 2) for name, rate in rates.items() if rate is not None}
