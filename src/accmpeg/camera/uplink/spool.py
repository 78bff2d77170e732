"""Coded frames between the encoder and the link, in memory or, so that an outage loses nothing, on disk.

```
DIR/0001764000000000000-000000.gop      one file per group of pictures; names sort in order of time
    record = length (u32), CRC-32 (u32), wire message        first a Hello, then access units
```
Files are only ever appended to, so whatever kills the writer leaves at most one torn record at the end of
one file; readers stop there. Frames go in once and come out in order; they stay until they are
acknowledged. When the bound or the disk is full the oldest group of pictures goes first, whole, because its
later frames mean nothing without the earlier ones. When the disk can't be written at all, frames pass
through memory as they do without a folder. A process that dies without the machine loses nothing; a power
cut may take what the last second brought.
"""

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from accmpeg.errors import LinkError, WireError
from accmpeg.protocol.wire import AccessUnitMessage, Hello, Unpacked, pack, unpack

__all__ = ["Spool"]

_FRAME = struct.Struct(">II")
_SUFFIX = ".gop"
_LOCK_NAME = "lock"
_SYNC_EVERY_S = 1.0
_LONGEST_SEGMENT_FRAMES = 1000


@dataclass(slots=True)
class _Entry:
    sequence: int
    encoded_us: int
    is_keyframe: bool
    offset: int
    size_bytes: int
    data: bytes | None = None
    """The message itself where it is held in memory."""


@dataclass(slots=True)
class _Segment:
    stream_id: str
    hello: bytes
    path: Path | None
    entries: list[_Entry] = field(default_factory=list)
    size_bytes: int = 0
    fd: int | None = None

    @property
    def starts_with_keyframe(self) -> bool:
        return bool(self.entries) and self.entries[0].is_keyframe


