"""What the server knows of each camera: counters, recent times, and which frames it has had of a stream."""

import math
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from accmpeg.media.clock import SteadyClock
from accmpeg.server.health import AnswerWindow, Health, judge
from accmpeg.tasks.base import TaskName

__all__ = ["CLOCK", "CameraBook", "CameraRecord", "StreamMemory", "percentiles"]

REMEMBERED_CAMERAS = 256
REMEMBERED_STREAMS = 8
"""Of each camera, whatever it does and others do. Those before them it has left behind."""
UNSENT_RESULTS = 256
SENT_RESULTS = 192
SENT_RESULTS_BYTES = 4 << 20
"""Bounds what is kept of results that were sent, in case they never arrive."""
RECENT = 300
RIVAL_S = 60.0
_BUCKETS_S = 5

CLOCK = SteadyClock()
"""The server's: `now_us` where times are compared, `utc_us` where people read them."""


@dataclass
class StreamMemory:
    """One run of a camera, over its reconnections."""

    last_sequence: int = -1
    unsent: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=UNSENT_RESULTS))
    """Sequences and results that wait to be sent; after a break the camera gets them when it is back."""
    _sent: deque[tuple[int, bytes]] = field(default_factory=deque)
    _sent_bytes: int = 0

    def next_unsent(self, *, keep: bool) -> bytes:
        """Takes the next result to send; `keep` remembers it, for it may be lost on its way."""
        sequence, data = self.unsent.popleft()
        if keep:
            self._sent.append((sequence, data))
            self._sent_bytes += len(data)
            while len(self._sent) > SENT_RESULTS or self._sent_bytes > SENT_RESULTS_BYTES:
                self._sent_bytes -= len(self._sent.popleft()[1])
        return data

    def send_again(self, answered: int) -> None:
        """The camera has had results up to `answered`: the later ones wait to be sent again.

        What another server answered, which may be this one before its restart, is not answered again.
        """
        self.last_sequence = max(self.last_sequence, answered)
        again = [each for each in self._sent if each[0] > answered]
        self.unsent = deque([*again, *self.unsent], maxlen=UNSENT_RESULTS)
        self._sent.clear()
        self._sent_bytes = 0

    def ask_again(self, first: int | None) -> None:
        """Frames from `first` on have come and will not be answered: the camera is to send them again."""
        if first is not None:
            self.last_sequence = min(self.last_sequence, first - 1)


