"""Who may stream: from the WebSocket's handshake to a `Welcome` or a `Refused`."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from accmpeg.protocol.wire import SUBPROTOCOL, Hello, pack
from accmpeg.quiet import FewRepeats
from accmpeg.server.refusal import RefusalError, check_size
from accmpeg.server.server import Server
from accmpeg.server.session import Session, client_of, receive
from accmpeg.server.tokens import ANY_CAMERA
from accmpeg.server.web.logins import Logins

__all__ = ["serve_camera"]

LINGER_S = 2.0
RIVAL_WAIT_S = 2.0
"""A camera that was started anew waits so long for the end of the connection that it had before."""
HEARD_S = 12.0
"""A connection that said something so lately is alive: cameras ask for the time every 5 s."""

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


async def serve_camera(server: Server, logins: Logins, socket: WebSocket, token: str | None) -> None:
    """Serves one connection to its end."""
    client, core = client_of(socket), server.core

    def allowed() -> frozenset[str]:
        return core.settings.tokens.cameras_of(token)

    knows_us = SUBPROTOCOL in socket.scope.get("subprotocols", [])
    await socket.accept(subprotocol=SUBPROTOCOL if knows_us else None)
    camera = ""
    try:
        if not allowed():
            if token is not None:
                await logins.failed("camera", client)
            raise RefusalError("auth", "the token is missing or not known: give the one of this camera")
        if not knows_us:
            raise RefusalError("version", f"this server speaks {SUBPROTOCOL}: update the other side")
        hello = await _hello(server, socket)
        camera = hello[0].camera
        session = await _admit(server, socket, hello, allowed)
    except RefusalError as refusal:
        core.metrics.refused.labels(refusal.message.code).inc()
        log.warning(
            "camera refused",
            extra={
                "camera": camera,
                "client": client,
                "code": refusal.message.code,
                "reason": refusal.message.reason,
            },
        )
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(core.limits.send_s):
                await socket.send_bytes(pack(refusal.message))
            if not camera:
                # Its hello is on its way: a client that sends into a closed connection never reads why.
                with contextlib.suppress(RefusalError, TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        await receive(socket)
            async with asyncio.timeout(core.limits.send_s):
                await socket.close(1008)
        return
    except WebSocketDisconnect:
        return
    try:
        await session.run()
    finally:
        if server.sessions.get(session.key) is session:
            del server.sessions[session.key]
            core.memory.give_back(session.key)
            if not session.hello.probe:
                core.book.record(camera).left(session.end_reason)
        session.finished.set()


async def _hello(server: Server, socket: WebSocket) -> tuple[Hello, bytes]:
    try:
        async with asyncio.timeout(server.core.limits.handshake_s):
            come = await receive(socket)
    except TimeoutError:
        raise RefusalError(
            "protocol", f"no hello within {server.core.limits.handshake_s:.0f} s", retry=True
        ) from None
    if not isinstance(come.message, Hello):
        raise RefusalError("protocol", f"the first message is a hello, not {type(come.message).__name__}")
    return come.message, bytes(come.payload)


async def _admit(
    server: Server,
    socket: WebSocket,
    greeting: tuple[Hello, bytes],
    allowed: Callable[[], frozenset[str]],
) -> Session:
    (hello, parameter_sets), core = greeting, server.core

    def may_stream() -> bool:
        return bool({ANY_CAMERA, hello.camera} & allowed())

    if not hello.probe:
        await _wait_for_namesake(server, hello)  # first: what is checked after it still holds at the end
    if not may_stream():
        raise RefusalError("auth", f"the token is not that of camera {hello.camera}")
    if server.draining:
        raise RefusalError("busy", "the server is going down", retry=True)
    if hello.dnn is not None and hello.dnn not in core.dnns:
        raise RefusalError("dnn", f"no server DNN {hello.dnn} here, only {', '.join(core.dnns)}")
    check_size(core.limits, (hello.width_px, hello.height_px))
    if hello.width_px * hello.height_px * hello.frame_rate > core.limits.max_pixels_per_s:
        raise RefusalError("size", f"{hello.frame_rate:g} frames/s of this size are above the limit")
    if not hello.probe:
        _check_name(server, hello, client_of(socket))
    key = f"? {hello.camera}" if hello.probe else hello.camera  # no camera may have that name
    before = server.sessions.get(key)
    if before is None and len(server.sessions) >= core.limits.max_cameras:
        raise RefusalError("busy", f"{core.limits.max_cameras} cameras are here already", retry=True)
    # A camera that comes back has the place of its old connection.
    core.memory.reserve(key, hello.width_px * hello.height_px)
    session = Session(core, socket, hello, parameter_sets, key=key, may_stream=may_stream)
    server.sessions[key] = session
    if before is not None:
        # A camera whose link broke comes back before its old connection is known to be dead.
        await before.yield_to_successor()
        if server.sessions.get(key) is not session:
            session.finished.set()
            raise RefusalError("busy", "another connection of this camera came", retry=False)
    return session


async def _wait_for_namesake(server: Server, hello: Hello) -> None:
    """A camera that was started anew finds the connection that it had before."""
    before = server.sessions.get(hello.camera)
    if before is not None and before.hello.stream_id != hello.stream_id:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RIVAL_WAIT_S):
                await before.finished.wait()


def _check_name(server: Server, hello: Hello, client: str) -> None:
    """Refuses a second camera of one name; a camera that comes back, or was started anew, is none."""
    if hello.camera in server.pulls:
        raise RefusalError(
            "busy",
            f"the server has an input of the same name, {hello.camera}: give this camera another --name",
        )
    before = server.sessions.get(hello.camera)
    if before is None or before.hello.stream_id == hello.stream_id or before.is_ending:
        return
    if time.monotonic() - before.heard_s < HEARD_S:
        server.core.book.record(hello.camera).refused_rival(client)
        raise RefusalError(
            "busy",
            f"a camera of the same name, {hello.camera}, streams already, from {before.client}: give one of "
            "the two another --name",
            retry=True,
        )
