"""The WebSocket to a server, with what every connection to it needs."""

from typing import Any

from websockets.asyncio.client import connect

from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.protocol.wire import MESSAGE_LIMIT_BYTES, SUBPROTOCOL

__all__ = ["ANSWER_TIMEOUT_S", "connection_to"]

ANSWER_TIMEOUT_S = 10.0


class _Straight(connect):
    """Follows no redirection: the token would go wherever that leads, encrypted or not."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def connection_to(address: ServerAddress, **options: Any) -> connect:
    """To be entered; `options` are further ones of `websockets`. Raises LinkError for what can't be used."""
    return _Straight(
        address.url,
        ssl=address.tls(),
        proxy=address.proxy_url(),
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
        additional_headers=address.headers(),
        compression=None,  # video does not shrink
        open_timeout=ANSWER_TIMEOUT_S,
        max_size=MESSAGE_LIMIT_BYTES,
        # Of several addresses one may be dead, as IPv6 often is: it would take all of the time (RFC 8305).
        happy_eyeballs_delay=0.25,
        **options,
    )
