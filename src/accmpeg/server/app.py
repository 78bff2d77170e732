"""The web application: WebSockets for cameras, subscribers and dashboards; health, metrics, DNNs, pages."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Cookie, FastAPI, Header, HTTPException, Query, WebSocket
from fastapi.responses import JSONResponse, Response
from starlette.websockets import WebSocketDisconnect

from accmpeg.errors import AccmpegError, CardError, UsageError
from accmpeg.server.admission import serve_camera
from accmpeg.server.guard import Guard
from accmpeg.server.live import Live
from accmpeg.server.tokens import bearer_of
from accmpeg.server.view import Viewer
from accmpeg.version import __version__

__all__ = ["COOKIE", "make_app"]

Data = TypeVar("Data", str, bytes)

COOKIE = "accmpeg_viewer"
COMMAND_LIMIT_BYTES = 16 << 10
_PAGES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "docs": ("docs.html", "text/html; charset=utf-8"),
    "docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}

Authorization = Annotated[str | None, Header()]
ViewerCookie = Annotated[str | None, Cookie(alias=COOKIE)]


def make_app(live: Live) -> Any:
    """The ASGI application of one server."""
    app = FastAPI(
        title="AccMPEG server",
        version=__version__,
        description="Cameras stream to `/v1/stream`, subscribers read `/v1/results`; both are WebSockets.",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_health(live))
    app.include_router(_data(live))
    app.include_router(_sockets(live))
    app.include_router(_pages())
    return Guard(app, loopback_only=not live.settings.tokens)


def _may_view(live: Live, authorization: str | None, cookie: str | None) -> bool:
    tokens = live.settings.tokens
    return tokens.may_view(bearer_of(authorization)) or tokens.cookie_may_view(cookie)


def _require_viewer(live: Live, authorization: str | None, cookie: str | None) -> None:
    if not _may_view(live, authorization, cookie):
        raise HTTPException(
            401, "a viewer's token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )


def _health(live: Live) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether cameras are taken: 503 while the server drains."""
        dead = [name for name, batcher in live.dnns.items() if not batcher.is_alive]
        ready = not live.draining and not dead
        status = "draining" if live.draining else f"dnn {dead[0]} has stopped" if dead else "ready"
        return JSONResponse({"status": status}, 200 if ready else 503)

    return router