class Spool:
    """A queue of access units; `append` may be called from another thread than the rest.

    `folder` None keeps everything in memory. `limit_bytes` bounds what is held, `memory_limit_bytes` what is
    held in memory. `repeats`: whether frames may be asked for again (`rewind`), for which groups of pictures
    stay whole; otherwise every frame goes once it is acknowledged. Raises LinkError for a folder that another
    camera uses or that can't be made.
    """

    def __init__(
        self,
        folder: Path | None,
        limit_bytes: int = 256 << 20,
        *,
        memory_limit_bytes: int = 16 << 20,
        repeats: bool = True,
    ) -> None:
        self.dropped_frames = 0
        """Frames that the bound, a full disk or damage took."""
        self.disk_failures = 0
        self._folder = folder
        self._repeats = repeats
        self._limit_bytes = limit_bytes
        self._memory_limit_bytes = memory_limit_bytes
        self._lock = threading.RLock()
        self._segments: list[_Segment] = []
        self._cursor = (0, 0)
        self._sent_and_gone: list[tuple[str, int]] = []
        """Frames that gave way after they had been sent: lost only if they have to be sent again."""
        self._hello: tuple[str, bytes] = ("", b"")
        self._number = 0
        self._synced_s = time.monotonic()
        self._lock_fd: int | None = None
        if folder is not None:
            self._claim(folder)
            for path in sorted(folder.glob(f"*{_SUFFIX}")):
                segment = _scan(path)
                if segment is None:
                    path.unlink(missing_ok=True)
                else:
                    self._segments.append(segment)
            self._make_room(0)

    def begin(self, hello: Hello, parameter_sets: bytes = b"") -> None:
        """Names the stream that what is appended from now on belongs to."""
        self._hello = (hello.stream_id, pack(hello, parameter_sets))

    def append(self, message: AccessUnitMessage, payload: bytes) -> None:
        """Adds one coded frame; never raises for a full disk."""
        data = pack(message, payload)
        with self._lock:
            self._make_room(len(data) + _FRAME.size)
            segment = self._segments[-1] if self._segments else None
            if (
                segment is None
                or segment.stream_id != self._hello[0]
                or message.is_keyframe
                or len(segment.entries) >= _LONGEST_SEGMENT_FRAMES
            ):
                segment = self._open_segment()
            entry = _Entry(message.sequence, message.encoded_us, message.is_keyframe, 0, len(data))
            if segment.fd is None or not self._write(segment, entry, data):
                if segment.path is not None:
                    segment = self._open_segment(in_memory=True)
                entry.data = data
            segment.entries.append(entry)
            segment.size_bytes += len(data)

    def streams(self) -> list[str]:
        """The streams that have frames to send or acknowledge, oldest first."""
        with self._lock:
            return list(dict.fromkeys(segment.stream_id for segment in self._segments if segment.entries))

    def newest_sequence(self, stream_id: str) -> int | None:
        """The sequence of the last frame held of a stream, None where there is none."""
        with self._lock:
            held = [
                each.entries[-1].sequence
                for each in self._segments
                if each.stream_id == stream_id and each.entries
            ]
            return held[-1] if held else None

    def current_hello(self) -> Unpacked:
        """What `begin` was given."""
        return unpack(self._hello[1])

    def hello_of(self, stream_id: str) -> Unpacked | None:
        """The Hello that a stream was begun with; None once nothing is held of it."""
        with self._lock:
            held = (each.hello for each in self._segments if each.stream_id == stream_id)
            found = next(held, None)
        return None if found is None else unpack(found)

    def peek_encoded_us(self, stream_id: str) -> int | None:
        """When the next frame to send had been encoded, None when there is none."""
        with self._lock:
            entry = self._at_cursor(stream_id)
            return None if entry is None else entry[1].encoded_us

    def next(self, stream_id: str) -> Unpacked | None:
        """The next frame of a stream to send, or None. Damage takes the rest of a group of pictures."""
        with self._lock:
            while (found := self._at_cursor(stream_id)) is not None:
                segment, entry = found
                index, position = self._cursor
                try:
                    unpacked = unpack(self._read(segment, entry))
                except (OSError, WireError):
                    self.dropped_frames += len(segment.entries) - position
                    del segment.entries[position:]
                    continue
                self._cursor = (index, position + 1)
                return unpacked
            return None

    def rewind(self, stream_id: str, after_sequence: int, *, to_keyframe: bool) -> None:
        """Goes back to the first frame of a stream after `after_sequence`.

        `to_keyframe`: to the keyframe that this frame needs, for a receiver that knows nothing of the stream.
        """
        with self._lock:
            gone = [each for each in self._sent_and_gone if each[0] == stream_id and each[1] > after_sequence]
            self.dropped_frames += len(gone)
            self._sent_and_gone.clear()
            start: tuple[int, int] | None = None
            for index, segment in enumerate(self._segments):
                for position, entry in enumerate(segment.entries):
                    if segment.stream_id != stream_id:
                        continue
                    if start is None or (to_keyframe and entry.is_keyframe):
                        start = (index, position)
                    if entry.sequence > after_sequence:
                        self._cursor = start if to_keyframe else (index, position)
                        return
            last = len(self._segments) - 1
            self._cursor = (last, len(self._segments[last].entries)) if last >= 0 else (0, 0)

    def acknowledge(self, stream_id: str, sequence: int) -> None:
        """Frames up to `sequence` need not be kept; their files go once nothing after them needs them."""
        with self._lock:
            self._sent_and_gone = [
                each for each in self._sent_and_gone if each[0] != stream_id or each[1] > sequence
            ]
            while self._segments:
                first = self._segments[0]
                if first.stream_id != stream_id or len(self._segments) == 1:
                    break
                following = self._segments[1]
                same = following.stream_id == stream_id
                if (same and not following.starts_with_keyframe) or not first.entries:
                    # A group of pictures that began on disk and goes on in memory, or an emptied file.
                    if first.entries and not self._group_done(sequence):
                        break
                elif first.entries[-1].sequence > sequence:
                    break
                self._remove_first()
            if not self._repeats and self._segments and self._segments[0].stream_id == stream_id:
                self._trim(self._segments[0], sequence)

    def forget(self, stream_id: str) -> None:
        """Deletes what is held of a stream."""
        with self._lock:
            for segment in [each for each in self._segments if each.stream_id == stream_id]:
                self._discard(segment)
            self._segments = [each for each in self._segments if each.stream_id != stream_id]
            self._cursor = (0, 0)

    def drop_waiting(self, stream_id: str) -> int:
        """Leaves out what has not been sent, and says how much; the next frame must be a keyframe."""
        with self._lock:
            count = 0
            while self._at_cursor(stream_id) is not None:
                index, position = self._cursor
                count += len(self._segments[index].entries) - position
                del self._segments[index].entries[position:]
            return count

    @property
    def held_bytes(self) -> int:
        """Bytes of all frames held."""
        with self._lock:
            return sum(segment.size_bytes for segment in self._segments)

    def waiting_frames(self, stream_id: str) -> int:
        """Frames of a stream that have not been sent."""
        with self._lock:
            if self._at_cursor(stream_id) is None:
                return 0
            index, position = self._cursor
            following = (len(each.entries) for each in self._segments[index:] if each.stream_id == stream_id)
            return sum(following) - position

    def close(self, *, keep: bool) -> None:
        """Lets go of the folder; without `keep` everything was delivered and the files go too."""
        with self._lock:
            for segment in self._segments:
                self._finish(segment)
                if not keep:
                    self._discard(segment)
            self._segments = []
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    def _claim(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LinkError(f"can't use {folder} as a spool: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise LinkError(f"the spool {folder} is in use: give each camera a folder of its own") from error

    def _at_cursor(self, stream_id: str) -> tuple[_Segment, _Entry] | None:
        index, position = self._cursor
        while index < len(self._segments):
            segment = self._segments[index]
            if segment.stream_id == stream_id and position < len(segment.entries):
                self._cursor = (index, position)
                return segment, segment.entries[position]
            if index == len(self._segments) - 1:
                return None  # stays: the segment may grow
            index, position = index + 1, 0
            self._cursor = (index, position)
        return None

    def _group_done(self, sequence: int) -> bool:
        for segment in self._segments[1:]:
            if segment.starts_with_keyframe:
                return True
            if segment.entries and segment.entries[-1].sequence > sequence:
                return False
        return False

    def _open_segment(self, *, in_memory: bool = False) -> _Segment:
        if self._segments:
            self._finish(self._segments[-1])
        stream_id, hello = self._hello
        segment = _Segment(stream_id, hello, None)
        if self._folder is not None and not in_memory:
            name = f"{time.time_ns() // 1000:019d}-{self._number:06d}{_SUFFIX}"
            self._number += 1
            while segment.fd is None:
                segment.path = self._folder / name
                try:
                    segment.fd = os.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                    _write_all(segment.fd, _framed(hello))
                except OSError as error:
                    self._discard(segment)
                    if not self._gave_way(error):
                        segment.path = None
                        break
        self._segments.append(segment)
        return segment

    def _write(self, segment: _Segment, entry: _Entry, data: bytes) -> bool:
        assert segment.fd is not None
        while True:
            end = os.lseek(segment.fd, 0, os.SEEK_END)
            try:
                _write_all(segment.fd, _framed(data))
                entry.offset = end + _FRAME.size
                now_s = time.monotonic()
                if now_s - self._synced_s > _SYNC_EVERY_S:
                    self._synced_s = now_s
                    os.fdatasync(segment.fd)
                return True
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(segment.fd, end)
                if not self._gave_way(error, writing=segment):
                    return False

    def _gave_way(self, error: OSError, writing: _Segment | None = None) -> bool:
        """Whether dropping the oldest group of pictures made room on a full disk."""
        self.disk_failures += 1
        older = [each for each in self._segments if each.path is not None and each is not writing]
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not older:
            return False
        self._drop_oldest()
        return True

    def _make_room(self, size_bytes: int) -> None:
        while len(self._segments) > 1 and self.held_bytes + size_bytes > self._limit_bytes:
            self._drop_oldest()
        while len(self._segments) > 1 and self._memory_bytes() + size_bytes > self._memory_limit_bytes:
            self._drop_oldest()

    def _memory_bytes(self) -> int:
        return sum(each.size_bytes for each in self._segments if each.path is None)

    def _drop_oldest(self) -> None:
        """One group of pictures: a segment, and those after it that go on with it."""
        stream_id = self._segments[0].stream_id
        self._remove_first(lost=True)
        while (
            len(self._segments) > 1
            and self._segments[0].entries
            and self._segments[0].stream_id == stream_id
            and not self._segments[0].starts_with_keyframe
        ):
            self._remove_first(lost=True)

    def _trim(self, first: _Segment, sequence: int) -> None:
        """Lets go of the first segment's frames up to `sequence`: a group can be megabytes long."""
        count = sum(entry.sequence <= sequence for entry in first.entries)
        first.size_bytes -= sum(entry.size_bytes for entry in first.entries[:count])
        del first.entries[:count]
        index, position = self._cursor
        if index == 0:
            self._cursor = (0, max(0, position - count))

    def _remove_first(self, *, lost: bool = False) -> None:
        segment = self._segments.pop(0)
        index, position = self._cursor
        if lost:
            sent = position if index == 0 else len(segment.entries)
            self.dropped_frames += len(segment.entries) - sent
            self._sent_and_gone += [(segment.stream_id, each.sequence) for each in segment.entries[:sent]]
        self._cursor = (index - 1, position) if index > 0 else (0, 0)
        self._finish(segment)
        self._discard(segment)

    def _read(self, segment: _Segment, entry: _Entry) -> bytes:
        if entry.data is not None:
            return entry.data
        assert segment.path is not None
        with segment.path.open("rb") as file:
            file.seek(entry.offset - _FRAME.size)
            size_bytes, crc = _FRAME.unpack(file.read(_FRAME.size))
            data = file.read(size_bytes)
        if len(data) != entry.size_bytes or zlib.crc32(data) != crc:
            raise WireError(f"{segment.path} is damaged")
        return data

    def _finish(self, segment: _Segment) -> None:
        if segment.fd is not None:
            os.close(segment.fd)
            segment.fd = None

    def _discard(self, segment: _Segment) -> None:
        self._finish(segment)
        if segment.path is not None:
            with contextlib.suppress(OSError):
                segment.path.unlink()


def _framed(data: bytes) -> bytes:
    return _FRAME.pack(len(data), zlib.crc32(data)) + data


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            size_bytes, crc = _FRAME.unpack(head)
            offset = file.tell()
            data = file.read(min(size_bytes, 16 << 20))
            if len(data) != size_bytes or zlib.crc32(data) != crc:
                return
            yield offset, data


def _scan(path: Path) -> _Segment | None:
    """What a file of an earlier run holds, up to the first record that is torn; None for nothing."""
    segment: _Segment | None = None
    try:
        for offset, data in _records(path):
            message = unpack(data).message
            if segment is None:
                if not isinstance(message, Hello):
                    return None
                segment = _Segment(message.stream_id, data, path)
            elif isinstance(message, AccessUnitMessage):
                entry = _Entry(message.sequence, message.encoded_us, message.is_keyframe, offset, len(data))
                segment.entries.append(entry)
                segment.size_bytes += len(data)
    except (OSError, WireError):
        pass
    return segment if segment is not None and segment.entries else None
