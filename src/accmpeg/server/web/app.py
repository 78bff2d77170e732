"""The web application: WebSockets for cameras, subscribers and dashboards; health, metrics, DNNs, pages."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.websockets import WebSocketDisconnect

from accmpeg.errors import AccmpegError, CardError, UsageError
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.server import Server, Watcher
from accmpeg.server.session import client_of
from accmpeg.server.tokens import bearer_of
from accmpeg.server.view import Viewer
from accmpeg.server.web.admission import serve_camera
from accmpeg.server.web.guard import Guard
from accmpeg.server.web.logins import Logins
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


def make_app(server: Server, everywhere: Callable[[], Awaitable[dict[str, Any]]] | None = None) -> Any:
    """The ASGI application of one server.

    `everywhere` says what `/v1/cameras` gives where this server is one of several: the status of all.
    """
    app = FastAPI(
        title="AccMPEG server",
        version=__version__,
        description="Cameras stream to `/v1/stream`, subscribers read `/v1/results`; both are WebSockets.",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_health(server))
    logins = Logins(server.core.metrics)
    app.include_router(_data(server, logins, everywhere))
    app.include_router(_offer(server, logins))
    app.include_router(_sockets(server, logins))
    app.include_router(_pages())
    return Guard(app, loopback_only=lambda: not server.core.settings.tokens)


def _may_view(server: Server, authorization: str | None, cookie: str | None) -> bool:
    tokens = server.core.settings.tokens
    return tokens.may_view(bearer_of(authorization)) or tokens.cookie_may_view(cookie)


def _viewer(server: Server, logins: Logins) -> Any:
    """What lets viewers and administrators in."""

    async def check(
        request: Request, authorization: Authorization = None, accmpeg_viewer: ViewerCookie = None
    ) -> None:
        if not _may_view(server, authorization, accmpeg_viewer):
            await _refuse(logins, request, authorization, "a viewer's")

    return Depends(check)


def _administrator(server: Server, logins: Logins) -> Any:
    """What lets administrators in."""

    async def check(
        request: Request, authorization: Authorization = None, accmpeg_viewer: ViewerCookie = None
    ) -> None:
        tokens = server.core.settings.tokens
        if not (
            tokens.may_administer(bearer_of(authorization)) or tokens.cookie_may_administer(accmpeg_viewer)
        ):
            known = _may_view(server, authorization, accmpeg_viewer)
            await _refuse(logins, request, None if known else authorization, "an administrator's")

    return Depends(check)


async def _refuse(logins: Logins, request: Request, authorization: str | None, whose: str) -> None:
    if bearer_of(authorization) is not None:
        await logins.failed("viewer", client_of(request))
    raise HTTPException(
        401, f"{whose} token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
    )


def _health(server: Server) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether frames can be answered: 503 while the server drains, and while no DNN of it works.

        The status says so at once; the code follows where a failure has lasted for 15 s.
        """
        problem = server.problem
        dnns = {
            name: {
                "status": "failing" if workers.problem else "ready",
                "reason": workers.problem,
                **workers.identity.facts(),
                "workers": {each["worker"]: each["problem"] or "ready" for each in workers.rows()},
            }
            for name, workers in server.core.dnns.items()
        }
        return JSONResponse({"status": problem or "ready", "dnns": dnns}, 200 if server.is_ready else 503)

    return router


