"""Keeps floods out of the log: whatever others or a failing DNN do, a cause writes few lines."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["FewRepeats"]

FIRST_S = 1.0
LONGEST_S = 60.0
_CAUSES = 256


class FewRepeats(logging.Filter):
    """A logger's filter: of the warnings and errors of one cause the first passes, and few that follow.

    A cause is the record's event and its `code`, if it has one. After a line it is left out for `FIRST_S`,
    and for twice as long each time that something was left out, up to `LONGEST_S`; once nothing was, this
    begins anew. The next line that passes says in `left_out` how many did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: OrderedDict[tuple[str, str], tuple[float, float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        cause = (str(record.msg), str(getattr(record, "code", "")))
        now_s = self._clock()
        with self._lock:
            until_s, pause_s, left_out = self._causes.get(cause, (float("-inf"), FIRST_S, 0))
            if now_s < until_s:
                self._causes[cause] = (until_s, pause_s, left_out + 1)
                return False
            pause_s = min(LONGEST_S, 2 * pause_s) if left_out else FIRST_S
            self._causes[cause] = (now_s + pause_s, pause_s, 0)
            self._causes.move_to_end(cause)
            if len(self._causes) > _CAUSES:
                self._causes.popitem(last=False)
        if left_out:
            record.left_out = left_out
        return True
