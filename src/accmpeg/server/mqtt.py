"""Results to an MQTT broker: topic `PREFIX/CAMERA`, one JSON text per result, quality of service 0."""

import asyncio
import importlib.util
import logging
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from accmpeg.errors import MissingExtraError, UsageError
from accmpeg.media.addresses import HOW_TO_ESCAPE, describe, locate
from accmpeg.server.metrics import Metrics

__all__ = ["BrokerAddress", "MqttOutlet"]

_QUEUE = 1024
_LONGEST_WAIT_S = 30.0
_LONGEST_PREFIX_BYTES = 60_000  # MQTT's strings end at 65,535, and the camera's name comes behind
_PORTS = {"mqtt": 1883, "mqtts": 8883}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokerAddress:
    """Where results are published, made by `parse`. User and password are not shown."""

    shown: str
    host: str
    port: int
    secure: bool
    prefix: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, address: str) -> Self:
        """From `mqtt://user:password@host:1883/prefix`, or `mqtts://`; without a prefix, that is `accmpeg`.

        Raises UsageError, without the secrets, for all that no broker would take, and MissingExtraError
        without aiomqtt: so this is known before anything starts.
        """
        shown = f"--mqtt {describe(address)}"
        try:
            found = locate(address)
        except UsageError as error:
            raise UsageError(f"--mqtt {error}") from None
        if found.scheme not in _PORTS or not found.host:
            raise UsageError(f"{shown}: give mqtt://host[:port]/prefix, or mqtts://…")
        if found.is_doubtful:
            raise UsageError(
                f"{shown}: an @ in the prefix is written %40; if it ends a password, {HOW_TO_ESCAPE}"
            )
        if "?" in found.path or "#" in found.path:
            raise UsageError(f"{shown}: nothing may follow the prefix, neither ? nor #")
        if found.password and not found.user:
            raise UsageError(f"{shown}: a password needs a user: mqtt://user:password@host/prefix")
        prefix = unquote(found.path).strip("/") or "accmpeg"
        if any(sign in prefix for sign in "+#") or not prefix.isprintable():
            raise UsageError(f"{shown}: a topic to publish to has no + or # in it, nor control characters")
        if prefix.startswith("$"):
            raise UsageError(f"{shown}: topics that begin with $ are the broker's own")
        if len(prefix.encode()) > _LONGEST_PREFIX_BYTES:
            raise UsageError(f"--mqtt: the prefix is longer than {_LONGEST_PREFIX_BYTES} bytes")
        if importlib.util.find_spec("aiomqtt") is None:
            raise MissingExtraError("--mqtt", "mqtt")
        return cls(
            shown=describe(address),
            host=found.host,
            port=found.port or _PORTS[found.scheme],
            secure=found.scheme == "mqtts",
            prefix=prefix,
            user=found.user or None,
            password=found.password or None,
        )


class MqttOutlet:
    """Publishes to a broker, reconnecting for ever."""

    def __init__(self, broker: BrokerAddress, metrics: Metrics) -> None:
        self._broker = broker
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
        import aiomqtt

        broker = self._broker
        wait_s = 1.0
        while True:
            try:
                async with aiomqtt.Client(
                    broker.host,
                    broker.port,
                    username=broker.user,
                    password=broker.password,
                    tls_context=ssl.create_default_context() if broker.secure else None,
                ) as client:
                    log.info("mqtt connected", extra={"broker": broker.shown})
                    wait_s = 1.0
                    await self._publish(client)
            # Beside its own errors it lets through those of sockets, TLS and names.
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                log.warning("mqtt lost, trying again", extra={"broker": broker.shown, "reason": f"{error}"})
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _publish(self, client: Any) -> None:
        while True:
            while self._texts:
                camera, text = self._texts[0]
                await client.publish(f"{self._broker.prefix}/{camera}", text)
                # Only now: one that failed goes out after the reconnection.
                if self._texts and self._texts[0] == (camera, text):
                    self._texts.popleft()
            self._there.clear()
            await self._there.wait()