def _data(live: Live) -> APIRouter:
    router = APIRouter(tags=["data"])

    @router.get("/metrics")
    async def metrics(authorization: Authorization = None, accmpeg_viewer: ViewerCookie = None) -> Response:
        """Everything that is counted, for Prometheus."""
        _require_viewer(live, authorization, accmpeg_viewer)
        return Response(live.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/cameras")
    async def cameras(
        authorization: Authorization = None, accmpeg_viewer: ViewerCookie = None
    ) -> dict[str, Any]:
        """Every camera's state, rates, recent times per stage and accuracy proxies."""
        _require_viewer(live, authorization, accmpeg_viewer)
        return {
            "software": f"accmpeg {__version__}",
            "uptime_s": round(time.monotonic() - live.started_s, 1),
            "draining": live.draining,
            "cameras": [record.summary() for _, record in sorted(live.book.records.items())],
        }

    @router.get("/v1/dnns")
    async def dnns(
        authorization: Authorization = None, accmpeg_viewer: ViewerCookie = None
    ) -> dict[str, Any]:
        """The server DNNs, the first one first."""
        _require_viewer(live, authorization, accmpeg_viewer)
        return {"dnns": [_described(name, batcher) for name, batcher in live.dnns.items()]}

    @router.put("/v1/dnns/{name}")
    async def put_dnn(
        name: str,
        card: Annotated[str, Query(max_length=500, description="A card's path inside --dnn-folder.")],
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Loads a card under this name, new or in place of the DNN that has it. For administrators."""
        if not live.settings.tokens.may_administer(bearer_of(authorization)):
            raise HTTPException(401, "an administrator's token is needed", {"WWW-Authenticate": "Bearer"})
        try:
            return _described(name, await live.exchange(name, card))
        except (UsageError, CardError) as error:
            raise HTTPException(400, str(error)) from None
        except AccmpegError as error:
            raise HTTPException(422, str(error)) from None

    @router.post("/v1/session", status_code=204)
    async def log_in(
        authorization: Authorization = None, x_forwarded_proto: Annotated[str | None, Header()] = None
    ) -> Response:
        """Changes a viewer's token for a cookie, which a browser sends with its WebSockets."""
        _require_viewer(live, authorization, None)
        response = Response(status_code=204)
        token = bearer_of(authorization)
        if token is not None:
            secure = live.settings.tls_certificate is not None or x_forwarded_proto == "https"
            response.set_cookie(
                COOKIE, live.settings.tokens.cookie_of(token), httponly=True, samesite="strict", secure=secure
            )
        return response

    @router.delete("/v1/session", status_code=204)
    async def log_out() -> Response:
        """Forgets the cookie."""
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def _described(name: str, batcher: Any) -> dict[str, Any]:
    card = batcher.dnn.card
    return {
        "name": name,
        "card": card.name,
        "task": card.task,
        "classes": card.classes,
        "waiting": batcher.waiting,
    }


def _sockets(live: Live) -> APIRouter:
    router = APIRouter()
    watching = 0

    @contextlib.asynccontextmanager
    async def place(socket: WebSocket) -> Any:
        nonlocal watching
        cookie = socket.cookies.get(COOKIE)
        if not _may_view(live, socket.headers.get("authorization"), cookie):
            await socket.close(1008, "a viewer's token is needed")
            yield False
            return
        if live.draining or watching >= live.limits.max_viewers:
            await socket.close(1013, "too many watch already")
            yield False
            return
        await socket.accept()
        watching += 1
        try:
            yield True
        finally:
            watching -= 1

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        token = bearer_of(socket.headers.get("authorization"))
        await serve_camera(live, socket, live.settings.tokens.cameras_of(token))

    @router.websocket("/v1/results")
    async def results(socket: WebSocket, camera: str | None = None) -> None:
        async with place(socket) as admitted:
            if not admitted:
                return
            subscriber = live.hub.subscribe(camera, live.limits.subscriber_queue)
            try:
                await _until_closed(live, socket, lambda text: None, subscriber.next, socket.send_text)
            finally:
                live.hub.unsubscribe(subscriber)

    @router.websocket("/v1/view")
    async def view(socket: WebSocket) -> None:
        async with place(socket) as admitted:
            if not admitted:
                return
            viewer = Viewer()
            live.gallery.viewers.append(viewer)
            live.metrics.subscribers.labels("dashboards").inc()

            def command(text: str) -> None:
                wanted = json.loads(text)
                viewer.watch(_names(wanted, "watch"), _names(wanted, "maps"))

            try:
                await _until_closed(live, socket, command, viewer.next, socket.send_bytes)
            finally:
                live.gallery.viewers.remove(viewer)
                live.metrics.subscribers.labels("dashboards").dec()

    return router


def _names(wanted: Any, key: str) -> frozenset[str]:
    names = wanted[key]
    if not isinstance(names, list) or len(names) > 256:
        raise ValueError(key)
    return frozenset(str(name)[:64] for name in names)


async def _until_closed(
    live: Live,
    socket: WebSocket,
    command: Callable[[str], None],
    produce: Callable[[], Awaitable[Data]],
    send: Callable[[Data], Awaitable[None]],
) -> None:
    """Sends what is produced until either side closes; a reader that stands still for `send_s` is cut off."""

    async def read() -> None:
        while True:
            event = await socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            text = event.get("text")
            if text is None or len(text) > COMMAND_LIMIT_BYTES:
                return
            try:
                command(text)
            except (ValueError, TypeError, KeyError, RecursionError):
                return

    async def write() -> None:
        while True:
            produced = await produce()
            async with asyncio.timeout(live.limits.send_s):
                await send(produced)

    tasks = [asyncio.create_task(read()), asyncio.create_task(write())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.close(1000)


def _pages() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    folder = resources.files("accmpeg.server") / "static"
    contents = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGES.items()}

    @router.get("/{path}")
    async def page(path: str) -> Response:
        if path not in contents:
            raise HTTPException(404, f"nothing here by the name /{path}")
        body, media_type = contents[path]
        return Response(body, media_type=media_type, headers={"Cache-Control": "no-cache"})

    @router.get("/")
    async def index() -> Response:
        return await page("")

    return router
