"""What every answer and request goes through: security headers, and whose pages may talk to the server."""

from collections.abc import Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from accmpeg.media.addresses import is_loopback

__all__ = ["HEADERS", "Guard"]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

_USUAL_PORTS = {"http": ":80", "https": ":443"}


class Guard:
    """Adds the headers; refuses WebSockets and changes that another site's page asks a browser for.

    With `loopback_only` (no tokens) the request must also name this machine: otherwise a page elsewhere could
    point its own host name at 127.0.0.1 and read everything.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: Callable[[], bool]) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if not self._allowed(scope):
            await _forbid(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                have = {name.lower() for name, _ in headers}
                added = {"cache-control": "no-store", **HEADERS}
                headers += [(k.encode(), v.encode()) for k, v in added.items() if k.encode() not in have]
                message["headers"] = headers
            await send(message)

        # What asks for the header alone, as balancers do, gets that of a GET; uvicorn leaves the body out.
        asked = {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope
        await self._app(asked, receive, send_with_headers)

    def _allowed(self, scope: Scope) -> bool:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._loopback_only() and not is_loopback(_host_name(host)):
            return False
        origin = headers.get(b"origin")
        reads_only = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        return reads_only or origin is None or _is_of(origin, host)


def _is_of(origin: str, host: str) -> bool:
    try:
        asking = urlsplit(origin.lower())
    except ValueError:
        return False
    # Browsers leave the usual port out; proxies may name it ($host:$server_port).
    return asking.netloc == host.lower().removesuffix(_USUAL_PORTS.get(asking.scheme, ""))


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _forbid(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
    )
    await send({"type": "http.response.body", "body": b"not from there: wrong Host or Origin\n"})
