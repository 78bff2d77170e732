"""`Workers` on the nodes of a Ray cluster: Ray places tasks and moves what they need; nothing here schedules.

```
source ─▶ reader task ─▶ item, item, … in the object store ─▶ a task for a few ─▶ taken here, in order
          (some ahead, each stops when its items wait)
```

A task that a worker's or a node's death interrupted is begun again, a few times; what a reader had made is
made again by Ray. Errors of the work itself end it, as they do on one machine.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from accmpeg.cluster.connect import TRIES, worker_nodes
from accmpeg.errors import ClusterError
from accmpeg.version import __version__
from accmpeg.workers import AHEAD_PER_WORKER, Workers

__all__ = ["RayWorkers"]

Source = TypeVar("Source")
Item = TypeVar("Item")
Made = TypeVar("Made")

_WORK_CPUS, _READ_CPUS = 0.9, 0.05
"""On a node of one CPU a reader or two still fit beside the work that they read for."""
_ITEMS_WAITING = 8
_WORKERS_PER_READER = 8
_READERS = {"env_vars": {"ACCMPEG_READER": "1"}}
"""Ray gives them processes of their own. Otherwise work would come to one that has just read, and that would
have to load the network for it."""
_TASK_S, _MOST_PER_TASK = 0.5, 16
"""A task takes so many items as last so long: between two tasks a worker waits for Ray."""
_POLL_S = 0.5
_remote: Any = ray.remote  # its types know neither generators nor their limits


class RayWorkers(Workers):
    """The nodes of the cluster that this process is connected to; raises `ClusterError`.

    Args:
        gpus: How much of a GPU each task of `in_order` takes; 0 for work on CPUs.
    """

    def __init__(self, gpus: float = 0.0) -> None:
        self._resources = {"num_gpus": gpus} if gpus else {"num_cpus": _WORK_CPUS}
        self._kind, self._each = ("GPU", gpus) if gpus else ("CPU", 1.0)

    @property
    def count(self) -> int:  # nodes come and go
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(1, int(resources.get(self._kind, 0) / self._each))

    def in_order(
        self,
        sources: Iterable[Source],
        read: Callable[[Source], Iterator[Item]],
        work: Callable[[Item], Made],
        take: Callable[[Made], None],
    ) -> None:
        # Left to itself Ray works where a frame was read, and the other nodes idle.
        task = _remote(max_retries=0, scheduling_strategy="SPREAD", **self._resources)(_worked)
        shared = ray.put(work)
        running: deque[tuple[Sequence[tuple[Any, Source]], Any]] = deque()
        each_s = _TASK_S

        def begun(items: Sequence[tuple[Any, Source]]) -> tuple[Sequence[tuple[Any, Source]], Any]:
            return items, task.remote(__version__, shared, *(item for item, _ in items))

        def take_oldest() -> None:
            nonlocal each_s
            for left in reversed(range(TRIES)):
                items, made = running[0]
                try:
                    outcomes, took_s = _got(made)
                except RayError as error:
                    if not left:
                        raise _given_up(_named(*items[0]), error) from error
                    running.popleft()
                    # Each by itself, so that the one is found that its worker dies of.
                    running.extendleft(begun([item]) for item in reversed(items))
                else:
                    running.popleft()
                    each_s = max(took_s / len(items), each_s / 2)  # what a source ends with takes no time
                    for outcome in outcomes:
                        take(outcome)
                    return

        items = self._read(sources, read)
        try:
            while group := list(islice(items, min(_MOST_PER_TASK, math.ceil(_TASK_S / each_s)))):
                running.append(begun(group))
                while len(running) >= AHEAD_PER_WORKER * self.count:
                    take_oldest()
            while running:
                take_oldest()
        except KeyboardInterrupt:
            while running and ray.wait([running[0][1]], timeout=0)[0]:
                take_oldest()
            raise
        finally:
            for _, made in running:
                ray.cancel(made)

    def _read(
        self, sources: Iterable[Source], read: Callable[[Source], Iterator[Item]]
    ) -> Iterator[tuple[Any, Source]]:
        """References to the items of all sources, in order, and where each is from."""
        reader = _remote(
            num_returns="streaming",
            num_cpus=_READ_CPUS,
            max_retries=TRIES - 1,
            runtime_env=_READERS,
            _generator_backpressure_num_objects=_ITEMS_WAITING,
        )(_read_here)
        waiting, begun = iter(sources), deque[tuple[Any, Source]]()
        while True:
            ahead = 1 + self.count // _WORKERS_PER_READER
            for source in waiting:
                begun.append((reader.remote(__version__, read, source), source))
                if len(begun) > ahead:
                    break
            if not begun:
                return
            items, source = begun.popleft()
            for item in items:
                yield item, source

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
        """Results are kept by this process. `alone`: on the largest nodes, the whole of one each."""
        cpus = max(node["Resources"]["CPU"] for node in worker_nodes()) if alone else 1
        remote = _remote(num_returns="streaming", num_cpus=cpus, max_retries=0)(_run)
        running = {remote.remote(__version__, work, *arguments(task)): task for task in tasks}
        deaths: Counter[int] = Counter()
        done = 0
        try:
            while running:
                ready: list[Any]
                ready, _ = ray.wait(list(running), timeout=_POLL_S, fetch_local=False)
                for results in ready:
                    try:
                        keep(_got(next(results)))
                    except StopIteration:
                        del running[results]
                        done += 1
                    except RayError as error:
                        task = running.pop(results)
                        deaths[id(task)] += 1
                        if deaths[id(task)] == TRIES:
                            raise _given_up(str(task), error) from error
                        running[remote.remote(__version__, work, *arguments(task))] = task
                progress(done)
        finally:
            for results in running:
                ray.cancel(results)


def _got(reference: Any) -> Any:
    """What a task made. What the work raised is raised as it was; `RayError` means that a worker died."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        raise cause from None


def _same_version(version: str) -> None:
    """Of a node that joined after all were asked."""
    if version != __version__:
        raise ClusterError(f"a node that joined has accmpeg {__version__}, and this is {version}")


def _worked(version: str, work: Callable[[Item], Made], *items: Item) -> tuple[list[Made], float]:
    """What came of the items, and the seconds that it took."""
    _same_version(version)
    begun_s = time.perf_counter()
    return [work(item) for item in items], time.perf_counter() - begun_s


def _read_here(version: str, read: Callable[[Source], Iterator[Item]], source: Source) -> Iterator[Item]:
    _same_version(version)
    for item in read(source):  # noqa: UP028 (Ray sends back into what it iterates over)
        yield item


def _run(version: str, work: Callable[..., Iterator[Made]], *arguments: Any) -> Iterator[Made]:
    _same_version(version)
    for made in work(*arguments):  # noqa: UP028
        yield made


def _named(item: Any, source: object) -> str:
    try:
        return str(ray.get(item, timeout=_POLL_S))
    except RayError:  # it was never read, or was lost with its node
        return str(source)


def _given_up(item: str, error: RayError) -> ClusterError:
    oom = isinstance(error, OutOfMemoryError)
    why = "ran out of memory" if oom else f"died ({type(error).__name__}), perhaps out of memory"
    return ClusterError(
        f"{item}: its worker {why}, {TRIES} times; what came before is kept. Give the nodes more memory, or "
        "fewer CPUs so that fewer tasks share it (ray start --num-cpus), and run this again"
    )