def _data(
    server: Server, logins: Logins, everywhere: Callable[[], Awaitable[dict[str, Any]]] | None
) -> APIRouter:
    router = APIRouter(tags=["data"])
    core = server.core
    viewer, administrator = _viewer(server, logins), _administrator(server, logins)

    @router.get("/metrics", dependencies=[viewer])
    async def metrics() -> Response:
        """Everything that is counted, for Prometheus."""
        return Response(core.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/cameras", dependencies=[viewer])
    async def cameras() -> dict[str, Any]:
        """Every camera's state with its reason, rates, recent times per stage and accuracy proxies."""
        return server.status() if everywhere is None else await everywhere()

    @router.delete("/v1/cameras/{name}", status_code=204, dependencies=[administrator])
    async def forget(name: str) -> Response:
        """Forgets a camera that is away. For administrators."""
        record = core.book.records.get(name)
        if record is None:
            raise HTTPException(404, f"there is no camera {name!r}")
        if record.is_here:
            raise HTTPException(409, f"{name} is no camera that is away: it would come back at once")
        core.book.forget(name)
        return Response(status_code=204)

    @router.get("/v1/dnns", dependencies=[viewer])
    async def dnns() -> dict[str, Any]:
        """The server DNNs, the first one first."""
        return {"dnns": [_described(name, workers) for name, workers in core.dnns.items()]}

    @router.put("/v1/dnns/{name}", dependencies=[administrator])
    async def put_dnn(
        name: str,
        card: Annotated[str, Query(max_length=500, description="A card's path inside --dnn-folder.")],
        accmodel: Annotated[
            str | None, Query(max_length=500, description="An AccModel for it, there.")
        ] = None,
        profile: Annotated[str | None, Query(max_length=500, description="A profile for it, there.")] = None,
    ) -> dict[str, Any]:
        """Loads a card under this name, new or in place of the DNN that has it. For administrators.

        Its cameras are offered the AccModel and the profile at once.
        """
        try:
            return _described(name, await server.exchange(name, card, accmodel, profile))
        except (UsageError, CardError) as error:
            raise HTTPException(400, str(error)) from None
        except AccmpegError as error:
            raise HTTPException(422, str(error)) from None

    @router.post("/v1/session", status_code=204, dependencies=[viewer])
    async def log_in(
        authorization: Authorization = None, x_forwarded_proto: Annotated[str | None, Header()] = None
    ) -> Response:
        """Changes a viewer's token for a cookie, which a browser sends with its WebSockets."""
        response = Response(status_code=204)
        token = bearer_of(authorization)
        if token is not None:
            secure = core.settings.tls_certificate is not None or x_forwarded_proto == "https"
            response.set_cookie(
                COOKIE, core.settings.tokens.cookie_of(token), httponly=True, samesite="strict", secure=secure
            )
        return response

    @router.delete("/v1/session", status_code=204)
    async def log_out() -> Response:
        """Forgets the cookie."""
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def _described(name: str, workers: DnnWorkers) -> dict[str, Any]:
    card = workers.dnn.card
    return {
        "name": name,
        **workers.identity.facts(),
        "task": card.task,
        "classes": card.classes,
        "waiting": workers.waiting,
        "problem": workers.problem,
        "workers": workers.rows(),
    }


def _offer(server: Server, logins: Logins) -> APIRouter:
    router = APIRouter(tags=["data"])

    @router.get("/v1/accmodel/{sha256}")
    async def accmodel(request: Request, sha256: str, authorization: Authorization = None) -> Response:
        """The ONNX file of the AccModel that the server offers its cameras. For cameras."""
        token, announced = bearer_of(authorization), server.core.announcements.values()
        if not server.core.settings.tokens.cameras_of(token):
            if token is not None:
                await logins.failed("camera", client_of(request))
            raise HTTPException(401, "a camera's token is needed", {"WWW-Authenticate": "Bearer"})
        for each in announced:
            if each.offer.accmodel is not None and each.offer.accmodel.sha256 == sha256:
                return Response(each.weights, media_type="application/octet-stream")
        raise HTTPException(404, "this server offers no such AccModel")

    return router


def _sockets(server: Server, logins: Logins) -> APIRouter:
    router = APIRouter()
    core, send_s = server.core, server.core.limits.send_s

    @contextlib.asynccontextmanager
    async def place(socket: WebSocket) -> AsyncIterator[Watcher | None]:
        authorization, cookie = socket.headers.get("authorization"), socket.cookies.get(COOKIE)
        watcher = Watcher(lambda: _may_view(server, authorization, cookie))
        if not watcher.may_watch():
            if bearer_of(authorization) is not None:
                await logins.failed("viewer", client_of(socket))
            await socket.close(1008, "a viewer's token is needed")
            yield None
            return
        if server.draining or len(server.watchers) >= core.limits.max_viewers:
            await socket.close(1013, "too many watch already")
            yield None
            return
        await socket.accept()
        server.watchers.add(watcher)
        try:
            yield watcher
        finally:
            server.watchers.discard(watcher)

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await serve_camera(server, logins, socket, bearer_of(socket.headers.get("authorization")))

    @router.websocket("/v1/results")
    async def results(socket: WebSocket, camera: str | None = None) -> None:
        async with place(socket) as watcher:
            if watcher is None:
                return
            subscriber = core.hub.subscribe(camera, core.limits.subscriber_queue)
            try:
                await _until_closed(
                    socket, watcher, send_s, lambda text: None, subscriber.next, socket.send_text
                )
            finally:
                core.hub.unsubscribe(subscriber)

    @router.websocket("/v1/view")
    async def view(socket: WebSocket) -> None:
        async with place(socket) as watcher:
            if watcher is None:
                return
            viewer = Viewer()
            core.gallery.viewers.append(viewer)
            core.metrics.subscribers.labels("dashboards").inc()

            def command(text: str) -> None:
                wanted = json.loads(text)
                viewer.watch(_names(wanted, "watch"), _names(wanted, "maps"))

            try:
                await _until_closed(socket, watcher, send_s, command, viewer.next, socket.send_bytes)
            finally:
                core.gallery.viewers.remove(viewer)
                core.metrics.subscribers.labels("dashboards").dec()

    return router


def _names(wanted: Any, key: str) -> frozenset[str]:
    names = wanted[key]
    if not isinstance(names, list) or len(names) > 256:
        raise ValueError(key)
    return frozenset(str(name)[:64] for name in names)


async def _until_closed(
    socket: WebSocket,
    watcher: Watcher,
    send_s: float,
    command: Callable[[str], None],
    produce: Callable[[], Awaitable[Data]],
    send: Callable[[Data], Awaitable[None]],
) -> None:
    """Sends what is produced until either side closes or the token is revoked.

    A reader that stands still for `send_s` is cut off.
    """

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
            async with asyncio.timeout(send_s):
                await send(produced)

    tasks = [asyncio.create_task(work) for work in (read(), write(), watcher.revoked.wait())]
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
    folder = resources.files("accmpeg.server.web") / "static"
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

    @router.websocket("/{path:path}")
    async def no_socket(socket: WebSocket, path: str) -> None:
        """Else it would be HTTP 403, as of a wrong token."""
        await socket.send_denial_response(PlainTextResponse(f"no WebSocket by the name /{path}", 404))

    return router
