"""A pipe that FFmpeg reads through Python, so that Ctrl-C ends it."""

from collections.abc import Generator
from io import FileIO
from typing import Any

__all__ = ["Pipe"]


class Pipe(FileIO):
    """FFmpeg's own read of a pipe that is silent does not end with Ctrl-C; PyAV takes this in its place.

    PyAV loses a KeyboardInterrupt that leaves `read`: here the pipe ends by it, and `end` raises it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._interrupted = False
        self.received_bytes = 0
        reads = self._reads()
        next(reads)
        # Not a method: Python may raise KeyboardInterrupt on entering one, before any `try` in it. A
        # generator goes on within its own.
        self.read: Any = reads.send

    def _reads(self) -> Generator[bytes, int, None]:
        try:
            size = yield b""
            while True:
                data = super().read(size)
                self.received_bytes += len(data)
                size = yield data
        except KeyboardInterrupt:
            self._interrupted = True
        while True:
            yield b""

    def way_out(self, format_name: str = "") -> str:
        """Why no video came out of it, and what helps, to be read on after a colon."""
        if not self.received_bytes:
            return "nothing came through it"
        if "mp4" in format_name:
            return "MP4 comes through a pipe only with its index (the moov box) first: give the file, or mkv"
        return "through a pipe comes what tells its own kind and size, such as mkv, ts, y4m, h264 or mjpeg"

    def end(self) -> None:
        """Raises KeyboardInterrupt where that is what ended the pipe."""
        if self._interrupted:
            raise KeyboardInterrupt
