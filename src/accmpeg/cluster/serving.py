"""The server as a deployment of Ray Serve: replicas of the same application, behind Ray's proxies.

```
camera ═ WebSocket ═▶ proxy (head, or every node) ═▶ replica: session ─▶ decoder ─▶ batcher ─▶ DNN
                                                        (on the node that has the GPU; frames stay there)
```

A WebSocket stays with its replica. When the replica or its node dies the WebSocket breaks, and the camera
comes back through the proxy to another one, as it does to a server that was started again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException

from accmpeg.cluster.scaling import CamerasAndDelay, Scale, longest_wait_ms
from accmpeg.errors import ClusterError, one_line
from accmpeg.server.run import open_server
from accmpeg.server.settings import ServerSettings
from accmpeg.server.status import joined
from accmpeg.server.web.app import make_app

__all__ = ["Proxies", "application", "remove", "start", "state"]

Proxies = Literal["head", "every"]
"""Where cameras can connect: the head alone, or every node that has a replica, and the head."""

APPLICATION = "accmpeg"
DEPLOYMENT = "Server"
STATUS_S = 1.0
"""What the replicas say of themselves is asked for no more often, however many dashboards watch."""
ANSWER_S = 3.0
_LAST = slice(-300, None)
"""Of what Ray says: it tells in paragraphs, and last of what happened last."""


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Replica:
    """One server, made in its replica's event loop."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, settings: ServerSettings, set_up_logs: Callable[[], None]
    ) -> None:
        set_up_logs()
        self._server = await open_server(settings)
        context = serve.get_replica_context()
        self._name, self._application = context.replica_id.unique_id, context.app_name
        self._told: dict[str, Any] = {}
        self._told_s = float("-inf")
        self._asking = asyncio.Lock()

    def __serve_build_asgi_app__(self) -> Any:
        return make_app(self._server, self._everywhere)

    async def status(self) -> tuple[str, dict[str, Any]]:
        """Its name, and what it says of itself."""
        return self._name, self._server.status()

    async def drain(self) -> None:
        """Answers what has come, and says goodbye to its cameras."""
        await self._server.drain()

    def check_health(self) -> None:
        """Raises where only a new process helps; Ray Serve then replaces this one."""
        if self._server.is_stuck:
            raise RuntimeError(self._server.problem)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `CamerasAndDelay` decides by."""
        wait_ms = longest_wait_ms(self._server.core.book.present(), time.monotonic())
        return {"cameras": float(len(self._server.sessions)), "queue_ms": wait_ms}

    async def __del__(self) -> None:
        await self._server.close()

    async def _everywhere(self) -> dict[str, Any]:
        """What all replicas say, as one server's status; those that don't answer are left out."""
        async with self._asking:
            if time.monotonic() - self._told_s > STATUS_S:
                handle = serve.get_deployment_handle(DEPLOYMENT, self._application)
                try:
                    answers = await handle.broadcast("status").results_async(
                        timeout_s=ANSWER_S, return_exceptions=True
                    )
                except (TimeoutError, RayServeException):
                    answers = []
                found: dict[str, dict[str, Any]] = dict(each for each in answers if isinstance(each, tuple))
                self._told = joined({**found, self._name: self._server.status()})
                self._told_s = time.monotonic()
        return self._told


def application(settings: ServerSettings, scale: Scale, set_up_logs: Callable[[], None]) -> Application:
    """What `serve.run` deploys: each connected camera is an ongoing request of its replica.

    `set_up_logs` is called in each replica, whose stderr Ray keeps. Raises `UsageError` for settings that a
    cluster can't serve.
    """
    settings.check()
    scale.check(settings)
    if settings.device == "cpu" and settings.copies is None and settings.threads is None:
        # A replica sees all cores of its node, and has its share of them.
        settings = replace(settings, copies=max(1, int(scale.cpus)), threads=1)
    limits = settings.limits
    deployment: Any = Replica
    bound: Application = deployment.options(
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            initial_replicas=scale.min_replicas,
            max_replicas=scale.max_replicas,
            upscale_delay_s=10.0,
            look_back_period_s=10.0,
            metrics_interval_s=2.0,
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function=CamerasAndDelay,
                policy_kwargs={"cameras_each": scale.cameras_per_replica, "allowed_ms": scale.queue_ms},
            ),
        ),
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        # Sockets of cameras and viewers last for days, and requests for pages must find a place beside them.
        max_ongoing_requests=limits.max_cameras + limits.max_viewers + 16,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.drain_s,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
    ).bind(settings, set_up_logs)
    return bound


def start(application: Application, settings: ServerSettings, scale: Scale, proxies: Proxies) -> None:
    """Deploys to the cluster that this process is connected to, in place of what it ran so far.

    Returns when the replicas serve. Raises `ClusterError` where no node has room for one, or one fails.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]  # type: ignore[no-untyped-call]
    wanted = {"CPU": scale.cpus, "GPU": scale.gpus}
    if not any(all(node.get(kind, 0) >= share for kind, share in wanted.items()) for node in nodes):
        raise ClusterError(
            f"no node of the Ray cluster has {scale.cpus:g} CPUs and {scale.gpus:g} GPUs for a replica: "
            "give smaller --cpus and --gpus, or start such a node"
        )
    certificate, key = settings.tls_certificate, settings.tls_key
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly if proxies == "head" else ProxyLocation.EveryNode,
            http_options=HTTPOptions(
                host=settings.host,
                port=settings.port,
                ssl_certfile=str(certificate) if certificate is not None else None,
                ssl_keyfile=str(key) if key is not None else None,
            ),
        )
    except (RayError, RuntimeError) as error:
        raise ClusterError(
            f"Ray Serve's proxy does not start on {settings.host}:{settings.port} of the head; is the port "
            f"free there? {one_line(error, _LAST)}"
        ) from error
    is_new = state()[0] == "GONE"
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except (RayError, RuntimeError) as error:
        message = state()[1]
        if is_new:  # else what ran before goes on where it can
            remove()
        raise ClusterError(f"the replicas do not start: {one_line(message or error, _LAST)}") from error


def state() -> tuple[str, str]:
    """How the application is doing, in Ray Serve's words: `RUNNING`, …, and why."""
    found = serve.status().applications.get(APPLICATION)
    return ("GONE", "") if found is None else (found.status.value, found.message)


def remove() -> None:
    """Says goodbye to the cameras, and ends the replicas."""
    with contextlib.suppress(TimeoutError, RayServeException):
        handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
        handle.broadcast("drain").results(timeout_s=60.0, return_exceptions=True)
    serve.delete(APPLICATION)
