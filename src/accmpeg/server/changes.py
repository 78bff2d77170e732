"""Waiting, on the event loop, for what other tasks bring about."""

import asyncio
from collections.abc import Callable

__all__ = ["Changes"]


class Changes:
    """Wakes tasks that wait for conditions: whoever changes what one depends on calls `notify`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        # Every round of waiting has an event of its own, so that no waiter eats another's signal.
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._event.wait()
