"""Keeps floods out of the log: whatever others or a failing DNN do, a cause writes few lines."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

__all__ = ["FewRepeats"]

FIRST_S = 1.0
LONGEST_S = 60.0
NEWS = 8
"""So many lines of one camera's news pass at once, and one more each `LONGEST_S`."""
ALL = 256
"""So many lines of one event pass at once, whatever their causes, and one more each `ALL_S`."""
ALL_S = 4.0
_CAUSES = 256


class FewRepeats(logging.Filter):
    """A logger's filter: of the warnings and errors of one cause the first passes, and few that follow.

    A cause is the record's event and its `code` or, without one, its `camera`. After a line it is left out
    for `FIRST_S`, and for twice as long each time that something was left out, up to `LONGEST_S`; once
    nothing was, this begins anew. What is no warning and has a `camera` comes and goes in bursts (`NEWS`).
    Names are what cameras say they are, so all causes of one event together are bounded too (`ALL`).
    The next line that passes says in `left_out` how many did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: OrderedDict[Hashable, _Cause] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        fields, event = record.__dict__, str(record.msg)
        of = fields.get("code", fields.get("camera"))
        news = record.levelno < logging.WARNING
        if news and of is None:
            return True
        now_s = self._clock()
        with self._lock:
            left_out = 0
            for cause in (
                self._cause((event, str(of)), lambda: _Burst(NEWS, LONGEST_S) if news else _Pauses()),
                self._cause(event, lambda: _Burst(ALL, ALL_S)),
            ):
                if not cause.passes(now_s):
                    cause.left_out += 1 + left_out
                    return False
                left_out += cause.left_out
                cause.left_out = 0
        if left_out:
            record.left_out = left_out
        return True

    def _cause(self, key: Hashable, make: "Callable[[], _Cause]") -> "_Cause":
        found = self._causes.get(key)
        if found is None:
            found = self._causes[key] = make()
        self._causes.move_to_end(key)
        if len(self._causes) > _CAUSES:
            self._causes.popitem(last=False)
        return found


class _Cause(Protocol):
    left_out: int

    def passes(self, now_s: float) -> bool:
        """Whether one more line may be written now."""
        ...


class _Pauses:
    """Ever longer ones between lines, for as long as lines come in them."""

    def __init__(self) -> None:
        self.left_out = 0
        self._until_s, self._pause_s = float("-inf"), FIRST_S

    def passes(self, now_s: float) -> bool:
        if now_s < self._until_s:
            return False
        self._pause_s = min(LONGEST_S, 2 * self._pause_s) if self.left_out else FIRST_S
        self._until_s = now_s + self._pause_s
        return True


class _Burst:
    """So many at once, and one more each so many seconds."""

    def __init__(self, most: int, each_s: float) -> None:
        self.left_out = 0
        self._most, self._each_s = most, each_s
        self._room, self._seen_s = float(most), 0.0

    def passes(self, now_s: float) -> bool:
        self._room = min(self._most, self._room + (now_s - self._seen_s) / self._each_s)
        self._seen_s = now_s
        if self._room < 1:
            return False
        self._room -= 1
        return True
