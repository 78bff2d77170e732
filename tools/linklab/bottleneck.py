"""A camera, its rate controller and a link of changing bandwidth, without any real time.

```
frames ─▶ encoder (sizes follow the target) ─▶ camera's queue ─▶ window ─▶ first-in first-out link
   ▲ left out, flushed                                                     │ acknowledged every 100 ms
   └───────────────────────────── controller ◀─────────────────────────────┘
```

The encoder's frames scatter about the target (lognormal), keyframes are `keyframe_factor` times as large but
no larger than its VBV. Delay runs from capture to arrival; the server DNN comes on top of it.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from accmpeg.camera.uplink.ratecontrol import LinkSample, RateController

__all__ = ["STEPS", "LinkRun", "LinkTrace", "simulate"]

_TICK_MS = 1.0


@dataclass(frozen=True)
class LinkTrace:
    """Bandwidth by time: `(start_ms, bandwidth_bps)` with rising starts, the first at 0."""

    name: str
    steps: Sequence[tuple[float, float]]
    duration_ms: float

    def bandwidth_bps(self, at_ms: float) -> float:
        """The bandwidth at a time."""
        return self.steps[bisect_right(self.steps, at_ms, key=itemgetter(0)) - 1][1]


STEPS = LinkTrace(
    "2→1→0.5→1→2 Mbit/s", [(0, 2e6), (10_000, 1e6), (20_000, 0.5e6), (30_000, 1e6), (40_000, 2e6)], 50_000
)
"""The steps that the live camera is held to, ten seconds each."""


@dataclass
class LinkRun:
    """What came of one run."""

    trace: LinkTrace
    captured_ms: list[float] = field(default_factory=list)
    """Capture times of the frames that arrived."""
    delay_ms: list[float] = field(default_factory=list)
    """Their delay from capture to arrival."""
    targets_bps: list[tuple[float, int]] = field(default_factory=list)
    frames: int = 0
    skipped: int = 0
    flushed: int = 0
    arrived_bytes: int = 0

    def settled_p95_ms(self, settle_ms: float = 3000.0) -> float:
        """95th percentile of the delay, without the first `settle_ms` of each step of the trace."""
        starts = np.array([start_ms for start_ms, _ in self.trace.steps])
        captured = np.array(self.captured_ms)
        since = captured - starts[np.searchsorted(starts, captured, side="right") - 1]
        kept = np.array(self.delay_ms)[since >= settle_ms]
        return float(np.percentile(kept, 95)) if kept.size else float("inf")

    def p95_ms(self) -> float:
        """95th percentile of all delays."""
        return float(np.percentile(self.delay_ms, 95)) if self.delay_ms else float("inf")

    def longest_stall_ms(self) -> float:
        """The longest time in which no frame arrived."""
        arrivals = np.add(self.captured_ms, self.delay_ms)
        return float(np.diff([0.0, *arrivals, self.trace.duration_ms]).max())

    def used_share(self) -> float:
        """Bits that arrived, of those that the link could have carried."""
        ends = [start_ms for start_ms, _ in self.trace.steps[1:]] + [self.trace.duration_ms]
        bits = sum(
            (end - start) * bps / 1000 for (start, bps), end in zip(self.trace.steps, ends, strict=True)
        )
        return self.arrived_bytes * 8 / bits


@dataclass(slots=True)
class _Frame:
    captured_ms: float
    size_bytes: int
    left_bits: float = 0.0
    sent_ms: float = 0.0


def simulate(
    controller: RateController,
    trace: LinkTrace,
    *,
    frame_rate: float = 30.0,
    propagation_ms: float = 25.0,
    acknowledge_ms: float = 100.0,
    encode_ms: float = 10.0,
    keyframe_factor: float = 6.0,
    gop_frames: int = 300,
    vbv_ms: float = 250.0,
    jitter_ms: float = 0.0,
    clock_offset_ms: float = 123_456.0,
    seed: int = 0,
) -> LinkRun:
    """Runs a controller against a trace; the same arguments give the same result."""
    random = np.random.default_rng(seed)
    run = LinkRun(trace)
    queue: deque[_Frame] = deque()
    in_link: deque[_Frame] = deque()
    arriving: deque[tuple[float, _Frame]] = deque()
    acks: deque[tuple[float, LinkSample, int]] = deque()
    received: list[_Frame] = []
    sent_bytes = acked_bytes = received_bytes = reported = 0
    received_ms = 0.0
    since_key, next_frame_ms, next_ack_ms, vbv_bits = gop_frames, 0.0, 0.0, 0.0
    now_ms = 0.0
    while now_ms < trace.duration_ms:
        now_ms += _TICK_MS
        while acks and acks[0][0] <= now_ms:
            _, sample, acked_bytes = acks.popleft()
            controller.on_sample(now_ms, sample)
        if now_ms >= next_frame_ms + encode_ms:
            captured_ms, next_frame_ms = next_frame_ms, next_frame_ms + 1000 / frame_rate
            run.frames += 1
            waiting_ms = now_ms - encode_ms - queue[0].captured_ms if queue else 0.0
            controller.on_frame(now_ms, max(0.0, waiting_ms), sent_bytes - acked_bytes)
            run.targets_bps.append((now_ms, controller.bitrate_bps))
            mean_bits = controller.bitrate_bps / frame_rate
            vbv_bits = min(vbv_bits + mean_bits, controller.bitrate_bps * vbv_ms / 1000)
            if controller.must_flush(now_ms):
                run.flushed += len(queue)
                queue.clear()
                since_key = gop_frames
            if not controller.admits():
                run.skipped += 1
            else:
                bits = mean_bits * float(random.lognormal(-0.03, 0.25))
                if since_key >= gop_frames:
                    bits, since_key = bits * keyframe_factor, 0
                since_key += 1
                bits = min(bits, max(vbv_bits, 0.3 * mean_bits))
                vbv_bits -= bits
                queue.append(_Frame(captured_ms, max(200, int(bits / 8))))
        while queue and sent_bytes - acked_bytes < controller.window_bytes:
            frame = queue.popleft()
            frame.left_bits, frame.sent_ms = frame.size_bytes * 8, now_ms
            sent_bytes += frame.size_bytes
            in_link.append(frame)
        room = trace.bandwidth_bps(now_ms) * _TICK_MS / 1000
        while in_link and room > 0:
            spent = min(room, in_link[0].left_bits)
            in_link[0].left_bits -= spent
            room -= spent
            if in_link[0].left_bits <= 0:
                late_ms = propagation_ms + float(random.uniform(0, jitter_ms))
                arriving.append((now_ms + late_ms, in_link.popleft()))
        while arriving and arriving[0][0] <= now_ms:
            _, frame = arriving.popleft()
            run.captured_ms.append(frame.captured_ms)
            run.delay_ms.append(now_ms - frame.captured_ms)
            received.append(frame)
            received_bytes += frame.size_bytes
            received_ms = now_ms
        if now_ms >= next_ack_ms and len(received) > reported:
            next_ack_ms = now_ms + acknowledge_ms
            sample = LinkSample(
                received_bytes,
                received_ms + clock_offset_ms,
                received[reported].sent_ms,
                received[-1].sent_ms,
            )
            acks.append((now_ms + propagation_ms, sample, received_bytes))
            reported = len(received)
    run.arrived_bytes = received_bytes
    return run
