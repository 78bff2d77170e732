"""Uvicorn's protocols with the limits they lack: time for a request's header, and memory of a deaf client."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from accmpeg.server.settings import ServerSettings
from accmpeg.wire import MESSAGE_LIMIT_BYTES

__all__ = ["uvicorn_config"]

WRITE_BUFFER_LIMIT_BYTES = MESSAGE_LIMIT_BYTES + (1 << 20)
FRAGMENT_LIMIT = 1024


def uvicorn_config(app: Any, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn serves `app` under these settings; every limit is said here and none left to defaults."""
    limits = settings.limits

    class Http(H11Protocol):
        """Cuts off who has not sent a whole request in time, and who opens too many connections."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                transport.abort()
                return
            self._deadline = self.loop.call_later(limits.handshake_s, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_deadline()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            # The next request on this connection has the same time.
            self._stop_deadline()
            self._deadline = self.loop.call_later(limits.handshake_s, self._too_slow)

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._stop_deadline()
            super().handle_websocket_upgrade(event)

        def _too_slow(self) -> None:
            # A request that is being answered has been sent, and a WebSocket has limits of its own.
            answered = self.cycle is None or self.cycle.response_complete
            if answered and self.transport.get_protocol() is self:
                self.transport.abort()

        def _stop_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    class WebSockets(WebSocketsSansIOProtocol):
        """Cuts off who sends without reading the answers (pongs too), or a message in endless fragments."""

        def data_received(self, data: bytes) -> None:
            transport = self.transport
            if (
                transport.get_write_buffer_size() > WRITE_BUFFER_LIMIT_BYTES
                or len(self.frames) > FRAGMENT_LIMIT
            ):
                transport.abort()
                return
            super().data_received(data)

    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Http,
        ws=WebSockets,
        loop="asyncio",
        lifespan="off",
        ws_max_size=MESSAGE_LIMIT_BYTES,
        ws_max_queue=4,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        # Video does not shrink, and a decompressor is one more thing to attack.
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        backlog=256,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
