"""Wrong tokens: counted, logged with the address that they come from, and answered ever more slowly."""

import asyncio
import logging
import time
from collections import OrderedDict

from accmpeg.quiet import FewRepeats
from accmpeg.server.metrics import Metrics

__all__ = ["Logins"]

FREE = 3
"""The first mistakes cost no time."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
FORGET_S = 600.0
_ADDRESSES = 4096

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class Logins:
    """Who knows a token is never slowed, so that nobody can lock others out. Event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def failed(self, door: str, client: str) -> None:
        """A wrong token came from there; returns when the answer may be given."""
        count, last_s = self._failures.pop(client, (0, 0.0))
        now_s = time.monotonic()
        count = 1 if now_s - last_s > FORGET_S else count + 1
        self._failures[client] = count, now_s
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)
        self._metrics.failed_logins.labels(door).inc()
        log.warning("wrong token", extra={"code": door, "door": door, "client": client, "failures": count})
        if count > FREE:
            await asyncio.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(count - FREE - 1, 10)))
