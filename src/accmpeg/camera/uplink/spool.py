"""Coded frames between the encoder and the link, in memory or, so that an outage loses nothing, on disk.

Frames go in once and come out in order, stream by stream; they stay until they are acknowledged. On disk each
group of pictures is a file (`spool_folder`). When the bound or the disk is full the oldest group goes first,
whole, because its later frames mean nothing without the earlier ones. When the disk can't be written at all,
frames pass through memory as they do without a folder. A process that dies without the machine loses nothing;
a power cut may take what the last second brought.
"""

import errno
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

from accmpeg.camera.uplink.spool_folder import SpoolFile, SpoolFolder
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.protocol.wire import Hello, Unpacked
from accmpeg.quiet import FewRepeats

__all__ = ["Spool"]

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


@dataclass(slots=True)
class _Entry:
    sequence: int
    encoded_us: int
    is_keyframe: bool
    size_bytes: int
    file: SpoolFile | None = None
    offset: int = 0
    unit: TimedUnit | None = None
    """The unit itself where it is held in memory."""


@dataclass(slots=True)
class _Stream:
    hello: Unpacked
    entries: list[_Entry] = field(default_factory=list)
    sent: int = 0
    """So many of the entries have been sent."""
    sent_and_gone: list[int] = field(default_factory=list)
    """Frames that gave way after they had been sent: lost only if they have to be sent again."""

    def group_start(self, index: int) -> int:
        """The keyframe that the entry there needs."""
        while index > 0 and not self.entries[index].is_keyframe:
            index -= 1
        return index

    def group_end(self, index: int) -> int:
        """Behind the last entry that needs the same keyframe."""
        index += 1
        while index < len(self.entries) and not self.entries[index].is_keyframe:
            index += 1
        return index

    def first_after(self, sequence: int) -> int:
        """Where the first frame after `sequence` stands."""
        later = (index for index, each in enumerate(self.entries) if each.sequence > sequence)
        return next(later, len(self.entries))


