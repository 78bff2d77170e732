"""Starting and stopping: as a program (`serve`), or in a thread beside tests and demos (`ServerThread`)."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import uvicorn

from accmpeg.errors import AccmpegError, UsageError
from accmpeg.quiet import FewRepeats
from accmpeg.server.announcement import announce
from accmpeg.server.dnns import load_all
from accmpeg.server.motion import Motion
from accmpeg.server.server import Server
from accmpeg.server.settings import ServerSettings
from accmpeg.server.threads import in_thread
from accmpeg.server.web.acceptor import Acceptor
from accmpeg.server.web.app import make_app
from accmpeg.server.web.certificate import certificate_problem
from accmpeg.server.web.transport import Http, tls_context, uvicorn_config

__all__ = ["ServerThread", "open_server", "serve", "start_server"]

_WAYS_OUT = {
    errno.EADDRINUSE: ": another program does already, so give another --port",
    errno.EADDRNOTAVAIL: ": give --host an address of this machine, or 0.0.0.0 for all",
    errno.EACCES: ": ports below 1024 are for root, so give another --port",
    socket.EAI_NONAME: ": give --host a name or an address, and the port as --port",
}
RENEW_EVERY_S = 86_400.0
"""How often the certificate is read again: that of a server outlives none of those that are free."""
GRACE_S = 10.0
"""After draining, everything must have ended within so long; then it is ended."""

log = logging.getLogger(__name__)


class _Program(uvicorn.Server):
    """Uvicorn, with cameras drained before connections are closed, and signals left to its starter."""

    def __init__(
        self,
        config: uvicorn.Config,
        server: Server,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        reread: Callable[[], ServerSettings],
    ) -> None:
        super().__init__(config)
        self.server = server
        self.reload_waits = False
        self._reread = reread
        self._listener = listener
        self._tls = tls

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # it accepts nothing itself
        core = self.server.core
        self.acceptor = Acceptor(self._listener, self._protocol, core.limits, self._tls, core.metrics)
        self.acceptor.start()
        if self._tls is not None:
            core.spawn(self._renew_certificate())
        if self.reload_waits:
            self.reload()

    async def _renew_certificate(self) -> None:
        """Takes what was renewed without a word, and says what was not."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            settings = self.server.core.settings
            try:
                self.acceptor.tls = tls_context(settings)
                _check_certificate(settings)
            except UsageError as error:
                said = {"reason": str(error)}
                log.error("the TLS certificate can't be read again, the old one goes on", extra=said)

    def _protocol(self) -> Http:
        return Http(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def reload(self) -> None:
        """Takes what may change from the settings as they are now; keeps the old ones if those are wrong.

        Before it has started, it does so as soon as it has.
        """
        if not self.started:
            self.reload_waits = True
            return
        try:
            settings = self._reread()
            settings.check()
            tls = tls_context(settings)
            if (tls is None) != (self.acceptor.tls is None):
                raise UsageError("TLS can only be turned on or off by a restart")
            left = self.server.reload(settings)
        except AccmpegError as error:
            log.error("not reloaded, the old settings go on", extra={"reason": str(error)})
            return
        self.acceptor.tls = tls
        _check_certificate(settings)
        log.info("reloaded", extra={"needs_restart": ", ".join(left) or "nothing"})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self.server.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        draining.cancel()
        self.acceptor.close()
        await super().shutdown(sockets)
        await self.server.close()


def _listen(settings: ServerSettings) -> socket.socket:
    host = settings.host.removeprefix("[").removesuffix("]")  # IPv6 as it stands in addresses
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The whole address: that of a link (fe80::…%eth0) has the interface behind host and port.
        # "::" are all addresses, as people mean it, and not all of IPv6 alone.
        both = family is socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=both)
        # asyncio turns Nagle's algorithm off only for sockets made as IPPROTO_TCP, which these are not. With
        # it every result waited for the camera's next frame, which carried the acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except UnicodeError:  # an empty label, or one beyond 63 letters, or such
        raise UsageError(f"--host {settings.host!r} is no name of a host, nor an IP address") from None
    except OSError as error:
        # Without what Python adds to it.
        said = (error.strerror or str(error)).partition(" (while")[0] + _WAYS_OUT.get(error.errno or 0, "")
        raise OSError(error.errno, f"can't listen on {settings.host}, port {settings.port}: {said}") from None


