"""What the server does not take of a camera, and what it says then."""

from accmpeg.protocol.wire import Refused
from accmpeg.server.settings import Limits

__all__ = ["RefusalError", "check_size"]


class RefusalError(Exception):
    """Ends a connection with a `Refused`."""

    def __init__(self, code: str, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.message = Refused(code=code, reason=reason[:500], retry=retry)  # type: ignore[arg-type]


def check_size(limits: Limits, size_px: tuple[int, int]) -> None:
    """Raises `RefusalError` for frames that are too large."""
    if size_px[0] * size_px[1] > limits.max_frame_pixels:
        raise RefusalError(
            "size",
            f"{size_px[0]}x{size_px[1]} px are above the limit of {limits.max_frame_pixels} pixels",
        )
