"""A bare client of the server, and a real encoder's stream for it to send."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.protocol.wire import (
    SUBPROTOCOL,
    AccessUnitMessage,
    Hello,
    Message,
    ResultMessage,
    Welcome,
    pack,
    unpack,
)
from accmpeg.server import ServerSettings, ServerThread, Tokens

WAIT_S = 60.0
"""A hung server fails a test after so long; nothing else depends on it."""


@dataclass(frozen=True)
class Recorded:
    """An encoded stream."""

    units: list[AccessUnit]
    width_px: int
    height_px: int


def record(*, width_px: int = 320, height_px: int = 180, frames: int = 40, gop_frames: int = 10) -> Recorded:
    """The embedded scene through libx264."""
    scene = SceneSource(SceneSpec(87, width_px, height_px, frame_count=frames))
    settings = EncoderSettings.for_source(scene.info, crf=28, gop_frames=gop_frames, steerable=False)
    with Encoder(settings) as encoder:
        units = [unit for frame in scene for unit in encoder.encode(frame)] + encoder.flush()
    return Recorded(units, width_px, height_px)


def settings_of(card: Path, **changes: Any) -> ServerSettings:
    return ServerSettings(**{"dnns": (card,), "port": 0, "threads": 1, **changes})


def tokens(**cameras: str) -> Tokens:
    return Tokens({"cameras": cameras, "viewers": {"v": VIEWER}, "admins": {"a": ADMIN}})


VIEWER = "viewer-token-0123456789"
ADMIN = "admin-token-0123456789"


class Camera:
    """A client that says what it is told to, right or wrong."""

    def __init__(
        self,
        server: ServerThread,
        recorded: Recorded | None = None,
        *,
        token: str | None = None,
        **hello: Any,
    ) -> None:
        self.recorded = recorded
        headers = {"Authorization": f"Bearer {token}"} if token else None
        self.socket: ClientConnection = connect(
            f"{server.websocket_url}/v1/stream",
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            additional_headers=headers,
            max_size=None,
            compression=None,
            open_timeout=WAIT_S,
            ping_interval=None,  # a test that does not read for long is no dead client
        )
        self.others: list[Message] = []
        self.hello = hello

    def greet(self) -> Message:
        """Says hello and gives what came back: a `Welcome` or a `Refused`."""
        with contextlib.suppress(ConnectionClosed):  # refused before it could say anything
            self.send(hello_of(self.recorded, **self.hello))
        return self.receive()

    def welcome(self) -> Welcome:
        message = self.greet()
        assert isinstance(message, Welcome), message
        return message

    def send(self, message: Message, payload: bytes = b"") -> None:
        self.socket.send(pack(message, payload))

    def send_frames(self, first: int, count: int, *, sequence: int | None = None) -> None:
        assert self.recorded is not None
        for i in range(first, first + count):
            unit = self.recorded.units[i]
            number = i if sequence is None else sequence + i - first
            self.send(unit_message(number, unit), unit.data)

    def receive(self) -> Message:
        data = self.socket.recv(timeout=WAIT_S)
        assert isinstance(data, bytes)
        return unpack(data).message

    def results(self, count: int) -> list[ResultMessage]:
        """The next so many answers; other messages are kept in `others`."""
        found: list[ResultMessage] = []
        while len(found) < count:
            message = self.receive()
            if isinstance(message, ResultMessage):
                found.append(message)
            else:
                self.others.append(message)
        return found

    def wait_for(self, kind: type[Message]) -> Message:
        """The next message of a kind."""
        while not isinstance(message := self.receive(), kind):
            self.others.append(message)
        return message

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hello_of(recorded: Recorded | None = None, **changes: Any) -> Hello:
    width_px, height_px = (recorded.width_px, recorded.height_px) if recorded else (320, 180)
    values: dict[str, Any] = {
        "camera": "gate",
        "stream_id": "run-1",
        "codec": "h264",
        "width_px": width_px,
        "height_px": height_px,
        "source_width_px": 2 * width_px,
        "source_height_px": 2 * height_px,
        "frame_rate": 30.0,
        "time_base": (1, 30),
        "drop": "none",
    }
    return Hello(**{**values, **changes})


def unit_message(sequence: int, unit: AccessUnit, **changes: Any) -> AccessUnitMessage:
    values: dict[str, Any] = {
        "sequence": sequence,
        "pts": unit.pts,
        "is_keyframe": unit.is_keyframe,
        "captured_us": 1000 * sequence,
        "encoded_us": 1000 * sequence + 500,
    }
    return AccessUnitMessage(**{**values, **changes})
