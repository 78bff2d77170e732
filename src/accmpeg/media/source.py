"""Footage and cameras as one kind of thing: a Source that yields yuv420p frames with rising timestamps.

| address | Source |
|---|---|
| a video file, or a single picture | its frames, upright; damaged ones are passed over and counted |
| a folder of pictures | its pictures in order of their numbers, at 25 frames/s |
| `rtsp://`, `http://`, `udp://`, `rtmp://`, … | the stream; a dead network is an error within about 10 s |
| `/dev/video0`, `/dev/v4l/by-id/…`, a link to one | a V4L2 camera |
| a named pipe, or `-` for standard input | what another program writes into it, as it comes |
"""

import logging
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from accmpeg.errors import SourceError
from accmpeg.media.addresses import LIVE_SCHEMES, describe, is_url, scheme_of
from accmpeg.media.footage import (
    FRAME_RATE,
    IMAGE_SUFFIXES,
    Footage,
    find_footage,
    folder_pictures,
    read_still,
)
from accmpeg.media.frames import FrameTurner, to_yuv420p
from accmpeg.media.inputs import (
    TIMEOUT_S,
    InputOptions,
    ffmpeg_options,
    reason,
    refusal,
    tries_udp,
    why_not_as_asked,
)
from accmpeg.media.v4l2 import is_device

__all__ = ["Footage", "Source", "SourceInfo", "find_footage", "open_source", "read_still"]

log = logging.getLogger(__name__)

_STANDARD_INPUT = "/dev/stdin"
_FASTEST_FRAME_RATE = 1000


@dataclass(frozen=True)
class SourceInfo:
    """What is known at open. `name` holds no secrets; `frame_count` is None where nobody can tell.

    `reopens`: a live source that ended may be opened again; standard input can't be.
    """

    name: str
    width_px: int
    height_px: int
    frame_rate: Fraction
    time_base: Fraction
    frame_count: int | None
    is_live: bool
    reopens: bool = True


