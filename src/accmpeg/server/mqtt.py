"""Results to an MQTT broker: topic `PREFIX/CAMERA`, one JSON text per result, quality of service 0."""

import asyncio
import logging
import ssl
from collections import deque
from typing import Any
from urllib.parse import unquote, urlsplit

from accmpeg.errors import MissingExtraError, UsageError
from accmpeg.media.addresses import describe
from accmpeg.server.metrics import Metrics

__all__ = ["MqttOutlet"]

_QUEUE = 1024
_LONGEST_WAIT_S = 30.0

log = logging.getLogger(__name__)


class MqttOutlet:
    """Publishes to `mqtt://user:password@host:1883/prefix` (or `mqtts://`), reconnecting for ever.

    Raises `UsageError` for another kind of address, `MissingExtraError` without aiomqtt.
    """

    def __init__(self, address: str, metrics: Metrics) -> None:
        try:
            import aiomqtt
        except ModuleNotFoundError as error:
            raise MissingExtraError("--mqtt", "mqtt") from error
        parts = urlsplit(address)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise UsageError(f"--mqtt {describe(address)}: give mqtt://host[:port]/prefix, or mqtts://…")
        self._aiomqtt = aiomqtt
        self._name = describe(address)
        secure = parts.scheme == "mqtts"
        self._options: dict[str, Any] = {
            "hostname": parts.hostname,
            "port": parts.port or (8883 if secure else 1883),
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "tls_context": ssl.create_default_context() if secure else None,
        }
        self._prefix = parts.path.strip("/") or "accmpeg"
        self._lost = metrics.lost.labels("mqtt")
        self._texts: deque[tuple[str, str]] = deque(maxlen=_QUEUE)
        self._there = asyncio.Event()

    def offer(self, camera: str, text: str) -> None:
        if len(self._texts) == self._texts.maxlen:
            self._lost.inc()
        self._texts.append((camera, text))
        self._there.set()

    async def run(self) -> None:
        """Connects and publishes until cancelled."""
        wait_s = 1.0
        while True:
            try:
                async with self._aiomqtt.Client(**self._options) as client:
                    log.info("mqtt connected", extra={"broker": self._name})
                    wait_s = 1.0
                    await self._publish(client)
            except self._aiomqtt.MqttError as error:
                log.warning("mqtt lost, trying again", extra={"broker": self._name, "reason": f"{error}"})
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _publish(self, client: Any) -> None:
        while True:
            while self._texts:
                camera, text = self._texts[0]
                await client.publish(f"{self._prefix}/{camera}", text)
                # Only now: one that failed goes out after the reconnection.
                if self._texts and self._texts[0] == (camera, text):
                    self._texts.popleft()
            self._there.clear()
            await self._there.wait()
