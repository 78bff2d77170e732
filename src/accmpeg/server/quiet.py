"""Keeps floods out of the log: whatever clients or a failing DNN do, a cause writes a line per second."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["OncePerSecond"]

_CAUSES = 256


class OncePerSecond(logging.Filter):
    """A logger's filter: of the warnings and errors of one cause, the first of each second passes.

    A cause is the record's event and its `code`, if it has one. The next line that passes says in `left_out`
    how many did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        cause = (str(record.msg), str(getattr(record, "code", "")))
        now_s = self._clock()
        with self._lock:
            said_s, left_out = self._causes.get(cause, (float("-inf"), 0))
            if now_s - said_s < 1:
                self._causes[cause] = (said_s, left_out + 1)
                return False
            self._causes[cause] = (now_s, 0)
            self._causes.move_to_end(cause)
            if len(self._causes) > _CAUSES:
                self._causes.popitem(last=False)
        if left_out:
            record.left_out = left_out
        return True
