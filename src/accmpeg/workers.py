"""Where work runs: in processes of this machine, or on the nodes of a cluster that has the same two calls.

Labelling and sweeping hand their functions to `Workers` and know no more of it.
"""

import os
import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from threading import Thread
from typing import Any, TypeVar

__all__ = ["LocalWorkers", "Workers"]

Source = TypeVar("Source")
Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD_PER_WORKER = 3
"""Items in work or waiting, so that none idles while the oldest is awaited."""
_POLL_S = 0.5


class Workers(ABC):
    """Runs functions of modules on what can be pickled. An error that one raises ends all work."""

    is_this_process = False
    """Whether `in_order` works here, and has the whole machine."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Tasks that run at once, as things stand."""

    @abstractmethod
    def in_order(
        self,
        sources: Iterable[Source],
        read: Callable[[Source], Iterator[Item]],
        work: Callable[[Item], Made],
        take: Callable[[Made], None],
    ) -> None:
        """Works on all items of all sources; `take` is given what came of them here, in their order.

        On `KeyboardInterrupt` what is finished is still taken.
        """

    @abstractmethod
    def as_finished(
        self,
        tasks: Sequence[Item],
        work: Callable[..., Iterator[Made]],
        arguments: Callable[[Item], tuple[Any, ...]],
        keep: Callable[[Made], None],
        progress: Callable[[int], None],
        *,
        alone: bool = False,
    ) -> None:
        """Runs `work(*arguments(task))` for each task; `keep` files whatever it yields, as it comes.

        `keep` is a function of a module, because it may run where the work does. `arguments` are made anew
        where a task is begun again. `progress` is told the tasks done, often. With `alone` a task shares its
        machine with no other. On `KeyboardInterrupt` what is in work is finished first where it can be.
        """


class LocalWorkers(Workers):
    """Spawned processes of this machine; raises `BrokenProcessPool` where one dies."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.is_this_process = count == 1

    @property
    def count(self) -> int:
        return self._count

    def in_order(
        self,
        sources: Iterable[Source],
        read: Callable[[Source], Iterator[Item]],
        work: Callable[[Item], Made],
        take: Callable[[Made], None],
    ) -> None:
        """One worker is this process itself. Sources are read in this process."""
        items = (item for source in sources for item in read(source))
        if self.is_this_process:
            for item in items:
                take(work(item))
            return
        pool = ProcessPoolExecutor(self._count, get_context("spawn"), _begin)
        running: deque[Future[Made]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                while len(running) >= AHEAD_PER_WORKER * self._count:
                    take(running.popleft().result())
            while running:
                take(running.popleft().result())
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            while running and not running[0].cancelled():
                take(running.popleft().result())
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def as_finished(
        self,
        tasks: Sequence[Item],
        work: Callable[..., Iterator[Made]],
        arguments: Callable[[Item], tuple[Any, ...]],
        keep: Callable[[Made], None],
        progress: Callable[[int], None],
        *,
        alone: bool = False,
    ) -> None:
        context = get_context("spawn")
        stop = context.Event()
        count = 1 if alone else min(self._count, len(tasks))
        pool = ProcessPoolExecutor(count, context, _start, (stop,))
        done = 0
        try:
            waiting: set[Future[None]] = {pool.submit(_run, keep, work, *arguments(task)) for task in tasks}
            while waiting:
                finished, waiting = wait(waiting, timeout=_POLL_S)
                for future in finished:
                    future.result()
                done += len(finished)
                progress(done)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


_stop: Event | None = None


def _begin() -> None:
    """Ctrl-C is left to the parent, which lets its processes finish what they are at. Where the parent is
    killed they end: they would write beside the next run, and then wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_with_it() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_it, daemon=True).start()


def _start(stop: Event) -> None:
    global _stop
    _begin()
    _stop = stop


def _run(keep: Callable[[Made], None], work: Callable[..., Iterator[Made]], *arguments: Any) -> None:
    assert _stop is not None
    if _stop.is_set():
        return
    for made in work(*arguments):
        keep(made)
        if _stop.is_set():
            return
