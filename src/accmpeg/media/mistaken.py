"""What a file that can't be read as video is in truth, and the way out.

FFmpeg says "invalid data" of them all: raw pixels, manifests, archives, recordings without their index.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from accmpeg.media.addresses import is_url
from accmpeg.media.heif import is_heif

__all__ = ["unread_tiff", "way_out"]

_RAW_SUFFIXES = frozenset({
    ".yuv", ".i420", ".yv12", ".nv12", ".nv21", ".p010", ".yuy2", ".yuyv", ".uyvy", ".rgb", ".rgb24", ".rgba",
    ".bgr", ".bgr24", ".bgra", ".gray", ".raw",
})  # fmt: skip
_RAW = (
    "raw pixels say neither their size nor their rate: ffmpeg -f rawvideo -pixel_format yuv420p -video_size "
    "1280x720 -framerate 30 -i IN.yuv OUT.y4m, with the right ones, makes a file that does"
)
_DASH = (
    "it is a DASH manifest, which the FFmpeg in PyAV can't read: give the same stream as HLS (.m3u8) or "
    "RTSP, or a video file"
)
_ARCHIVE = "it is an archive: unpack it, and give a file or folder of it"
_PAGE = "it is a page or document: give the address of the stream itself"
_PLAYLIST = "it is a playlist: give the address that it came from, or one of the files in it"
_CONCAT = "it is a list for FFmpeg: put the line 'ffconcat version 1.0' before its first"
_FRAGMENT = "it is a fragment of a stream: put the stream's init file before it (cat INIT FRAGMENT > OUT.mp4)"
_UNFINISHED = (
    "its index (the moov box) is missing, so the recording was cut off before its end or not copied whole: "
    "record as mkv or ts, which stay readable"
)
_ENCRYPTED = "it is encrypted: take it without DRM"
_POINTER = "it only stands for a file in Git LFS: `git lfs pull` fetches that"
_ZEROS = "it begins with zeros alone, so it was not written or copied whole"
_ANIMATED = "it is an animated WebP, which this FFmpeg can't read: make it a gif or mp4"

_TIFF_PARTS = (
    "it is a TIFF of tiles or of JPEGs, of which this FFmpeg gives a black picture: gdal_translate IN.tif "
    "OUT.png, or magick IN.tif OUT.png, makes one that is read"
)
_RAW_PHOTOGRAPH = (
    "it is a camera's raw file, of which this FFmpeg gives a small preview or the sensor's dark values: "
    "darktable-cli IN OUT.jpg, or magick IN OUT.jpg, develops it"
)
_KIND, _COMPRESSION, _TILE_WIDTH, _DNG_VERSION = 254, 259, 322, 50706  # TIFF's tags
_JPEGS, _SHORT = (6, 7), 3

_BEGINNINGS = {
    b"\xff\xd8\xff": "it ends too early, or is damaged: copy it anew",
    b"\x1f\x8b": _ARCHIVE,
    b"PK\x03\x04": _ARCHIVE,
    b"7z\xbc\xaf\x27\x1c": _ARCHIVE,
    b"\xfd7zXZ\0": _ARCHIVE,
    b"BZh": _ARCHIVE,
    b"Rar!": _ARCHIVE,
    b"\x28\xb5\x2f\xfd": _ARCHIVE,
    b"%PDF": _PAGE,
    b"<!doctype html": _PAGE,
    b"<html": _PAGE,
    b"#extm3u": _PLAYLIST,
    b"[playlist]": _PLAYLIST,
    b"file ": _CONCAT,
    b"version https://git-lfs": _POINTER,
    b"{": _PAGE,
}
_BY_SUFFIX = {".mpd": _DASH, **dict.fromkeys(_RAW_SUFFIXES, _RAW)}
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"uuid", b"prft")
_MOST_OF_INDEX = 1 << 24


def way_out(name: str) -> str:
    """What this file (or FFmpeg's `file:NAME`) or address is where that is known, and what helps, to be read
    on after a colon; else empty."""
    if is_url(name):
        return _BY_SUFFIX.get(PurePath(name.partition("?")[0]).suffix.lower(), "")
    path = Path(name.removeprefix("file:"))
    return _by_content(path) or _BY_SUFFIX.get(path.suffix.lower(), "")


def unread_tiff(data: bytes) -> str:
    """What to say of a TIFF file that FFmpeg makes another picture of without a word; else empty."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return ""
    tags: dict[int, int] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", data, entry + 8)
    except struct.error:
        return ""  # it is damaged, as FFmpeg says
    if _DNG_VERSION in tags or tags.get(_KIND, 0) & 1:  # the first picture is smaller than the file's
        return _RAW_PHOTOGRAPH
    return _TIFF_PARTS if _TILE_WIDTH in tags or tags.get(_COMPRESSION) in _JPEGS else ""


def _by_content(path: Path) -> str:
    if not path.is_file():
        return ""  # looking into a pipe would take from it
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            if head[4:8] in _BOXES and not is_heif(head):
                return _of_mp4(file)
    except OSError:
        return ""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, meaning in _BEGINNINGS.items():
        if head.startswith(beginning) or text.startswith(beginning):
            return meaning
    if head[257:262] == b"ustar":
        return _ARCHIVE
    if b"<mpd" in text:
        return _DASH
    if b"<svg" in text or text.startswith(b"<?xml"):
        return _PAGE
    if not head.strip(b"\0") and path.suffix.lower() not in _RAW_SUFFIXES:
        return _ZEROS
    if head[:4] == b"RIFF" and b"WEBP" in head and b"ANIM" in head:
        return _ANIMATED
    return ""


def _of_mp4(file: BinaryIO) -> str:
    kinds = set()
    for kind, size in _boxes(file):
        kinds.add(kind)
        if kind == b"moov" and b"encv" in file.read(min(size, _MOST_OF_INDEX)):
            return _ENCRYPTED
    if b"moov" in kinds:
        return ""
    return _FRAGMENT if b"moof" in kinds else _UNFINISHED


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and size of the boxes at the top, the file put to each one's content."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[8:16])
        elif size == 0:
            size = file.seek(0, os.SEEK_END) - start
        if size < 8:
            return
        file.seek(start + 8)
        yield head[4:8], size
        start += size
