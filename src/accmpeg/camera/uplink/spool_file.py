"""One file of the spool: a group of pictures that is only ever appended to.

```
DIR/0001764000000000000-000000.gop      names sort in order of time
    record = length (u32), CRC-32 (u32), body        first the stream's Hello, then its units
```
Whatever kills the writer leaves at most one torn record at the end of one file; readers stop there.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.errors import WireError
from accmpeg.protocol.wire import Hello, Unpacked, pack, unpack

__all__ = ["SUFFIX", "SpoolFile"]

SUFFIX = ".gop"

_PREFIX = struct.Struct(">II")
_LONGEST_BODY_BYTES = 16 << 20


class SpoolFile:
    """A file and how many of its units are still wanted; `release` deletes it with the last of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units = 0
        self.fd: int | None = None

    @classmethod
    def create(cls, path: Path, hello: Unpacked) -> "SpoolFile":
        """Opens a new file for a stream. Raises OSError, and leaves none behind then."""
        file = cls(path)
        try:
            file.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            _write_all(file.fd, _record(pack(hello.message, hello.payload)))
        except OSError:
            file.discard()
            raise
        return file

    def append(self, body: bytes) -> int:
        """Adds a record and returns where it is. Raises OSError, and leaves none of it behind then."""
        assert self.fd is not None
        offset = os.lseek(self.fd, 0, os.SEEK_END)
        try:
            _write_all(self.fd, _record(body))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, offset)
            raise
        return offset

    def read(self, offset: int) -> TimedUnit:
        """The unit of the record there. Raises OSError or ValueError where it is gone or damaged."""
        with self.path.open("rb") as stream:
            stream.seek(offset)
            body = _body(stream)
        if body is None:
            raise ValueError(f"{self.path} is damaged")
        return TimedUnit.from_bytes(body)[1]

    def sync(self) -> None:
        """Survives a power cut from here on."""
        if self.fd is not None:
            os.fdatasync(self.fd)

    def finish(self) -> None:
        """Nothing more is appended."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def discard(self) -> None:
        """Closes and deletes the file."""
        self.finish()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def scan(self) -> tuple[Unpacked, list[tuple[int, int, int, TimedUnit]]] | None:
        """What an earlier run left: the stream's Hello and (offset, bytes, sequence, unit) of each unit.

        None where not even one unit can be read.
        """
        hello: Unpacked | None = None
        found = []
        with contextlib.suppress(OSError, WireError, ValueError):
            for offset, body in self._records():
                if hello is None:
                    hello = unpack(body)
                    if not isinstance(hello.message, Hello):
                        return None
                else:
                    found.append((offset, len(body), *TimedUnit.from_bytes(body)))
        return (hello, found) if hello is not None and found else None

    def _records(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as stream:
            offset = 0
            while (body := _body(stream)) is not None:
                yield offset, body
                offset = stream.tell()


def _record(body: bytes) -> bytes:
    return _PREFIX.pack(len(body), zlib.crc32(body)) + body


def _body(stream: BinaryIO) -> bytes | None:
    """The next record's body, None where it is torn or there is none."""
    head = stream.read(_PREFIX.size)
    if len(head) < _PREFIX.size:
        return None
    size_bytes, crc = _PREFIX.unpack(head)
    body = stream.read(min(size_bytes, _LONGEST_BODY_BYTES))
    return body if len(body) == size_bytes and zlib.crc32(body) == crc else None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
