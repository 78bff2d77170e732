"""Where the server is and how to reach it: address, token, TLS; and what went wrong in words."""

import contextlib
import errno
import importlib.util
import os
import re
import socket
import ssl
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    NegotiationError,
    ProxyError,
)

from accmpeg.errors import LinkError, UsageError, WireError, reason
from accmpeg.media.addresses import describe, is_loopback, locate
from accmpeg.media.proxies import Proxy, proxy_of

__all__ = ["DEFAULT_PORT", "STREAM_PATH", "Problem", "ServerAddress", "connection_problem", "read_token"]

STREAM_PATH = "/v1/stream"
DEFAULT_PORT = 8700
TOKEN_VARIABLE = "ACCMPEG_STREAM_TOKEN"

_NOT_SENT_LOW_WATER_BYTES = 16 << 10


@dataclass(frozen=True)
class ServerAddress:
    """A server's WebSocket address, made by `parse`. The token is never shown."""

    url: str
    host: str
    port: int
    secure: bool
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    token_file: Path | None = None
    """Read again for each connection: a camera that runs for months outlives its first token."""

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        token: str | None = None,
        ca_file: Path | None = None,
        insecure: bool = False,
        token_file: Path | None = None,
    ) -> "ServerAddress":
        """From `wss://host:8700`, or `wss://host/prefix/` behind a proxy: the rest of the path is added.

        Raises UsageError for anything else, for a user or password in it, for a token that would cross a
        network unencrypted (unless `insecure`), and for a `ca_file` without certificates.
        """
        try:
            found = locate(text.strip())
        except UsageError as error:
            raise UsageError(f"no server address: {error}") from None
        if found.scheme not in ("ws", "wss") or not found.host:
            raise UsageError(f"{describe(text)} is no server address: give wss://host:{DEFAULT_PORT}")
        if found.user is not None or "?" in found.path or found.is_doubtful:
            raise UsageError(
                f"no secrets in the address {describe(text)}: use --token-file or {TOKEN_VARIABLE}"
            )
        if "#" in found.path:
            raise UsageError(f"{describe(text)} is no server address: a # has no meaning in it")
        if " " in found.path or not found.path.isprintable():
            raise UsageError(f"{describe(text)!r} is no server address: a blank in its path is written %20")
        secure = found.scheme == "wss"
        if token and not secure and not insecure and not is_loopback(found.host):
            raise UsageError(
                f"the token would cross the network unencrypted to {describe(text)}: use wss://, "
                "or --insecure if the network itself is encrypted"
            )
        if ca_file is not None:
            try:
                ssl.create_default_context(cafile=ca_file)
            except (OSError, ssl.SSLError) as error:
                reason = (
                    "there is no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
                )
                raise UsageError(f"--ca {ca_file}: {reason}") from error
        prefix, last = found.path.rpartition("/")[::2]
        path = found.path if last else prefix + STREAM_PATH
        return cls(
            url=f"{found.scheme}://{found.named}{path}",
            host=found.host,
            port=found.port if found.port is not None else (443 if secure else 80),
            secure=secure,
            token=token or None,
            ca_file=ca_file,
            token_file=token_file,
        )

    def beside(self, name: str) -> str:
        """The path of something else that the same server gives, for HTTP."""
        return f"{locate(self.url).path.rpartition('/')[0]}/{name}"

    def proxy(self) -> Proxy | None:
        """The environment's proxy on the way to the server; None to go directly, as to this machine itself.

        Raises LinkError for one that can't be used.
        """
        kinds = ("wss", "socks", "https", "all") if self.secure else ("ws", "socks", "https", "http", "all")
        try:
            whole = replace(locate(self.url), port=self.port)  # which no_proxy may name
            proxy = proxy_of(whole, [f"{kind}_proxy" for kind in kinds])
        except UsageError as error:
            raise LinkError(str(error), final=True) from None
        if proxy is not None and proxy.scheme.startswith("socks") and not _has_socks():
            raise LinkError(
                f"the proxy {proxy.shown} speaks SOCKS: pip install 'python-socks[asyncio]', "
                f"or go past it with no_proxy={self.host}",
                final=True,
            )
        return proxy

    def proxy_url(self) -> str | None:
        """`proxy` as websockets wants it: it sends user and password as they stand, without decoding them.

        Raises LinkError for a password that can't be given to it so.
        """
        proxy = self.proxy()
        if proxy is None:
            return None
        found = proxy.location
        if found.user is None or found.password is None:
            return proxy.url
        if re.search("[#/?]", found.user + found.password) or ":" in found.user:
            raise LinkError(
                f"the proxy {proxy.shown} can't be used: here its user and password may hold no #, / or ?, "
                "and its user no colon",
                final=True,
            )
        return f"{proxy.scheme}://{found.user}:{found.password}@{found.named}"

    def headers(self) -> dict[str, str]:
        """HTTP headers of the handshake."""
        token = self.token
        # It may just be written: the one before may do. A pipe gives it once.
        with contextlib.suppress(UsageError, OSError):
            if self.token_file is not None and self.token_file.is_file():
                token = read_token(self.token_file)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def refused(self, status: int) -> str:
        """What such an HTTP status of the server means, in words."""
        where = f"{self.host}:{self.port}"
        if self.token is None:
            return f"{where} wants a token (HTTP {status}): give --token-file"
        return f"{where} refused the token (HTTP {status}): check --token-file"

    def tls(self) -> ssl.SSLContext | None:
        """What verifies the server. Raises LinkError for a certificate file that can't be read."""
        if not self.secure:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise LinkError(f"can't read the certificates in {self.ca_file}: {error}") from error

    def tune(self, connection: socket.socket | None) -> None:
        """Keeps the kernel from taking seconds of video that could otherwise still be left out."""
        if connection is None:
            return
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        low_water = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if os.uname().sysname == "Linux" else None)
        if low_water is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, low_water, _NOT_SENT_LOW_WATER_BYTES)


