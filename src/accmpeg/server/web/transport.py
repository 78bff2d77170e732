"""Uvicorn's protocols with the limits they lack: time for a request's header, and memory of a deaf client."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from accmpeg.errors import UsageError, reason
from accmpeg.protocol.wire import MESSAGE_LIMIT_BYTES
from accmpeg.quiet import FewRepeats
from accmpeg.server.settings import Limits, ServerSettings
from accmpeg.server.web.certificate import check_key, validity

__all__ = ["Http", "tls_context", "uvicorn_config"]

WRITE_BUFFER_LIMIT_BYTES = MESSAGE_LIMIT_BYTES + (1 << 20)
FRAGMENT_LIMIT = 1024

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class _Config(uvicorn.Config):
    limits: Limits


class _WithClient(logging.LoggerAdapter[logging.Logger]):
    """What uvicorn says of a connection, with its other end."""

    level = logging.WARNING


class Http(H11Protocol):
    """Cuts off who has not sent a whole request in time.

    `proven` is called with the first whole request, `ended` when the connection has ended, as HTTP or as the
    WebSocket that it became.
    """

    config: _Config
    transport: asyncio.Transport | None  # type: ignore[assignment]
    proven: Callable[[], object] = staticmethod(lambda: None)
    ended: Callable[[], object] = staticmethod(lambda: None)
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.logger = _WithClient(log, {"client": self.client[0] if self.client else ""})  # type: ignore[assignment]
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)
        self.ended()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:
            self.proven()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The next request on this connection has the same time.
        self._stop_deadline()
        self._start_deadline()

    def handle_websocket_upgrade(self, event: Any) -> None:
        if any(name.startswith(b"sec-websocket") and not value.isascii() for name, value in self.headers):
            # The handshake would answer 500 and log a traceback.
            self.send_400_response("WebSocket headers are ASCII.")
            return
        self._stop_deadline()
        self.proven()
        super().handle_websocket_upgrade(event)
        assert self.transport is not None
        protocol = self.transport.get_protocol()
        assert isinstance(protocol, WebSockets)
        protocol.ended = self.ended

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.config.limits.handshake_s, self._too_slow)

    def _too_slow(self) -> None:
        # A request that is being answered has been sent, and a WebSocket has limits of its own.
        answered = self.cycle is None or self.cycle.response_complete
        if self.transport is not None and answered and self.transport.get_protocol() is self:
            self.transport.abort()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class WebSockets(WebSocketsSansIOProtocol):
    """Cuts off who sends without reading the answers (pongs too), or a message in endless fragments."""

    ended: Callable[[], object] = staticmethod(lambda: None)

    def data_received(self, data: bytes) -> None:
        transport = self.transport
        if transport.get_write_buffer_size() > WRITE_BUFFER_LIMIT_BYTES or len(self.frames) > FRAGMENT_LIMIT:
            transport.abort()
            return
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        """Who is not read, because the DNN is behind, may have answered the ping long ago."""
        if self.read_paused:
            self.pong_timer = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended()


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """What the certificate and key of the settings make; None without. Raises `UsageError`."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    validity(settings.tls_certificate)  # OpenSSL does not say which of the two files it means
    check_key(settings.tls_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password to give, OpenSSL does not ask for one on a terminal that nobody watches.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        files = f"--tls-certificate {settings.tls_certificate} and --tls-key {settings.tls_key}"
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f"{files} do not belong together: give the key of the first certificate, which must be the "
                "server's own, before those of its authorities"
            ) from error
        raise UsageError(f"{files} can't be used: {reason(error)}") from error
    return context


def uvicorn_config(app: Any, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn serves `app` under these settings; every limit is said here and none left to defaults.

    Connections are accepted, and TLS is spoken, by the `Acceptor`.
    """
    limits = settings.limits
    config = _Config(
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
        limit_concurrency=None,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        backlog=256,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
    )
    config.limits = limits
    return config
