"""What this process may use of its machine: containers and services have limits of their own."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_bytes", "available_cores"]

_CGROUP, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_bytes() -> int:
    """The machine's memory, or the limit of the control group."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                found = min(found, int((folder / name).read_text()))
    return found


def available_cores() -> int:
    """The cores that it may run on, or as many as its control group gives the time of; at least one."""
    found = len(os.sched_getaffinity(0))
    for folder in _folders("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            found = min(found, int(quota) // int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            found = min(found, int(quota) // int(period)) if int(quota) > 0 else found
    return max(1, found)


def _folders(controller: str) -> Iterator[Path]:
    """Those of its control groups that may limit it, of version 2 or, with a tree for each, of version 1."""
    try:
        groups = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, own in groups:
        if not controllers or controller in controllers.split(","):
            folder = _CGROUP / (controller if controllers else "") / own.lstrip("/")
            yield from (folder, *folder.parents)  # a container may see its own as the root
