"""A camera's messages as they come off its WebSocket, and what is not taken of them."""

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from accmpeg.errors import WireError
from accmpeg.protocol.wire import VERSION, Refused, Unpacked, unpack
from accmpeg.server.memory import MemoryBudget
from accmpeg.server.settings import Limits

__all__ = ["RefusalError", "check_size", "client_of", "memory_refusal", "receive", "unpacked"]


class RefusalError(Exception):
    """Ends a connection with a `Refused`."""

    def __init__(self, code: str, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.message = Refused(code=code, reason=reason[:500], retry=retry)  # type: ignore[arg-type]


async def receive(socket: WebSocket) -> bytes:
    """The next binary message; raises `WebSocketDisconnect`, or `RefusalError` for a text."""
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1006))
    data = event.get("bytes")
    if data is None:
        raise RefusalError("protocol", "messages are binary, a text came")
    return bytes(data)


def unpacked(data: bytes) -> Unpacked:
    """The message in these bytes; raises `RefusalError` that says what is wrong with them."""
    try:
        return unpack(data)
    except WireError as error:
        other_version = data[:2] == b"AM" and len(data) > 2 and data[2] != VERSION
        raise RefusalError("version" if other_version else "protocol", str(error)) from None


def client_of(connection: HTTPConnection) -> str:
    """The address at the other end."""
    return connection.client.host if connection.client is not None else ""


def memory_refusal(memory: MemoryBudget, pixels: int) -> RefusalError:
    """For a camera that does not fit in."""
    return RefusalError(
        "busy",
        f"frames of {pixels / 1e6:.1f} megapixels do not fit in beside the other cameras: the server's "
        f"--memory is {memory.total_bytes / 2**20:.0f} MiB, for {memory.cameras_of(pixels)} such cameras",
        retry=True,
    )


def check_size(limits: Limits, size_px: tuple[int, int]) -> None:
    """Raises `RefusalError` for frames that are too large."""
    if size_px[0] * size_px[1] > limits.max_frame_pixels:
        raise RefusalError(
            "size",
            f"{size_px[0]}x{size_px[1]} px are above the limit of {limits.max_frame_pixels} pixels",
        )