# OpenSSL's X509_V_ERR_…: another authority, or another name. A certificate that is too old or not valid yet
# is not among them: that may be the fault of a camera's clock, which is right a minute after its start.
_UNTRUSTED = frozenset({18, 19, 20, 21, 62, 64})
_OUTDATED = {9: "is not valid yet", 10: "has expired"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no connection, in words; `final` as in `LinkError`.

    `refused`: the server is there, and refuses the stream or can't be understood.
    """

    reason: str
    final: bool = False
    refused: bool = False


def read_token(file: Path | None, variable: str = TOKEN_VARIABLE) -> str | None:
    """The bearer token from a file, or else from the environment's variable; None if there is none.

    Raises UsageError for a file that can't be read or is empty, and for what is no token.
    """
    where = variable if file is None else f"--token-file {file}"
    try:
        text = os.environ.get(variable, "") if file is None else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: {reason(error)}") from error
    token = text.strip()
    if file is None and not token:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{where}: it must hold one line, the token, of ASCII characters without blanks")
    return token


def connection_problem(error: BaseException, address: ServerAddress) -> Problem:
    """What an exception of connecting or talking means to the person who set the camera up."""
    if isinstance(error, BaseExceptionGroup):
        return connection_problem(error.exceptions[0], address)
    if isinstance(error, LinkError):
        return Problem(str(error), error.final, error.refused)
    proxy = address.proxy()
    if proxy is None:
        return _direct_problem(error, address)
    past = f"or go past it with no_proxy={address.host}"
    if isinstance(error, ProxyError):
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 407:
            return Problem(f"the proxy {proxy.shown} wants another user or password (HTTP 407), {past}")
        answer = f"answered HTTP {status}" if status else "gave no answer that makes sense"
        return Problem(
            f"the proxy {proxy.shown} does not let us through to {address.host}:{address.port}, "
            f"it {answer}: allow it there, {past}"
        )
    # Nothing else is connected to, nor looked up, from here.
    if isinstance(error, socket.gaierror):
        return Problem(f"no host is called as the proxy {proxy.shown} is: correct it, {past}")
    if isinstance(error, OSError) and (_is_refused(error) or type(error) is OSError):
        reason = "nothing listens there" if _is_refused(error) else error.strerror or str(error)
        return Problem(f"the proxy {proxy.shown} can't be reached, {reason}: correct it, {past}")
    problem = _direct_problem(error, address)
    return replace(problem, reason=f"{problem.reason} (through the proxy {proxy.shown})")


def _direct_problem(error: BaseException, address: ServerAddress) -> Problem:
    where = f"{address.host}:{address.port}"
    if isinstance(error, socket.gaierror):
        return Problem(f"no host is called {address.host} (DNS: {error.strerror}): check the address")
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OUTDATED:
        return Problem(
            f"the certificate of {where} {_OUTDATED[error.verify_code]}: renew it on the server, or set this "
            f"machine's clock, which says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Problem(
            f"the certificate of {where} is not trusted ({error.verify_message}): give the authority's file "
            "with --ca, and the name that the certificate is for",
            final=error.verify_code in _UNTRUSTED,
        )
    if isinstance(error, ssl.SSLError):
        return Problem(f"no TLS with {where} ({error.reason or error}): is it a ws:// server?")
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return Problem(address.refused(status), final=True)
        for elsewhere in error.response.headers.get_all("Location")[:1]:
            return Problem(
                f"{where} sends us on to {describe(elsewhere)[:200]} (HTTP {status}): give an address that "
                "leads to the server itself, wss:// where it says https://"
            )
        behind = ", which ends with / if it is a prefix" if status == 404 else ""
        return Problem(f"{where} answered HTTP {status} instead of a WebSocket: check the address{behind}")
    if isinstance(error, NegotiationError):
        return Problem(f"{where} does not speak this wire version: update it or this camera", final=True)
    if isinstance(error, InvalidHandshake):
        way_out = "check the address" if address.secure else "is it a wss:// server?"
        return Problem(f"{where} is no WebSocket server ({error}): {way_out}")
    if isinstance(error, ConnectionClosed):
        reason = error.rcvd.reason if error.rcvd is not None else ""
        return Problem(f"the connection to {where} broke{f': {reason}' if reason else ''}")
    if isinstance(error, TimeoutError):
        return Problem(f"{where} did not answer in time")
    if _is_refused(error):
        port = "" if locate(address.url).port else f" Without a port in its address that means {address.port}"
        return Problem(f"nothing listens at {where}: is the server running?{port}")
    said = getattr(error, "strerror", None) or error or type(error).__name__
    return Problem(f"{where}: {said}", refused=isinstance(error, WireError))


def _is_refused(error: BaseException) -> bool:
    """Also of a name with several addresses, such as localhost, whose refusals asyncio puts into one text."""
    several = isinstance(error, OSError) and f"[Errno {errno.ECONNREFUSED}]" in str(error)
    return isinstance(error, ConnectionRefusedError) or several


def _has_socks() -> bool:
    return importlib.util.find_spec("python_socks") is not None
