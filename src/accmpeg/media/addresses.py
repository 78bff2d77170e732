"""Addresses of streams and files: what kind they are, and how to name them without their secrets."""

import os
import re
from pathlib import Path

__all__ = ["LIVE_SCHEMES", "describe", "is_url", "scheme_of"]

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp"})

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(address: str | os.PathLike[str]) -> str:
    """The lower-case scheme of `scheme://…`, empty for a path."""
    found = _SCHEME.match(str(address))
    return found.group(1).lower() if found else ""


def is_url(address: str | os.PathLike[str]) -> bool:
    return not isinstance(address, Path) and scheme_of(address) != ""


def describe(address: str | os.PathLike[str]) -> str:
    """The address as messages may show it: user, password and query are hidden.

    >>> describe("rtsp://me:s3cret@camera.local/live?token=abc")
    'rtsp://***@camera.local/live?***'
    """
    if not is_url(address):
        return str(address)
    # Up to the last @: a password may hold unescaped slashes and @ signs itself.
    hidden = re.sub(r"://.*@", "://***@", str(address), flags=re.DOTALL)
    return re.sub(r"\?.*$", "?***", hidden, flags=re.DOTALL)
