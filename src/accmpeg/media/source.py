"""Footage and cameras as one kind of thing: a Source that yields yuv420p frames with rising timestamps.

| address | Source |
|---|---|
| a video file, or a single picture | its frames, upright, whole; damaged ones are passed over and counted |
| a folder of pictures | its pictures in order of their numbers, at 25 frames/s |
| `rtsp://`, `http://`, `udp://`, `rtmp://`, … | the stream; a dead network is an error within about 10 s |
| `/dev/video0`, `/dev/v4l/by-id/…`, a link to one | a V4L2 camera |
| an `.sdp` file | the RTP stream that it describes |
| a named pipe, or `-` for standard input | what another program writes into it, as it comes |
"""

import re
import stat
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av

from accmpeg.errors import SourceError, reason
from accmpeg.media.addresses import describe, is_url, local_path, scheme_of, with_small_scheme
from accmpeg.media.footage import (
    FRAME_RATE,
    IMAGE_SUFFIXES,
    Footage,
    find_footage,
    folder_pictures,
    folder_videos,
    read_picture,
    read_still,
)
from accmpeg.media.heif import is_heif
from accmpeg.media.inputs import InputOptions
from accmpeg.media.source_base import Source, SourceInfo
from accmpeg.media.stream_source import STANDARD_INPUT, StreamSource
from accmpeg.media.v4l2 import is_device

__all__ = [
    "ADDRESS_KINDS",
    "FILE_KINDS",
    "Footage",
    "Source",
    "SourceInfo",
    "find_footage",
    "open_source",
    "read_still",
]

# In none of these are boxes but those of a video, such as an animated AVIF.
_WITHOUT_BOXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif")
_MATROSKA = b"\x1a\x45\xdf\xa3"


class _PictureSource(Source):
    def __init__(self, path: Path, pictures: list[Path]) -> None:
        self._pictures = pictures
        if not pictures:
            videos = folder_videos(path)
            hint = (
                f"give one of its videos, such as {videos[0]}" if videos else "it needs files such as 1.jpg"
            )
            raise SourceError(f"no pictures in the folder {path}: {hint}")
        first, aspect = self._first_readable()
        self.info = SourceInfo(
            name=path.name or str(path),
            width_px=first.width,
            height_px=first.height,
            frame_rate=FRAME_RATE,
            time_base=1 / FRAME_RATE,
            frame_count=len(pictures),
            is_live=False,
            pixel_aspect=aspect,
        )

    def __iter__(self) -> Iterator[av.VideoFrame]:
        self.skipped_pictures = []
        before: Path | None = None
        for index, path in enumerate(self._pictures):
            try:
                frame = read_still(path)
            except SourceError as error:
                self.skipped_pictures.append(str(error))
                self.skipped_frames = self.passed_over = len(self.skipped_pictures)
                continue
            if (frame.width, frame.height) != (self.info.width_px, self.info.height_px):
                raise SourceError(
                    f"{path} has {frame.width}x{frame.height} px where the first picture has "
                    f"{self.info.width_px}x{self.info.height_px}: the frames of one clip share one size"
                )
            if before is not None and before.stem == path.stem:  # a mask, or a copy in another format
                raise SourceError(
                    f"{before} and {path.name} are one frame twice: move the files of one kind elsewhere"
                )
            before = path
            frame.pts, frame.time_base = index, self.info.time_base
            yield frame

    def _first_readable(self) -> tuple[av.VideoFrame, Fraction]:
        errors: list[SourceError] = []
        for path in self._pictures:
            try:
                return read_picture(path)
            except SourceError as error:
                errors.append(error)
        raise errors[0]


FILE_KINDS: dict[str, Callable[[Path], Source]] = {
    suffix: lambda path: _PictureSource(path, [path]) for suffix in IMAGE_SUFFIXES
}
"""What opens a file, by its suffix in small letters; FFmpeg opens the others."""

ADDRESS_KINDS: dict[str, Callable[[str, InputOptions], Source]] = {
    "file": lambda address, asked: open_source(local_path(address), asked),
}
"""What opens `scheme://…`, by the scheme in small letters; FFmpeg opens the others."""


def open_source(address: str | Path, options: InputOptions | None = None) -> Source:
    """Opens footage or a camera and decodes its first frame, so that what comes back surely has one.

    Args:
        address: A file, a folder of pictures, a device, an address, or `-` for standard input.
        options: What is asked of a camera or device.

    Returns:
        The source; iterate over it for frames, and close it (`with`).

    Raises:
        SourceError: There is nothing to read, no video in it, or no answer within about 10 s. The address is
            named without its secrets.
        UsageError: This kind of source has no such option.
    """
    asked = options or InputOptions()
    text = str(address)
    if not text:
        raise SourceError("the name of the footage is empty")
    if is_url(address) and scheme_of(address) in ADDRESS_KINDS:
        return ADDRESS_KINDS[scheme_of(address)](text, asked)
    if is_url(address):
        asked.check(text, is_device=False)
        return StreamSource(with_small_scheme(text), describe(text), asked)
    path = Path(STANDARD_INPUT if text == "-" else text)
    of_device = is_device(path)
    asked.check(text, is_device=of_device)
    if of_device:
        return StreamSource(text, text, asked, format_name="v4l2")
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        # Not chained: the system's own error repeats the name, and what is hidden in it.
        raise SourceError(f"can't read {describe(address)}: {reason(error)}{_other_name(text)}") from None
    if stat.S_ISDIR(found.st_mode):
        return _PictureSource(path, folder_pictures(path))
    if path.is_file() and found.st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    kind = _kind(path)
    if kind in FILE_KINDS:
        return FILE_KINDS[kind](path)
    if path.suffix.lower() == ".sdp":
        return StreamSource(f"file:{path}", str(path), asked, format_name="sdp")
    # Without the prefix, FFmpeg would take "a:b.mp4" for an address of scheme a.
    return StreamSource(f"file:{path}", str(path), asked, is_pipe=stat.S_ISFIFO(found.st_mode))


def _other_name(text: str) -> str:
    """What a name that there is no file of may have been meant as."""
    if describe(text) != text or re.match(r"(rtsps?|rtmps?|https?|udp|rtp|srt|tcp):", text, re.IGNORECASE):
        return ": if it is an address, it begins with rtsp:// or the like"
    if re.search(r"%\d*d|[*?]", text):
        return ": of numbered pictures give the folder; it is read in the order of their numbers"
    return ""


def _kind(path: Path) -> str:
    """The suffix that a file should have: a photograph's or a video's name may be the other's."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return suffix  # a pipe's writer would be turned away as soon as this look at it ends
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return suffix  # FFmpeg says why
    if is_heif(head):
        return ".heic"
    is_video = head[4:8] == b"ftyp" or head.startswith(_MATROSKA) or b"acTL" in head  # which animates PNG
    return ".mp4" if is_video and suffix in _WITHOUT_BOXES else suffix
