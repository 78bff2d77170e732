"""What a camera is called: names that are well formed, and a default that no other machine has."""

import hashlib
import hmac
import platform
import re
import uuid
from pathlib import Path

from accmpeg.errors import UsageError
from accmpeg.media.addresses import describe, scheme_of
from accmpeg.protocol.wire import is_name

__all__ = ["address_name", "checked_name", "default_name"]

_MACHINE_ID = Path("/etc/machine-id")
_LONGEST_HOST = 48


def checked_name(name: str, option: str) -> str:
    """The name; raises `UsageError` for one that can't go over the wire.

    >>> checked_name("front-door", "--name")
    'front-door'
    """
    if not is_name(name):
        raise UsageError(
            f"{option} {name!r}: give up to 64 letters, digits, _ . or -, beginning with a letter or digit, "
            f"such as {_like(name) or 'front-door'}"
        )
    return name


def default_name(source: str, machine: str | None = None) -> str:
    """The host's name and a mark that is the same at each start, and differs between machines and sources.

    Hosts of one make are all called alike. `machine` is what this one is told by, if not its own id.
    """
    if machine is None:
        try:
            machine = _MACHINE_ID.read_text().strip()
        except OSError:
            machine = ""
    machine = machine or f"{uuid.getnode():012x}"
    shown = describe(source).encode(errors="surrogateescape")  # names of files need be no UTF-8
    mark = hmac.new(machine.encode(), shown, hashlib.sha256).hexdigest()[:6]
    host = _like(platform.node().partition(".")[0])[:_LONGEST_HOST].rstrip("-") or "camera"
    return f"{host}-{mark}"


def address_name(source: object) -> str | None:
    """The default name of an address; None for anything else, whose name is known when it is open.

    What is shown of an address hides its query, which alone tells the channels of a recorder apart.
    """
    if not isinstance(source, str) or scheme_of(source) in ("", "file"):
        return None
    return default_name(source.replace("?", "&"))  # as in a path, where only secrets are hidden


def _like(text: str) -> str:
    """The nearest well-formed name, or nothing."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:64]
