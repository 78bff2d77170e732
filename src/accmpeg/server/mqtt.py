"""Results to an MQTT broker: topic `PREFIX/CAMERA`, one JSON text per result, quality of service 0."""

import asyncio
import logging
import math
import ssl
import time
from collections import deque
from typing import Any

from accmpeg.protocol.backoff import Backoff
from accmpeg.quiet import FewRepeats
from accmpeg.server.broker import BrokerAddress
from accmpeg.server.changes import Changes
from accmpeg.server.metrics import Metrics

__all__ = ["MqttOutlet"]

_QUEUE = 1024

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class MqttOutlet:
    """Publishes to a broker, reconnecting for ever."""

    def __init__(self, broker: BrokerAddress, metrics: Metrics) -> None:
        self._broker = broker
        self._lost = metrics.lost.labels("mqtt")
        self._texts: deque[tuple[str, str]] = deque(maxlen=_QUEUE)
        self._changes = Changes()

    def offer(self, camera: str, text: str) -> None:
        if len(self._texts) == self._texts.maxlen:
            self._lost.inc()
        self._texts.append((camera, text))
        self._changes.notify()

    async def run(self) -> None:
        """Connects and publishes until cancelled."""
        import aiomqtt

        broker = self._broker
        backoff, wait_s = Backoff(), 0.0
        while True:
            since_s = math.inf
            try:
                async with aiomqtt.Client(
                    broker.host,
                    broker.port,
                    username=broker.user,
                    password=broker.password,
                    tls_context=ssl.create_default_context() if broker.secure else None,
                ) as client:
                    log.info("mqtt connected", extra={"broker": broker.shown})
                    since_s = time.monotonic()
                    await self._publish(client)
            # Beside its own errors it lets through those of sockets, TLS and names.
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                log.warning("mqtt lost, trying again", extra={"broker": broker.shown, "reason": f"{error}"})
            # A broker that takes the connection and not the results must not be asked each second for ever.
            if time.monotonic() - since_s > wait_s:
                backoff.succeeded()
            wait_s = backoff.failed()
            await asyncio.sleep(wait_s)

    async def _publish(self, client: Any) -> None:
        while True:
            await self._changes.until(lambda: self._texts)
            camera, text = self._texts[0]
            await client.publish(f"{self._broker.prefix}/{camera}", text)
            # Only now: one that failed goes out after the reconnection.
            if self._texts and self._texts[0] == (camera, text):
                self._texts.popleft()
