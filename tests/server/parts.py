"""Stand-ins around a line: workers that are told what to answer, an outlet that remembers."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from accmpeg.server.lanes import Job, Lane, Outcome

__all__ = ["Asked", "Told", "on_a_loop"]


class Asked:
    """In the place of a DNN's workers: answers when and as it is told."""

    name = "net"
    dnn = SimpleNamespace(card=SimpleNamespace(task="detection"))

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def open_lane(self, name: str, capacity: int, patience: Any, frame_rate: float) -> Lane:
        return Lane(name, capacity, patience, frame_rate)

    def submit(self, lane: Lane, job: Job) -> None:
        self.jobs.append(job)

    def saw(self, lane: Lane, *, answered: bool) -> None:
        pass

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