class Spool:
    """A queue of coded frames by stream; `append` may be called from another thread than the rest.

    `folder` None keeps everything in memory. `limit_bytes` bounds what is held, `memory_limit_bytes` what is
    held in memory. `repeats`: whether frames may be asked for again (`rewind`), for which groups of pictures
    stay whole; otherwise every frame goes once it is acknowledged. Raises LinkError for a folder that another
    camera uses or that can't be made.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        limit_bytes: int = 256 << 20,
        memory_limit_bytes: int = 16 << 20,
        repeats: bool = True,
    ) -> None:
        self.dropped_frames = 0
        """Frames that the bound, a full disk or damage took."""
        self.disk_failures = 0
        self.held_bytes = 0
        """Bytes of all frames held."""
        self._memory_bytes = 0
        self._repeats = repeats
        self._limit_bytes = limit_bytes
        self._memory_limit_bytes = memory_limit_bytes
        self._lock = threading.RLock()
        self._folder = None if folder is None else SpoolFolder(folder)
        self._streams: dict[str, _Stream] = {}
        """By stream id, the oldest first: those of earlier runs, then the one that is appended to."""
        if self._folder is not None:
            self._find_earlier(self._folder)
        self._own: _Stream
        self._group_gone = False
        """Whether frames that come need one that is held no longer."""

    def begin(self, hello: Hello, parameter_sets: bytes = b"") -> None:
        """Says of which stream the frames are that come: once, before the first one."""
        self._own = _Stream(Unpacked(hello, memoryview(parameter_sets)))
        self._streams[hello.stream_id] = self._own

    def append(self, sequence: int, unit: TimedUnit) -> bool:
        """Adds a frame; never raises for a full disk. False if what it needs gave way: give a keyframe."""
        body = b"" if self._folder is None else unit.to_bytes(sequence)
        entry = _Entry(sequence, unit.encoded_us, unit.is_keyframe, len(body) or len(unit.data))
        with self._lock:
            if not self._make_room(entry, in_memory=self._folder is None):
                return False
            if self._folder is None or not self._write(self._folder, entry, body):
                if not self._make_room(entry, in_memory=True):
                    return False
                entry.unit = unit
                self._memory_bytes += entry.size_bytes
            self.held_bytes += entry.size_bytes
            self._own.entries.append(entry)
            self._group_gone = False
            return True

    def streams(self) -> list[str]:
        """The streams that have frames to send or acknowledge, oldest first."""
        with self._lock:
            return [stream_id for stream_id, stream in self._streams.items() if stream.entries]

    def newest_sequence(self, stream_id: str) -> int | None:
        """The sequence of the last frame held of a stream, None where there is none."""
        with self._lock:
            stream = self._streams.get(stream_id)
            return stream.entries[-1].sequence if stream and stream.entries else None

    def hello_of(self, stream_id: str) -> Unpacked | None:
        """The Hello that a stream was begun with; None once nothing is held of an earlier one."""
        with self._lock:
            stream = self._streams.get(stream_id)
            return stream.hello if stream and (stream.entries or stream is self._own) else None

    def peek_encoded_us(self, stream_id: str) -> int | None:
        """When the next frame to send had been encoded, None when there is none."""
        with self._lock:
            if not self.waiting_frames(stream_id):
                return None
            stream = self._streams[stream_id]
            return stream.entries[stream.sent].encoded_us

    def next(self, stream_id: str) -> tuple[int, TimedUnit] | None:
        """The next frame of a stream to send, or None. Damage takes the rest of a group of pictures."""
        with self._lock:
            while self.waiting_frames(stream_id):
                stream = self._streams[stream_id]
                entry = stream.entries[stream.sent]
                try:
                    unit = entry.unit
                    if unit is None:
                        assert entry.file is not None
                        unit = entry.file.read(entry.offset)
                except (OSError, ValueError):
                    self.dropped_frames += self._drop(stream, stream.sent, stream.group_end(stream.sent))
                    continue
                stream.sent += 1
                return entry.sequence, unit
            return None

    def rewind(self, stream_id: str, after_sequence: int) -> None:
        """Goes back to the keyframe that the first frame of a stream after `after_sequence` needs.

        The receiver's decoder knows nothing of the stream.
        """
        with self._lock:
            if (stream := self._streams.get(stream_id)) is None:
                return
            self.dropped_frames += sum(each > after_sequence for each in stream.sent_and_gone)
            stream.sent_and_gone.clear()
            index = stream.first_after(after_sequence)
            stream.sent = stream.group_start(index) if index < len(stream.entries) else index

    def acknowledge(self, stream_id: str, sequence: int) -> None:
        """Frames up to `sequence` need not be kept; they go once nothing after them needs them."""
        with self._lock:
            if (stream := self._streams.get(stream_id)) is None:
                return
            stream.sent_and_gone = [each for each in stream.sent_and_gone if each > sequence]
            count = stream.first_after(sequence)
            if self._repeats and count < len(stream.entries):
                count = stream.group_start(count)
            elif self._repeats and stream is self._own and count:
                count = stream.group_start(count - 1)  # it goes on
            self._remove(stream, 0, count)

    def forget(self, stream_id: str) -> None:
        """Deletes what is held of a stream."""
        with self._lock:
            if (stream := self._streams.get(stream_id)) is not None:
                self._drop(stream, 0, len(stream.entries))

    def drop_waiting(self, stream_id: str) -> int:
        """Leaves out what has not been sent, and says how much; the next frame must be a keyframe."""
        with self._lock:
            stream = self._streams[stream_id]
            return self._drop(stream, stream.sent, len(stream.entries))

    def waiting_frames(self, stream_id: str) -> int:
        """Frames of a stream that have not been sent."""
        with self._lock:
            stream = self._streams.get(stream_id)
            return len(stream.entries) - stream.sent if stream else 0

    def close(self, *, keep: bool) -> None:
        """Lets go of the folder; without `keep` everything was delivered and the files go too."""
        with self._lock:
            if not keep:
                for stream_id in self._streams:
                    self.forget(stream_id)
            if self._folder is not None:
                self._folder.close()

    def _find_earlier(self, folder: SpoolFolder) -> None:
        for file, hello, units in folder.earlier():
            assert isinstance(hello.message, Hello)
            stream = self._streams.setdefault(hello.message.stream_id, _Stream(hello))
            for offset, size_bytes, sequence, unit in units:
                entry = _Entry(sequence, unit.encoded_us, unit.is_keyframe, size_bytes, file, offset)
                stream.entries.append(entry)
                self.held_bytes += size_bytes
            file.units = len(units)

    def _write(self, folder: SpoolFolder, entry: _Entry, body: bytes) -> bool:
        """Whether the frame is on disk; where it isn't, neither are those after it in its group."""
        if entry.is_keyframe:
            folder.end_group()
        elif folder.current is None:
            return False
        while True:
            try:
                entry.file, entry.offset = folder.append(self._own.hello, body)
                return True
            except OSError as error:
                self.disk_failures += 1
                log.warning("the spool can't be written", extra={"reason": error.strerror})
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._holds_older(folder.current):
                    folder.leave_group()
                    return False
                self._drop_oldest()

    def _holds_older(self, current: SpoolFile | None) -> bool:
        entries = (entry for stream in self._streams.values() for entry in stream.entries)
        return any(entry.file is not None and entry.file is not current for entry in entries)

    def _make_room(self, entry: _Entry, *, in_memory: bool) -> bool:
        """Lets old groups of pictures give way to a frame; whether its own is whole then, or lost too."""
        size_bytes = entry.size_bytes
        while self.held_bytes and (
            self.held_bytes + size_bytes > self._limit_bytes
            or (in_memory and self._memory_bytes + size_bytes > self._memory_limit_bytes)
        ):
            self._drop_oldest()
        if self._group_gone and not entry.is_keyframe:
            self.dropped_frames += 1
            return False
        return True

    def _drop_oldest(self) -> None:
        """One group of pictures."""
        stream = next(each for each in self._streams.values() if each.entries)
        end = stream.group_end(0)
        sent = min(stream.sent, end)
        stream.sent_and_gone += [each.sequence for each in stream.entries[:sent]]
        self.dropped_frames += end - sent
        self._drop(stream, 0, end)

    def _drop(self, stream: _Stream, start: int, end: int) -> int:
        """Lets go of entries that others, also of frames to come, may need; returns how many."""
        entries = stream.entries
        if stream is self._own and start < end == len(entries):
            self._group_gone = True
            if self._folder is not None and entries[-1].file is self._folder.current:
                self._folder.leave_group()
        return self._remove(stream, start, end)

    def _remove(self, stream: _Stream, start: int, end: int) -> int:
        for entry in stream.entries[start:end]:
            self.held_bytes -= entry.size_bytes
            if entry.file is None or self._folder is None:
                self._memory_bytes -= entry.size_bytes
            else:
                self._folder.release(entry.file)
        del stream.entries[start:end]
        stream.sent -= max(0, min(stream.sent, end) - start)
        return end - start
