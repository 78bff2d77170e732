"""What all cameras of one server share."""

import asyncio
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from accmpeg.protocol.wire import Offer
from accmpeg.server.announcement import Announcement
from accmpeg.server.cameras import CameraBook
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.dnns import RunningDnns
from accmpeg.server.machine import available_bytes
from accmpeg.server.memory import MemoryBudget
from accmpeg.server.metrics import Metrics
from accmpeg.server.models import LoadedDnns
from accmpeg.server.settings import ServerSettings
from accmpeg.server.subscribers import Hub
from accmpeg.server.view import Gallery

__all__ = ["Core"]

log = logging.getLogger(__name__)


class Core:
    """DNNs, records, memory, and where results go. Made and used on the server's event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        loaded: LoadedDnns,
        announcement: Announcement | None = None,
    ) -> None:
        self.settings = settings
        """As they are now: some change while the server runs."""
        self.announcements = {} if announcement is None else {announcement.made_for.card: announcement}
        """By the name of the DNN: what its cameras are offered."""
        self.limits = settings.limits
        self.book = CameraBook(settings.forget_s)
        self.metrics = Metrics(self.book, lambda: self.dnns)
        self.memory = MemoryBudget(settings.memory_bytes or available_bytes() // 2)
        self.hub = Hub(self.metrics)
        self.gallery = Gallery(settings.snapshots_per_s)
        self.executor = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="decode")
        self.dnns = RunningDnns(settings, loaded, self._observe_batch)
        self._tasks: set[asyncio.Task[Any]] = set()

    def offer_of(self, workers: DnnWorkers) -> Offer | None:
        """What cameras of this DNN are offered, as it is now."""
        announced = self.announcements.get(workers.name)
        return None if announced is None else announced.offer_of(workers.identity)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Starts a task that nobody awaits; a failure is logged, and `cancel_tasks` ends it."""

        def done(finished: "asyncio.Task[Any]") -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and (error := finished.exception()) is not None:
                log.error("a task failed", exc_info=error)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    def cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _observe_batch(self, name: str, frames: int) -> None:
        self.metrics.batch_frames.labels(name).observe(frames)
