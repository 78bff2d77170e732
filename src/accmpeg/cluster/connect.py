"""The way into a Ray cluster: its address, its nodes, and in one line what is wrong with either."""

import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from accmpeg.errors import ClusterError, UsageError, one_line, reason
from accmpeg.version import __version__

__all__ = ["TRIES", "Look", "check_nodes", "connected", "worker_nodes"]

Look = Callable[[], str | None]
"""Runs on a node: what it lacks for the work, or None. It is pickled, so it is a function of a module."""

TRIES = 4
"""How often a task is begun whose worker dies, before it is named and all ends."""
_HELP = "start one with `ray start --head`, or name another with --address or RAY_ADDRESS"
_OWN = "auto"
"""Ray's word for the cluster that this machine is part of; not joined unasked, as it may be a stranger's."""
_REACH_S, _LOOK_S = 5.0, 120.0


@contextmanager
def connected(address: str | None = None) -> Iterator[str]:
    """A connection to a running cluster, and the address of its head; never starts one.

    Args:
        address: `HOST:PORT` of the head, or `auto` for the cluster that this machine is part of. None:
            `RAY_ADDRESS`.

    Raises:
        UsageError: There is no address, or it is none of a head.
        ClusterError: There is no cluster, or it runs other versions of Ray or Python.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        raise UsageError(
            "which Ray cluster? give --address HOST:PORT of its head or RAY_ADDRESS, "
            f"or --address {_OWN} for the one that this machine is part of"
        )
    if address.startswith("ray://"):
        raise UsageError(
            f"{address} is a Ray Client's address: run the command on a node of the cluster "
            "(`ray job submit`) with the head's HOST:PORT"
        )
    if address != _OWN:
        _reach(address)
    ends = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_task_oom_retries", str(TRIES - 1))  # by itself Ray would try for ever
    try:
        # Ray's own lines would tear the progress bar; what matters of them comes as an error.
        ray.init(address, namespace="accmpeg", log_to_driver=False, logging_level=logging.ERROR)
        # What a raylet says when it ends it would put on stdout whatever was asked for, into the JSON there.
        ray._private.worker.print_to_stdstream = _say_nothing
    except ConnectionError as error:
        where = (
            f"no Ray cluster at {address}" if address != _OWN else "this machine is part of no Ray cluster"
        )
        raise ClusterError(f"{where}: {_HELP}") from error
    except RuntimeError as error:  # of another Ray or Python
        raise ClusterError(f"can't join the Ray cluster at {address}: {one_line(error)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ends)  # Ray has put its own in place, which ends the process at once
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def _say_nothing(*said: Any, **options: Any) -> None:
    pass


def worker_nodes() -> list[dict[str, Any]]:
    """The nodes that are alive and have a CPU to work on, as Ray describes them."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def check_nodes(look: Look | None = None) -> None:
    """Asks every node that can work whether it has this version of the package, and then what it lacks.

    Raises:
        ClusterError: A node is not fit, or none has a CPU to work on; all unfit ones are named.
    """

    # Within this function, so that it is pickled whole: a node without the package has to run it too.
    def probe(wanted: str, pickled: bytes) -> str | None:
        try:
            from accmpeg.version import __version__ as found
        except ImportError:
            return f"has no accmpeg: install accmpeg=={wanted} there"
        if found != wanted:
            return f"has accmpeg {found}, and this is {wanted}: install the same version on all nodes"
        lacks: str | None = pickle.loads(pickled)()
        return lacks

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in worker_nodes()}
    if not nodes:
        raise ClusterError("no node of the Ray cluster has a CPU for work: start one without --num-cpus 0")
    remote = ray.remote(num_cpus=0, max_retries=0)(probe)
    asked = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            __version__, pickle.dumps(look or _lacks_nothing)
        ): host
        for node, host in nodes.items()
    }
    problems = []
    for answer, host in asked.items():
        try:
            lacks = ray.get(answer, timeout=_LOOK_S)
        except RayTaskError as error:  # of the node's own code, which may be another under the same version
            said = f"{type(error.cause).__name__}: {one_line(error.cause)}"
            lacks = f"can't say what it lacks: {said}; install the same accmpeg on all nodes"
        except RayError as error:
            lacks = f"does not answer: {one_line(error)}"
        if lacks is not None:
            problems.append(f"node {host} {lacks}")
    if problems:
        raise ClusterError("; ".join(dict.fromkeys(problems)))


def _lacks_nothing() -> None:
    return None


def _reach(address: str) -> None:
    """Ray tries for two minutes; people mistype ports."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address {address}: give HOST:PORT of the head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster at {address} ({reason(error)}): {_HELP}") from error