class Source(ABC):
    """Iterate once over its frames: yuv420p, all of `info`'s size, pts rising in `info.time_base`."""

    info: SourceInfo
    skipped_frames: int = 0

    @abstractmethod
    def __iter__(self) -> Iterator[av.VideoFrame]: ...

    def close(self) -> None:
        """Frees the file, connection or device."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(address: str | Path, options: InputOptions | None = None) -> Source:
    """Opens footage or a camera and decodes its first frame, so that what comes back surely has one.

    Raises SourceError, naming the address without its secrets, if there is nothing to read, no video in it,
    or no answer within about 10 s; UsageError for options that this kind of source does not have.
    """
    asked = options or InputOptions()
    text = str(address)
    if not text:
        raise SourceError("the name of the footage is empty")
    if is_url(address):
        asked.check(text, is_device=False)
        return _StreamSource(text, describe(text), asked)
    path = Path(_STANDARD_INPUT if text == "-" else text)
    of_device = is_device(path)
    asked.check(text, is_device=of_device)
    if of_device:
        return _StreamSource(text, text, asked, format_name="v4l2")
    if path.is_dir():
        return _PictureSource(path, folder_pictures(path))
    try:
        found = path.stat()
    except OSError as error:
        shown = describe(address)
        hint = "" if shown == text else ": if it is an address, it begins with rtsp:// or the like"
        # Not chained: the system's own error repeats the name, and what is hidden in it.
        raise SourceError(f"can't read {shown}: {error.strerror or error}{hint}") from None
    if path.is_file() and found.st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _PictureSource(path, [path])
    # Without the prefix, FFmpeg would take "a:b.mp4" for an address of scheme a.
    return _StreamSource(f"file:{path}", str(path), asked, is_pipe=stat.S_ISFIFO(found.st_mode))


class _PictureSource(Source):
    def __init__(self, path: Path, pictures: list[Path]) -> None:
        self._pictures = pictures
        if not pictures:
            raise SourceError(f"no pictures in the folder {path}: it needs files such as 000001.jpg")
        first = self._first_readable()
        self.info = SourceInfo(
            name=path.name or str(path),
            width_px=first.width,
            height_px=first.height,
            frame_rate=FRAME_RATE,
            time_base=1 / FRAME_RATE,
            frame_count=len(pictures),
            is_live=False,
        )

    def __iter__(self) -> Iterator[av.VideoFrame]:
        self.skipped_frames = 0
        for index, path in enumerate(self._pictures):
            try:
                frame = read_still(path)
            except SourceError:
                self.skipped_frames += 1
                continue
            if (frame.width, frame.height) != (self.info.width_px, self.info.height_px):
                raise SourceError(
                    f"{path} has {frame.width}x{frame.height} px where the first picture has "
                    f"{self.info.width_px}x{self.info.height_px}: the frames of one clip share one size"
                )
            frame.pts, frame.time_base = index, self.info.time_base
            yield frame

    def _first_readable(self) -> av.VideoFrame:
        errors: list[SourceError] = []
        for path in self._pictures:
            try:
                return read_still(path)
            except SourceError as error:
                errors.append(error)
        raise errors[0]


class _StreamSource(Source):
    def __init__(
        self,
        address: str,
        name: str,
        asked: InputOptions,
        *,
        format_name: str | None = None,
        is_pipe: bool = False,
    ) -> None:
        self._address = address
        self._asked = asked
        self._is_pipe = is_pipe
        self._is_file = address.startswith("file:") and not is_url(address)
        self._name = name
        self.skipped_frames = 0
        self._container = self._open(address, format_name)
        try:
            self._stream = self._find_video()
            self._check_device()
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise SourceError(f"no frames can be decoded from {name}: it is empty or damaged")
            self._turner = FrameTurner(self._first)
            self.info = self._describe(self._upright(self._first), address, format_name)
        except BaseException:
            self._container.close()
            raise
        self._last_pts: int | None = None
        self._shift = 0
        self._used = False

    def __iter__(self) -> Iterator[av.VideoFrame]:
        if self._used:
            raise SourceError(f"{self._name} is read already: open it again")
        self._used = True
        assert self._first is not None
        first, self._first = self._first, None
        yield self._ready(first)
        del first
        for frame in self._frames:
            yield self._ready(frame)

    def close(self) -> None:
        self._frames.close()
        self._container.close()

    def _open(self, address: str, format_name: str | None) -> InputContainer:
        is_device = format_name == "v4l2"
        # For the container alone: a size meant for a device would become the decoder's too, right or wrong.
        options = {} if self._is_file else ffmpeg_options(address, self._asked, is_device=is_device)
        timeout = None if self._is_file else TIMEOUT_S
        started_s = time.monotonic()
        try:
            try:
                return av.open(address, "r", format=format_name, container_options=options, timeout=timeout)
            except (av.FFmpegError, OSError) as error:
                if not tries_udp(address, self._asked, error):
                    raise
                log.info("rtsp over udp", extra={"source": self._name, "reason": reason(error)})
                options["rtsp_transport"] = "udp"
                return av.open(address, "r", format=format_name, container_options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError, UnicodeError) as error:
            said = refusal(error, address, self._asked, time.monotonic() - started_s, is_device=is_device)
            # Not chained for an address: libav's own error repeats it with user and password.
            raise SourceError(f"can't open {self._name}: {said}") from (error if self._is_file else None)

    def _check_device(self) -> None:
        """What was asked of a device is what it gives, or an error."""
        said = why_not_as_asked(self._address, self._asked, self._stream)
        if said:
            raise SourceError(f"{self._name}: {said}")

    def _find_video(self) -> VideoStream:
        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
                stream.thread_count = 1  # the camera's cores belong to the encoder and the AccModel
                return stream
        kinds = sorted({stream.type for stream in self._container.streams})
        raise SourceError(f"{self._name} holds no video{': only ' + ', '.join(kinds) if kinds else ''}")

    def _decode(self) -> Generator[av.VideoFrame, None, None]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                if self._is_file:
                    self.skipped_frames += 1  # a file that breaks off: what came before it stands
                    return
                said = reason(error, self._address)
                raise SourceError(f"{self._name} broke off: {said}") from None
            if packet is None:
                return
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self.skipped_frames += packet.size > 0
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.skipped_frames += 1
                else:
                    yield frame

    def _describe(self, first: av.VideoFrame, address: str, format_name: str | None) -> SourceInfo:
        stream = self._stream
        rate = stream.average_rate or stream.guessed_rate or FRAME_RATE
        if not 0 < rate <= _FASTEST_FRAME_RATE:
            rate = FRAME_RATE
        scheme = scheme_of(address)
        is_live = scheme in LIVE_SCHEMES or format_name is not None or self._is_pipe
        is_live = is_live or (scheme in ("http", "https") and not self._container.duration)
        return SourceInfo(
            name=self._name.rpartition("/")[2] if self._is_file else self._name,
            width_px=first.width,
            height_px=first.height,
            frame_rate=rate,
            time_base=stream.time_base or 1 / FRAME_RATE,
            frame_count=stream.frames or None,
            is_live=is_live,
            reopens=address != f"file:{_STANDARD_INPUT}",
        )

    def _upright(self, frame: av.VideoFrame) -> av.VideoFrame:
        return self._turner.turn(to_yuv420p(frame))

    def _ready(self, frame: av.VideoFrame) -> av.VideoFrame:
        info = self.info
        frame = self._upright(frame)
        if (frame.width, frame.height) != (info.width_px, info.height_px):
            # Some cameras change their size when the light or the link does; the stream's size is settled.
            frame = frame.reformat(info.width_px, info.height_px, threads=1)
        step = max(1, round(1 / (info.frame_rate * info.time_base)))
        pts = frame.pts
        if pts is None:
            pts = 0 if self._last_pts is None else self._last_pts + step
        else:
            pts += self._shift
            if self._last_pts is not None and pts <= self._last_pts:
                # A clock that wrapped or started anew: go on from here, one frame later.
                self._shift += self._last_pts + step - pts
                pts = self._last_pts + step
        self._last_pts = pts
        frame.time_base = info.time_base
        frame.pts = pts
        return frame
