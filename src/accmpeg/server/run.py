"""Starting and stopping: as a program (`serve`), or in a thread beside tests and demos (`ServerThread`)."""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import uvicorn

from accmpeg.server.acceptor import Acceptor
from accmpeg.server.app import make_app
from accmpeg.server.live import Live
from accmpeg.server.settings import ServerSettings
from accmpeg.server.transport import Http, tls_context, uvicorn_config

__all__ = ["ServerThread", "serve", "start_server"]

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Uvicorn, with cameras drained before connections are closed, and signals left to its starter."""

    def __init__(
        self,
        config: uvicorn.Config,
        live: Live,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(config)
        self.live = live
        self._listener = listener
        self._tls = tls

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # it accepts nothing itself
        self.acceptor = Acceptor(
            self._listener, self._protocol, self.live.limits, self._tls, self.live.metrics
        )
        self.acceptor.start()

    def _protocol(self) -> Http:
        return Http(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self.live.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        draining.cancel()
        self.acceptor.close()
        await super().shutdown(sockets)
        await self.live.close()


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=256)
        # asyncio turns Nagle's algorithm off only for sockets made as IPPROTO_TCP, which these are not. With
        # it every result waited for the camera's next frame, which carried the acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"can't listen on {settings.host}:{settings.port}: {reason}") from None


async def _make(settings: ServerSettings, listener: socket.socket) -> _Server:
    tls = tls_context(settings)
    live = Live(settings, await asyncio.to_thread(Live.load, settings))
    config = uvicorn_config(make_app(live), settings)
    config.load()
    await live.start()
    return _Server(config, live, listener, tls)


def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns. Raises `UsageError` for unsafe settings."""
    settings.check()
    listener = _listen(settings)

    async def run() -> None:
        server = await _make(settings, listener)

        def stop() -> None:
            # The second time, without waiting.
            server.force_exit = server.should_exit
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        log.info("listening", extra={"url": _url(settings, listener)})
        await server.serve()

    with listener:
        asyncio.run(run())


def _url(settings: ServerSettings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class ServerThread:
    """A real server in a thread, on any free loopback port unless the settings say otherwise.

    ```python
    with ServerThread(ServerSettings(dnns=(card,), port=0)) as server:
        connect(f"{server.websocket_url}/v1/stream")
    ```
    """

    def __init__(self, settings: ServerSettings) -> None:
        settings.check()
        self.settings = settings
        self.url = ""
        self.live: Live | None = None
        self._server: _Server | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="accmpeg-server", daemon=True)

    @property
    def websocket_url(self) -> str:
        return "ws" + self.url.removeprefix("http")

    def start(self) -> Self:
        """Returns when the server listens; raises what kept it from starting."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Drains and ends it; safe to call twice."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with _listen(self.settings) as listener:
                asyncio.run(self._serve(listener))
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self, listener: socket.socket) -> None:
        self._server = await _make(self.settings, listener)
        self.live = self._server.live
        self.url = _url(self.settings, listener)
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving


def start_server(settings: ServerSettings) -> ServerThread:
    """A started `ServerThread`."""
    return ServerThread(settings).start()
