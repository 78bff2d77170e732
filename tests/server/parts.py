"""Stand-ins around a line: a batcher that is told what to answer, an outlet that remembers."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from accmpeg.server.lanes import Job, Lane, Outcome
from accmpeg.server.result_rate import ResultRate

__all__ = ["Asked", "Told", "on_a_loop"]


class Asked:
    """In the place of a batcher: answers when and as it is told."""

    name = "net"
    dnn = SimpleNamespace(card=SimpleNamespace(task="detection"))

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.result_rate = ResultRate()

    def open_lane(self, name: str, capacity: int, patience: Any) -> Lane:
        return Lane(name, capacity, patience)

    def submit(self, lane: Lane, job: Job) -> None:
        self.jobs.append(job)

    def close_lane(self, lane: Lane) -> None:
        for job in self.jobs:
            job.finish(Outcome(dropped="behind"))


class Told:
    """An outlet that remembers."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def offer(self, camera: str, text: str) -> None:
        self.events.append(json.loads(text))


def on_a_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(limited())
