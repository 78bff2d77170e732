"""The bookkeeping of one connection: every frame that came is answered once and in order."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from av import VideoFrame

from accmpeg.errors import WireError
from accmpeg.protocol.wire import AccessUnitMessage, ResultMessage, pack
from accmpeg.server.cameras import CLOCK
from accmpeg.server.lanes import Outcome
from accmpeg.server.models import ModelIdentity

__all__ = ["Answer", "Answers", "RateLimit"]

Dropped = Literal["behind", "undecodable", "failed"]


@dataclass(slots=True, eq=False)
class Answer:
    """One received frame on its way to its answer."""

    message: AccessUnitMessage
    received_us: int = field(default_factory=CLOCK.now_us)
    received_s: float = field(default_factory=time.perf_counter)
    server_ms: dict[str, float] = field(default_factory=dict)
    done: bool = False
    result: dict[str, Any] | None = None
    dropped: Dropped | None = None
    frame: VideoFrame | None = None
    model: ModelIdentity | None = None

    def finish(self, outcome: Outcome, frame: VideoFrame | None = None) -> None:
        """The DNN is done with it."""
        self.server_ms |= {"queue": outcome.queue_ms}
        if outcome.batch:
            self.server_ms["infer"] = outcome.infer_ms
        self.result, self.dropped, self.model = outcome.result, outcome.dropped, outcome.model
        self.frame, self.done = frame, True

    def drop(self, reason: Dropped) -> None:
        self.dropped, self.done = reason, True

    def packed(self) -> bytes:
        """The answer on the wire; one that is too long for it becomes `failed`."""
        self.server_ms["total"] = (time.perf_counter() - self.received_s) * 1000
        try:
            return pack(self._message())
        except WireError:
            self.result, self.dropped = None, "failed"
            return pack(self._message())

    def event(self) -> dict[str, Any]:
        """What subscribers get, less what is the same for the whole stream."""
        message = self.message
        return {
            "sequence": message.sequence,
            "pts": message.pts,
            "captured_us": message.captured_us,
            "received_us": CLOCK.utc_us(self.received_us),
            "answered_us": CLOCK.utc_us(),
            "spooled": message.spooled,
            "result": self.result,
            "dropped": self.dropped,
            "model": self.model.facts() if self.model is not None else None,
            "camera_ms": message.camera_ms,
            "server_ms": {stage: round(ms, 3) for stage, ms in self.server_ms.items()},
        }

    def _message(self) -> ResultMessage:
        return ResultMessage(
            sequence=self.message.sequence,
            pts=self.message.pts,
            captured_us=self.message.captured_us,
            result=self.result,
            dropped=self.dropped,
            server_ms={stage: round(max(0.0, ms), 3) for stage, ms in self.server_ms.items()},
        )


class Answers:
    """The frames of one connection that wait for their answers."""

    def __init__(self) -> None:
        self._waiting: deque[Answer] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, answer: Answer) -> None:
        self._waiting.append(answer)

    def ready(self) -> Iterator[Answer]:
        """Takes the answers that are done and have none undone before them."""
        while self._waiting and self._waiting[0].done:
            yield self._waiting.popleft()


class RateLimit:
    """A token bucket of one second's burst: how long to wait after each `cost`, so that `per_s` holds."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._last_s: float | None = None

    def wait_s(self, cost: float, now_s: float) -> float:
        if self._last_s is not None:
            self._left = min(self._per_s, self._left + (now_s - self._last_s) * self._per_s)
        self._last_s = now_s
        self._left -= cost
        return max(0.0, -self._left / self._per_s)