@dataclass
class CameraRecord:
    """One camera, connected or lately so. Used by the event loop alone."""

    name: str
    dnn: str = ""
    task: TaskName = "detection"
    connected: bool = False
    pulled: bool = False
    """The server fetches the stream itself."""
    width_px: int = 0
    height_px: int = 0
    codec: str = ""
    error: str = ""
    """Why its stream is damaged, or why it is away."""
    changed_s: float = field(default_factory=time.monotonic)
    """`time.monotonic` of when it came or left."""
    rival: str = ""
    rival_s: float = -math.inf
    """Where another camera of this name was refused from, and when."""
    connections: int = 0
    frames: int = 0
    bytes: int = 0
    results: int = 0
    tracked: int = 0
    """Results that were filled in between those of frames."""
    objects: int = 0
    decode_errors: int = 0
    waiting: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    last_frame_s: float = -math.inf
    """`time.monotonic` of the last frame."""
    stages_ms: dict[str, deque[float]] = field(default_factory=dict)
    confidences: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    object_counts: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))
    answers: AnswerWindow = field(default_factory=AnswerWindow)
    _arrivals: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=4096))
    _streams: OrderedDict[str, StreamMemory] = field(default_factory=OrderedDict)

    def stream(self, stream_id: str) -> StreamMemory:
        """What is known of one of its runs; fresh if it is new."""
        memory = self._streams.setdefault(stream_id, StreamMemory())
        self._streams.move_to_end(stream_id)
        if len(self._streams) > REMEMBERED_STREAMS:
            self._streams.popitem(last=False)
        return memory

    @property
    def is_here(self) -> bool:
        """Whether it is connected, or to be fetched."""
        return self.connected or self.pulled

    def came(self) -> None:
        """It is connected."""
        self.connected, self.error = True, ""
        self.connections += 1
        self.changed_s = time.monotonic()

    def left(self, reason: str) -> None:
        """It is not connected any more."""
        if self.connected:
            self.changed_s = time.monotonic()
        self.connected, self.error, self.waiting = False, reason, 0

    def refused_rival(self, client: str) -> None:
        """Another camera of this name was refused."""
        self.rival, self.rival_s = client, time.monotonic()

    def count_frame(self, size_bytes: int) -> None:
        """A frame has arrived."""
        now = time.monotonic()
        self.frames += 1
        self.bytes += size_bytes
        self.last_frame_s = now
        self._arrivals.append((now, size_bytes))

    def count_stages(self, stages_ms: dict[str, float], prefix: str = "") -> None:
        for stage, value in stages_ms.items():
            key = f"{prefix}{stage}"
            # Names of stages come from the camera: a hostile one must not fill the memory with them.
            if key in self.stages_ms or len(self.stages_ms) < 32:
                self.stages_ms.setdefault(key, deque(maxlen=RECENT)).append(value)

    def count_result(self, document: dict[str, Any]) -> None:
        self.results += 1
        objects = document.get("objects")
        if objects is not None:
            self.objects += len(objects)
            self.object_counts.append(len(objects))
            self.confidences.extend(each["score"] for each in objects)

    def count_answer(self, dropped: str | None) -> None:
        """A frame was answered, with a result or without: then `dropped` says why."""
        self.answers.add(time.monotonic(), dropped or "result")
        if dropped is not None:
            self.dropped[dropped] += 1

    def health(self, dnn_problem: str = "") -> Health:
        """How it is doing; `dnn_problem` is that of its server DNN."""
        now_s = time.monotonic()
        if not self.connected:
            reason = f"for {now_s - self.changed_s:.0f} s" + (f": {self.error}" if self.error else "")
            return Health("away", "left", reason)
        found = judge(
            self.answers.counts(now_s),
            frame_age_s=now_s - max(self.last_frame_s, self.changed_s),
            answer_age_s=now_s - max(self.answers.last_s, self.changed_s),
            waiting=self.waiting,
            error=self.error,
            dnn_problem=dnn_problem,
        )
        if found.state == "live" and now_s - self.rival_s < RIVAL_S:
            return Health("live", "rival", f"another camera of the same name was refused, from {self.rival}")
        return found

    def summary(self, dnn_problem: str = "") -> dict[str, Any]:
        """What the dashboard shows."""
        now = time.monotonic()
        health = self.health(dnn_problem)
        # The whole time counts, also that before its first frame: where one comes each second, that is much.
        since_s = max(now - _BUCKETS_S, self.changed_s)
        recent = [(when, size) for when, size in self._arrivals if when > since_s]
        span_s = max(1.0, now - since_s)
        age_s = now - self.last_frame_s
        return {
            "name": self.name,
            "dnn": self.dnn,
            "task": self.task,
            "connected": self.connected,
            "pulled": self.pulled,
            "health": health.state,
            "health_code": health.code,
            "health_reason": health.reason,
            "error": self.error,
            "size_px": [self.width_px, self.height_px],
            "codec": self.codec,
            "bitrate_bps": round(sum(size for _, size in recent) * 8 / span_s),
            "frames_per_s": round(len(recent) / span_s, 1),
            "last_frame_age_s": round(age_s, 1) if math.isfinite(age_s) else None,
            "frames": self.frames,
            "bytes": self.bytes,
            "results": self.results,
            "tracked": self.tracked,
            "dropped": dict(self.dropped),
            "decode_errors": self.decode_errors,
            "waiting": self.waiting,
            "connections": self.connections,
            "stages_ms": {stage: percentiles(values) for stage, values in self.stages_ms.items()},
            "mean_confidence": _mean(self.confidences),
            "objects_per_frame": _mean(self.object_counts),
        }


class CameraBook:
    """The records of all cameras; one that has been away for `forget_s` is forgotten."""

    def __init__(self, forget_s: float = math.inf) -> None:
        self._forget_s = forget_s
        self.records: OrderedDict[str, CameraRecord] = OrderedDict()

    def record(self, name: str) -> CameraRecord:
        """The record of a camera, made if there is none."""
        record = self.records.setdefault(name, CameraRecord(name))
        self.records.move_to_end(name)
        if len(self.records) > REMEMBERED_CAMERAS:
            others = (each for each in self.records.values() if each is not record and not each.is_here)
            if (gone := next(others, None)) is not None:
                del self.records[gone.name]
        return record

    def present(self) -> list[CameraRecord]:
        """The records by name, without those that have been away for too long."""
        now_s = time.monotonic()
        for name, record in list(self.records.items()):
            if not record.is_here and now_s - record.changed_s > self._forget_s:
                self.forget(name)
        return [record for _, record in sorted(self.records.items())]

    def forget(self, name: str) -> None:
        """Leaves nothing of a camera that is away."""
        self.records.pop(name, None)

    @property
    def connected(self) -> int:
        return sum(record.connected for record in self.records.values())


def percentiles(values: "deque[float]") -> dict[str, float]:
    """Median, 95th and 99th percentile, nearest rank; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        f"p{rank}": round(ordered[min(len(ordered) - 1, math.ceil(rank / 100 * len(ordered)) - 1)], 3)
        for rank in (50, 95, 99)
    }


def _mean(values: "deque[float] | deque[int]") -> float | None:
    return round(sum(values) / len(values), 3) if values else None
