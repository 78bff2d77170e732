"""Addresses of streams and files: their kind, what they say, and how to name them without their secrets."""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from accmpeg.errors import UsageError

__all__ = [
    "HOW_TO_ESCAPE",
    "LIVE_SCHEMES",
    "Location",
    "describe",
    "is_loopback",
    "is_url",
    "local_path",
    "locate",
    "locate_peer",
    "scheme_of",
    "with_small_scheme",
]

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp"})

HOW_TO_ESCAPE = "in user and password write # as %23, / as %2F, ? as %3F, @ as %40, : as %3A and % as %25"

_WITHOUT_DEFAULT_PORT = frozenset({"udp", "rtp", "tcp", "srt"})

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
# Cheap cameras take the password in the path: /user=admin&password=…&channel=1
_SECRET_IN_PATH = re.compile(r"((?:passw(?:or)?d|pass|pwd|token|secret|key)=)[^&/;]*", re.IGNORECASE)
# Colons and an @ before any slash of a name without `://`: an address whose scheme was mistyped or left out.
_ALMOST_URL = re.compile(r"^(?![./~])[^@]*:[^@]*@")


@dataclass(frozen=True)
class Location:
    """What an address says, made by `locate`. User and password are decoded, and not shown."""

    scheme: str
    host: str
    """Without the brackets of IPv6; empty where the address names none, as in `udp://:5000`."""
    port: int | None
    path: str
    """From the first slash on, as it stands, with the query."""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def named(self) -> str:
        """Host and port as they stand in an address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_doubtful(self) -> bool:
        """An @ in the path: perhaps the password held a / or ?, and this is the end of it."""
        return "@" in self.path

    @property
    def doubt(self) -> str:
        """What a message about an address that did not work adds, if it is doubtful."""
        return f": if the @ ends a password, {HOW_TO_ESCAPE}" if self.is_doubtful else ""


def scheme_of(address: str | os.PathLike[str]) -> str:
    """The lower-case scheme of `scheme://…`, empty for a path."""
    found = _SCHEME.match(str(address))
    return found.group(1).lower() if found else ""


def is_url(address: str | os.PathLike[str]) -> bool:
    return not isinstance(address, Path) and scheme_of(address) != ""


def with_small_scheme(address: str) -> str:
    """The address as libraries take it: to FFmpeg and fsspec `RTSP://` is another scheme than `rtsp://`."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme.lower()}{separator}{rest}" if separator else address


def local_path(address: str) -> Path:
    """What `file://…` names: as it stands, or percent-encoded as file managers write it."""
    path = address.partition("://")[2]
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    return Path(path if Path(path).exists() else unquote(path))


def describe(address: str | os.PathLike[str]) -> str:
    """The address as messages may show it: user, password, query and a broadcaster's stream key are hidden.

    >>> describe("rtsp://me:s3cret@camera.local/live?token=abc")
    'rtsp://***@camera.local/live?***'
    """
    text = str(address)
    if not is_url(address):
        if not isinstance(address, Path) and _ALMOST_URL.match(text):
            return re.sub(r"^.*@", "***@", text, flags=re.DOTALL)
        return text
    # Up to the last @: a password may hold unescaped slashes and @ signs itself.
    hidden = re.sub(r"://.*@", "://***@", text, flags=re.DOTALL)
    hidden = re.sub(r"\?.*$", "?***", hidden, flags=re.DOTALL)
    if scheme_of(address) in ("rtmp", "rtmps"):
        hidden = re.sub(r"(://[^/]*/[^/?]+/)[^?]+", r"\1***", hidden)
    return _SECRET_IN_PATH.sub(r"\1***", hidden)


def locate(address: str) -> Location:
    """Takes `scheme://user:password@host:port/path` apart.

    Raises UsageError, without the secrets in it, for a host, a port or a password that can't be meant.

    >>> locate("rtsp://me:s3c%23ret@[::1]:8554/live").named
    '[::1]:8554'
    """
    shown = describe(address)
    scheme, _, rest = address.partition("://")
    end = next((at for at, sign in enumerate(rest) if sign in "/?#"), len(rest))
    authority, path = rest[:end], rest[end:]
    login, at, named = authority.rpartition("@")
    host, port_text = _split_port(named)
    # The part that reads as host and port may be user and password up to the first sign that ends them.
    cut_off = "@" in path and (path.startswith("#") or not (port_text is None or _is_port(port_text)))
    if cut_off:
        raise UsageError(f"{shown}: the password ends at its first #, / or ?: {HOW_TO_ESCAPE}")
    if port_text is not None and not _is_port(port_text):
        if ":" in named.rpartition(":")[0] and not named.startswith("["):
            raise UsageError(f"{shown}: an IPv6 address stands in brackets, such as [::1]:8554")
        raise UsageError(f"{shown}: the port must be a number from 1 to 65535")
    if host and not _is_host(host, in_brackets=named.startswith("[")):
        raise UsageError(f"{shown}: that is no name of a host, nor an IP address")
    user, colon, password = login.partition(":")
    return Location(
        scheme=scheme.lower(),
        host=host,
        port=int(port_text) if port_text is not None else None,
        path=path,
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
    )


def locate_peer(address: str) -> Location:
    """`locate`, of an address that somebody is to be reached at.

    Raises UsageError also where the host is missing, or a port that has no default; udp, rtp, tcp and srt may
    listen, without a host.
    """
    found = locate(address)
    if not found.host and found.scheme not in _WITHOUT_DEFAULT_PORT:
        raise UsageError(f"{describe(address)} names no host: give {found.scheme}://host/path")
    if found.port is None and found.scheme in _WITHOUT_DEFAULT_PORT:
        raise UsageError(f"{describe(address)} has no port: give {found.scheme}://host:port")
    return found


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine under its own loopback name: localhost, 127.0.0.1, ::1."""
    host = host.strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or _is_short_loopback(host)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _is_short_loopback(host: str) -> bool:
    """`127.1`, which every resolver takes for 127.0.0.1."""
    if not re.fullmatch(r"[0-9.]+", host):
        return False
    try:
        return socket.inet_aton(host)[0] == 127
    except OSError:
        return False


def _split_port(named: str) -> tuple[str, str | None]:
    if named.startswith("["):
        host, bracket, rest = named[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return named, None
        return host, rest[1:] if rest else None
    host, colon, port = named.partition(":")
    return host, port if colon else None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


def _is_host(host: str, *, in_brackets: bool) -> bool:
    if in_brackets:
        try:
            return ipaddress.ip_address(host).version == 6
        except ValueError:
            return False
    if re.search(r"[^\w.-]", host):
        return False
    try:
        host.encode("idna")
    except UnicodeError:  # an empty label, or one beyond 63 letters
        return False
    return True
