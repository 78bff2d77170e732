"""Where an MQTT broker is: its address, checked before anything opens."""

import importlib.util
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

from accmpeg.errors import MissingExtraError, UsageError
from accmpeg.media.addresses import HOW_TO_ESCAPE, describe, locate

__all__ = ["BrokerAddress"]

_LONGEST_BYTES = 65_535
"""Of a string in MQTT."""
_LONGEST_PREFIX_BYTES = 60_000  # the camera's name comes behind
_PORTS = {"mqtt": 1883, "mqtts": 8883}


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
        address = address.strip()  # of a line of a file of settings, which may end in \r
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
        for what, text in (("user", found.user or ""), ("password", found.password or "")):
            if not _is_string(text):
                raise UsageError(
                    f"{shown}: a {what} has up to {_LONGEST_BYTES} bytes of UTF-8, and no %00 in it"
                )
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


def _is_string(text: str) -> bool:
    """Whether MQTT can say it."""
    try:
        return "\0" not in text and len(text.encode()) <= _LONGEST_BYTES
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False
