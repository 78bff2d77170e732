"""What tests of several rooms need: waiting for something to come true, and a port that nobody listens on."""

import socket
import time
from collections.abc import Callable
from typing import Any

__all__ = ["WAIT_S", "free_port", "until"]

WAIT_S = 240.0
"""Something that hangs fails a test after so long; nothing else depends on it."""


def until(condition: Callable[[], Any]) -> Any:
    """Waits until a condition holds and gives its value; fails if it does not within `WAIT_S`."""
    end_s = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.02)
    return value


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
