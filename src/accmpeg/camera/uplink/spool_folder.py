"""The spool's folder: a file for each group of pictures, only ever appended to.

```
DIR/0001764000000000000-000001.gop      names sort in order of time
    record = length (u32), CRC-32 (u32), body        first the stream's Hello, then its units
```
Whatever kills the writer leaves at most one torn record at the end of one file; readers stop there.
"""

import contextlib
import errno
import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.errors import LinkError, WireError
from accmpeg.protocol.wire import Hello, Unpacked, pack, unpack
from accmpeg.quiet import FewRepeats

__all__ = ["SpoolFile", "SpoolFolder"]

_SUFFIX = ".gop"
_TIME_DIGITS = 19
_LOCK_NAME = "lock"
_SYNC_EVERY_S = 1.0
_PREFIX = struct.Struct(">II")
_LONGEST_BODY_BYTES = 16 << 20

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class SpoolFile:
    """A file, and how many of its units are still wanted."""

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
        fd, self.fd = self.fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # what a dead disk says of earlier writes
                os.close(fd)

    def discard(self) -> None:
        """Closes and deletes the file."""
        self.finish()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def scan(self) -> tuple[Unpacked, list[tuple[int, int, int, TimedUnit]]] | None:
        """What an earlier run left: the stream's Hello and (offset, bytes, sequence, unit) of each unit.

        None where there is not even one whole unit. Raises OSError where that can't be told.
        """
        hello: Unpacked | None = None
        found = []
        try:
            for offset, body in self._records():
                if hello is None:
                    hello = unpack(body)
                    if not isinstance(hello.message, Hello):
                        return None
                else:
                    found.append((offset, len(body), *TimedUnit.from_bytes(body)))
        except OSError:
            if not found:
                raise
        except (WireError, ValueError):
            pass
        return (hello, found) if hello is not None and found else None

    def _records(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as stream:
            offset = 0
            while (body := _body(stream)) is not None:
                yield offset, body
                offset = stream.tell()


class SpoolFolder:
    """The files of one camera. Raises LinkError for a folder that another one uses or that can't be made."""

    def __init__(self, path: Path) -> None:
        self.current: SpoolFile | None = None
        """That of the group which units are added to; None where that group is not on disk."""
        self._path = path
        self._lock_fd = _claim(path)
        self._ended: list[SpoolFile] = []
        """Files of ended groups, still to be synced."""
        self._number = 0
        names = (file.name[:_TIME_DIGITS] for file in path.glob(f"*{_SUFFIX}"))
        self._latest_us = max((int(name) for name in names if name.isdecimal()), default=0)
        """Of the newest file's name: the clock may be set back, and files sort in the order of frames."""
        self._synced_s = time.monotonic()

    def earlier(self) -> Iterator[tuple[SpoolFile, Unpacked, list[tuple[int, int, int, TimedUnit]]]]:
        """The files that earlier runs left, in order of time, and what is in them; useless ones go.

        One that can't be read stays: another user's run may have left it.
        """
        for path in sorted(self._path.glob(f"*{_SUFFIX}")):
            file = SpoolFile(path)
            try:
                found = file.scan()
            except OSError as error:
                said = {"file": str(path), "reason": error.strerror}
                log.warning(
                    "frames of an earlier run can't be read: they stay for the next start", extra=said
                )
                continue
            if found is None:
                file.discard()
            else:
                yield file, *found

    def append(self, hello: Unpacked, body: bytes) -> tuple[SpoolFile, int]:
        """Adds a unit to the present group; returns where it is. Raises OSError, and may be tried again."""
        if self.current is None:
            self._number += 1
            self._latest_us = max(self._latest_us + 1, time.time_ns() // 1000)
            name = f"{self._latest_us:0{_TIME_DIGITS}d}-{self._number:06d}{_SUFFIX}"
            self.current = SpoolFile.create(self._path / name, hello)
        offset = self.current.append(body)
        if time.monotonic() - self._synced_s > _SYNC_EVERY_S:
            self._synced_s = time.monotonic()
            self.current.sync()
            self._finish_ended()
        self.current.units += 1
        return self.current, offset

    def end_group(self) -> None:
        """The next unit begins another file."""
        if self.current is not None:
            self._ended.append(self.current)
        self.current = None

    def leave_group(self) -> None:
        """What follows of the present group is not kept here."""
        file, self.current = self.current, None
        if file is not None:
            file.finish()
            if not file.units:
                file.discard()

    def release(self, file: SpoolFile) -> None:
        """A unit of a file is not wanted any more; the last one takes the file with it."""
        file.units -= 1
        if not file.units and file is not self.current:
            file.discard()

    def close(self) -> None:
        """Lets another camera use the folder."""
        self.end_group()
        while self._ended:
            with contextlib.suppress(OSError):  # a disk that died
                self._finish_ended()
        os.close(self._lock_fd)

    def _finish_ended(self) -> None:
        while self._ended:
            file = self._ended.pop()
            try:
                file.sync()
            finally:
                file.finish()


def _claim(folder: Path) -> int:
    """Locks the folder for this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LinkError(f"can't use {folder} as a spool: {error.strerror or error}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_fd)
        if error.errno == errno.EWOULDBLOCK:
            raise LinkError(f"the spool {folder} is in use: give each camera a folder of its own") from error
        raise LinkError(f"can't lock {folder}: {error.strerror}; give a spool on a local disk") from error
    return lock_fd


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
