"""What a camera counts: frames by stage, drops by reason, bytes, delays. Written by many threads."""

import threading
from collections import Counter, deque
from typing import Any

__all__ = ["CameraStats"]

_DELAYS = 2000


class CameraStats:
    """Counters and the last delays; `snapshot` may be called at any time.

    Counted are `captured`, `encoded`, `sent`, `results`, `bytes_sent`, `connections`, and, with a reason,
    `dropped_…`: `machine` (the encoder is behind), `rate` (a lower frame rate was chosen), `link` (it is
    behind), `unanswered` (more than the results asked for, than the server can give, or than come back in
    time), `late` (encoded, but too late to be sent), `offline` (no server and no spool), `spool` (the spool's
    bound, a full disk or damage), `lost` (sent into a connection that broke), `server` (by its own word).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._gauges: dict[str, Any] = {}
        self._delays_ms: deque[float] = deque(maxlen=_DELAYS)

    def add(self, name: str, count: int = 1) -> None:
        """Counts."""
        if count:
            with self._lock:
                self._counts[name] += count

    def set(self, **gauges: Any) -> None:
        """Notes present values, such as the target bitrate."""
        with self._lock:
            self._gauges |= gauges

    def delay(self, delay_ms: float) -> None:
        """Notes the delay of one result whose frame had not waited in a spool, capture to result."""
        with self._lock:
            self._delays_ms.append(delay_ms)

    def get(self, name: str) -> int:
        """One counter."""
        with self._lock:
            return self._counts[name]

    def snapshot(self) -> dict[str, Any]:
        """All of it, with the 50th and 95th percentile of the last delays in milliseconds."""
        with self._lock:
            counts, gauges, delays = dict(self._counts), dict(self._gauges), sorted(self._delays_ms)
        if delays:
            for percent in (50, 95):
                gauges[f"delay_p{percent}_ms"] = round(
                    delays[min(len(delays) - 1, len(delays) * percent // 100)], 1
                )
        return {**dict(sorted(counts.items())), **gauges}