async def open_server(settings: ServerSettings) -> Server:
    """A started server without a door, on the running loop; raises what `serve` raises for its DNNs."""
    if settings.publish_per_s is not None:
        await in_thread(Motion, (1, 1))  # its library may be missing, and takes its time to load
    loaded = await in_thread(load_all, settings)
    dnns = [next(iter(workers.values())).identity for workers in loaded.values()]
    offered = await in_thread(announce, settings.site_profile, settings.accmodel, dnns)
    server = Server(settings, loaded, offered)
    await server.start()
    return server


async def _make(
    settings: ServerSettings, listener: socket.socket, reread: Callable[[], ServerSettings] | None = None
) -> _Program:
    tls = tls_context(settings)
    _check_certificate(settings)
    server = await open_server(settings)
    config = uvicorn_config(make_app(server), settings)
    config.load()
    return _Program(config, server, listener, tls, reread or (lambda: settings))


def _check_certificate(settings: ServerSettings) -> None:
    if settings.tls_certificate is not None:
        problem = certificate_problem(settings.tls_certificate, datetime.now(UTC))
        if problem:
            file = str(settings.tls_certificate)
            log.warning("the TLS certificate is not in order", extra={"file": file, "reason": problem})


def serve(settings: ServerSettings, reread: Callable[[], ServerSettings] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns, within `drain_s` and `GRACE_S`.

    Args:
        settings: What to serve, and where.
        reread: On SIGHUP, tokens, certificates and inputs are taken from what it returns; files are reopened.

    Raises:
        UsageError: The settings are unsafe or can't be served.
        AccmpegError: A server DNN or its weights can't be loaded, or the port can't be had.
    """
    settings.check()
    for name in ("asyncio", "uvicorn.error", "websockets"):
        logging.getLogger(name).addFilter(FewRepeats())
    listener = _listen(settings)
    stuck = reload_waits = False

    async def run() -> None:
        nonlocal stuck
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        program: _Program | None = None

        def stop() -> None:
            if program is not None:
                # The second time, without waiting.
                program.force_exit = program.should_exit
                program.should_exit = True
            if not last_resort.is_alive():
                last_resort.start()
            stopping.set()

        def reload() -> None:
            nonlocal reload_waits
            if program is None:
                reload_waits = True  # what was read before may have changed since
            else:
                program.reload()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, reload)
        making = asyncio.create_task(_make(settings, listener, reread))
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait([making, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not making.done():
            making.cancel()
            log.info("stopped before it was ready")
            stuck = True
            return
        program = making.result()
        program.reload_waits = reload_waits
        log.info("listening", extra={"url": _url(settings, listener)})
        await program.serve()
        stuck = program.server.stuck

    last_resort = threading.Timer(settings.drain_s + GRACE_S, _end_at_once, [1])
    last_resort.daemon = True
    with listener:
        asyncio.run(run())
    if stuck:
        # A thread that is inside a library when Python ends may crash it, or hold its end up for ever.
        _end_at_once(0)
    last_resort.cancel()


def _end_at_once(exit_code: int) -> None:
    log.warning("something hangs and is left behind", extra={"exit_code": exit_code})
    logging.shutdown()
    os._exit(exit_code)


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
        self._program: _Program | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="accmpeg-server", daemon=True)

    @property
    def websocket_url(self) -> str:
        return "ws" + self.url.removeprefix("http")

    @property
    def running(self) -> Server:
        """The server in the thread, to look at from others."""
        if self._program is None:
            raise RuntimeError("the server has not been started")
        return self._program.server

    def start(self) -> Self:
        """Returns when the server listens; raises what kept it from starting. Safe to call twice."""
        if self._thread.ident is None:
            self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Drains and ends it; safe to call twice."""
        if self._program is not None:
            self._program.should_exit = True
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
        program = self._program = await _make(self.settings, listener)
        self.url = _url(self.settings, listener)
        serving = asyncio.create_task(program.serve())
        while not program.started and not serving.done():
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving


def start_server(settings: ServerSettings) -> ServerThread:
    """Starts a server in a thread of this process, for tests and notebooks.

    Args:
        settings: What to serve, and where; port 0 takes any free one.

    Returns:
        The running server: `websocket_url` is its address, `stop` (or leaving `with`) ends it.

    Raises:
        UsageError: The settings are unsafe or can't be served.
        AccmpegError: A server DNN or its weights can't be loaded, or the port can't be had.
    """
    return ServerThread(settings).start()
