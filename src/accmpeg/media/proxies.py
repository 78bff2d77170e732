"""Proxies that the environment names (`https_proxy`, `no_proxy`, …), for every way out of this machine."""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from accmpeg.errors import UsageError
from accmpeg.media.addresses import Location, describe, is_loopback, locate

__all__ = ["Proxy", "proxy_of"]

_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it. The address may hold a password and is not shown."""

    url: str = field(repr=False)
    variable: str

    @property
    def scheme(self) -> str:
        """http, https, or a kind of SOCKS."""
        return self.url.partition("://")[0]

    @property
    def default_port(self) -> int:
        """Taken where the address names none."""
        return 443 if self.scheme == "https" else 80

    @property
    def location(self) -> Location:
        return locate(self.url)

    @property
    def shown(self) -> str:
        """The proxy as messages name it, without its password."""
        return f"{describe(self.url)} (from {self.variable})"


def proxy_of(location: Location, variables: Sequence[str]) -> Proxy | None:
    """The first proxy that the environment's `variables` name, in either spelling; None to go directly.

    That is so for this machine itself, whatever the environment says, and for what `no_proxy` names: hosts,
    domains, networks such as `10.0.0.0/8`, or `*`. Raises UsageError for a proxy that can't be meant.
    """
    if not location.host or is_loopback(location.host) or _is_exempt(location):
        return None
    for name in variables:
        for variable in (name, name.upper()):
            if value := os.environ.get(variable, "").strip():
                return _proxy(value, variable)
    return None


def _proxy(value: str, variable: str) -> Proxy:
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    scheme = scheme.lower()
    # Desktops write socks://, and socks_proxy=http://… or without any scheme.
    if scheme == "socks" or (variable.lower() == "socks_proxy" and scheme not in _SOCKS):
        scheme = "socks5h"
    proxy = Proxy(f"{scheme}://{rest}", variable)
    try:
        found = locate(proxy.url)
    except UsageError as error:
        raise UsageError(f"the proxy of {variable} can't be used: {error}") from None
    whole_login = found.user is None or found.password is not None
    usable = scheme in ("http", "https", *_SOCKS) and found.host and found.path in ("", "/")
    if not usable or not whole_login:
        raise UsageError(
            f"the proxy {proxy.shown} can't be used: give http://host:port or "
            "http://user:password@host:port, or unset that variable"
        )
    return proxy


def _is_exempt(location: Location) -> bool:
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    host = location.host.lower().rstrip(".")
    names = f".{host}", f".{location.named.lower()}"
    for each in re.split(r"[,\s]+", listed.lower()):  # blanks part them too, as in curl
        name = each.removeprefix("*.").lstrip(".")
        if name == "*" or (name and any(known.endswith(f".{name}") for known in names)):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(name.strip("[]"), strict=False):
                return True
        except ValueError:  # a name, not an address or network
            continue
    return False
