"""What lies on disk: clips, numbered frames and stills, found by walking folders."""

import io
import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

import av
from av.container import InputContainer
from av.video.reformatter import ColorRange

from accmpeg.errors import SourceError, reason
from accmpeg.media.frames import FrameTurner, tiled, to_yuv420p, turned
from accmpeg.media.heif import HeifPicture, is_heif, read_heif
from accmpeg.media.mistaken import unread_tiff, way_out
from accmpeg.media.shared_files import is_shared_address, shared_files

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Footage",
    "find_footage",
    "folder_pictures",
    "folder_videos",
    "natural_order",
    "read_picture",
    "read_still",
    "writable",
]

# Those that FFmpeg does not read are here too, so that they are told and not passed over.
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif", ".hif", ".jxl", ".tga", ".exr", ".psd", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".mpo", ".j2k", ".j2c", ".jpx", ".jpf",
})  # fmt: skip
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".divx", ".ts", ".mts", ".m2ts", ".m2t", ".mpg",
    ".mpeg", ".m2v", ".flv", ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ivf", ".y4m", ".gif", ".apng",
    ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".vob", ".mxf", ".nut", ".dv", ".dav",
    ".insv", ".360", ".tod", ".rm", ".rmvb", ".qt", ".ogm", ".m1v", ".m2p", ".mpe", ".mk3d", ".trp",
    ".tp", ".wtv", ".amv", ".obu",
})  # fmt: skip

log = logging.getLogger(__name__)

FRAME_RATE = Fraction(25)
SQUARE = Fraction(1)

_DECODER_OPTIONS = {
    "mjpeg": {"err_detect": "explode"},  # or where the file ends early, the rest of the picture is green
    "exr": {"apply_trc": "iec61966_2_1"},  # it holds light, and would come out dark
}
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers
_APP1 = 0xE1


@dataclass(frozen=True)
class Footage:
    """One clip: a video file, a folder of numbered pictures ("frames"), or one picture ("still").

    `clip` names it uniquely within one `find_footage` call, so that training can split by clip.
    """

    path: Path
    kind: Literal["video", "frames", "still"]
    clip: str
    address: str | None = None
    """Of a file that lies elsewhere; `path` is its name there."""

    @property
    def location(self) -> Path | str:
        """What `local_file` makes readable."""
        return self.address or self.path.absolute()

    @property
    def source(self) -> str:
        """Its name whatever it was called by."""
        return self.address or str(self.path.resolve())


def find_footage(paths: Sequence[str | Path]) -> list[Footage]:
    """All footage under files and folders, in natural order.

    Folders are walked recursively, links followed, hidden entries and other kinds of files passed over. A
    folder whose pictures all have purely numeric names and one size is one clip; other pictures are stills.
    Only the sizes are read here.

    Args:
        paths: Files, folders, and addresses of either that fsspec reads; pictures under those are stills.

    Footage that is found twice counts once.

    Raises:
        SourceError: A path does not exist, or there is no footage under any of them.
    """
    found: list[Footage] = []
    for given in paths:
        path = Path(given)
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as error:  # a name that is too long
            raise SourceError(f"can't read {path}: {reason(error)}") from error
        if is_shared_address(given):
            found += _at_address(str(given))
        elif is_folder:
            found += _walk(path)
        elif is_there:
            kind: Literal["still", "video"] = "still" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
            found.append(Footage(path, kind, path.stem))
        else:
            raise SourceError(f"no such file or folder: {path}")
    if not found:
        raise SourceError(
            f"no videos or pictures in {', '.join(map(str, paths)) or 'an empty list of paths'}"
        )
    return _uniquely_named(found)


def folder_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in the order of the numbers in their names."""
    return [file for file in _files(folder) if file.suffix.lower() in IMAGE_SUFFIXES]


def folder_videos(folder: Path) -> list[Path]:
    """The videos directly in a folder, in the order of the numbers in their names."""
    return [file for file in _files(folder) if file.suffix.lower() in VIDEO_SUFFIXES]


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts names as people count: 2 before 10. Frames and whatever belongs to them are sorted by this.

    >>> [path.name for path in sorted(map(Path, ["10.jpg", "2.jpg", "1.jpg"]), key=natural_order)]
    ['1.jpg', '2.jpg', '10.jpg']
    """
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def writable(name: str) -> str:
    """A file's name as text that every file takes: archives of other systems leave bytes that are no UTF-8.

    >>> writable("caf\\udce9")
    'caf\\\\udce9'
    """
    return name.encode(errors="backslashreplace").decode()


def read_still(path: str | Path) -> av.VideoFrame:
    """A picture as a yuv420p frame of its own size, odd or not, upright as its EXIF data says; pts 0.

    Pictures made of tiles (HEIC, AVIF) come whole. Raises SourceError for a file that is missing, empty or no
    picture.
    """
    return read_picture(path)[0]


def read_picture(path: str | Path) -> tuple[av.VideoFrame, Fraction]:
    """`read_still`, and the width of a pixel over its height."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror or error}") from error
    if not data:
        raise SourceError(f"{path} is empty (0 bytes)")
    try:
        if said := unread_tiff(data):
            raise SourceError(said)
        parts = read_heif(data) if is_heif(data) else None
        # From memory, because FFmpeg reads "%03d" in a picture's name as a pattern.
        # What phones append to small JPEGs (films, trailers) hides from it what they are.
        known = "jpeg_pipe" if data.startswith(b"\xff\xd8\xff") else None
        with av.open(io.BytesIO(data), "r", format=known) as container:
            still, aspect = _single(container) if parts is None else (_assembled(container, parts), SQUARE)
    except SourceError as error:
        raise SourceError(f"can't read {path}: {error}") from error
    except (av.FFmpegError, IndexError, ValueError) as error:
        said = way_out(str(path)) or reason(error)
        raise SourceError(f"{path} is not a picture that FFmpeg can read: {said}") from error
    still.pts, still.time_base = 0, 1 / FRAME_RATE
    return still, aspect


def _single(container: InputContainer) -> tuple[av.VideoFrame, Fraction]:
    stream = container.streams.video[0]
    if stream.codec_context is None:  # as of JPEG XL
        raise SourceError("this FFmpeg has no decoder for it: make it a png or jpg")
    stream.codec_context.options = _DECODER_OPTIONS.get(stream.codec_context.name, {})
    frame = next((f for f in container.decode(stream) if not f.is_corrupt), None)
    if frame is None:
        raise SourceError("it is damaged: no picture in it")
    if stream.codec_context.name == "tiff" and frame.format.name.startswith("yuv"):
        frame.color_range = int(ColorRange.JPEG)  # which the decoder does not say
    turner = FrameTurner(frame)
    aspect = stream.sample_aspect_ratio or SQUARE
    return turner.turn(to_yuv420p(frame)), 1 / aspect if turner.swaps_sides else aspect


def _assembled(container: InputContainer, picture: HeifPicture) -> av.VideoFrame:
    streams = [stream for stream in container.streams.video if stream.id in picture.items]
    found: dict[int, av.VideoFrame] = {}
    for packet in container.demux(streams):
        for frame in packet.decode():
            if isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
                found.setdefault(packet.stream.id, to_yuv420p(frame))
    if missing := [item for item in picture.items if item not in found]:
        raise SourceError(f"{len(missing)} of its {len(picture.items)} parts can't be decoded")
    if not picture.is_grid:
        return turned(found[picture.items[0]], picture.filters)
    tiles = [found[item] for item in picture.items]
    whole = tiled(tiles, picture.columns, picture.width_px, picture.height_px)
    return turned(whole, picture.filters)


def _walk(root: Path) -> Iterator[Footage]:
    seen = set(root.resolve().parents)  # links may lead back

    def unreadable(error: OSError) -> None:
        log.warning("can't read the folder %s: %s: passed over", error.filename, reason(error))

    for folder, names, _ in os.walk(root, onerror=unreadable, followlinks=True):
        if (real := Path(folder).resolve()) in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(
            (name for name in names if not name.startswith(".")), key=lambda n: natural_order(Path(n))
        )
        here = Path(folder)
        label = here.relative_to(root.parent if root.name else root).as_posix()
        pictures = folder_pictures(here)
        if pictures and _is_clip(pictures):
            yield Footage(here, "frames", label)
        else:
            yield from (Footage(picture, "still", f"{label}/{picture.stem}") for picture in pictures)
        for video in folder_videos(here):
            yield Footage(video, "video", f"{label}/{video.stem}")


def _at_address(address: str) -> Iterator[Footage]:
    root = PurePosixPath(address.rstrip("/"))
    for file in sorted(shared_files(address), key=_natural_address):
        path = PurePosixPath(file)
        clip = path.with_suffix("").relative_to(root.parent).as_posix() if path != root else path.stem
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield Footage(Path(path), "still", clip, file)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            yield Footage(Path(path), "video", clip, file)


def _natural_address(address: str) -> list[tuple[list[tuple[int, str]], str]]:
    return [natural_order(Path(part)) for part in address.split("/")]


def _files(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise SourceError(f"can't read the folder {folder}: {error.strerror or error}") from error
    return sorted(files, key=natural_order)


def _is_clip(pictures: list[Path]) -> bool:
    """Numbers for names are no proof: photographs of data sets have them too, but not all one size."""
    if not all(picture.stem.isdecimal() for picture in pictures):
        return False
    known: tuple[int, int] | None = None
    for picture in pictures:
        size_px = _picture_size(picture)
        if known is not None and size_px is not None and size_px != known:
            return False
        known = known or size_px
    return True


def _picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture as it is shown; None where it can't be read. JPEG and PNG at no cost."""
    try:
        with path.open("rb") as file:
            size_px = _stored_size(file)
        if size_px is None:
            still = read_still(path)
            size_px = still.width, still.height
    except (OSError, SourceError):
        return None
    return size_px


def _stored_size(file: BinaryIO) -> tuple[int, int] | None:
    """The size in the head of a PNG or JPEG file without EXIF data, which may turn it; else None."""
    head = file.read(2)
    if head == b"\x89P":
        chunk = file.read(64)
        if chunk[10:14] == b"IHDR" and len(chunk) >= 22 and b"eXIf" not in chunk:
            width_px, height_px = struct.unpack_from(">II", chunk, 14)
            return width_px, height_px
    while head == b"\xff\xd8" and (marker := file.read(4)):
        if len(marker) < 4 or marker[0] != 0xFF:
            return None
        kind, length = marker[1], int.from_bytes(marker[2:])
        if kind in _START_OF_FRAME:
            sides = file.read(5)
            if len(sides) < 5:
                return None
            height_px, width_px = struct.unpack(">xHH", sides)
            return width_px, height_px
        if kind == _APP1 or length < 2:
            return None
        file.seek(length - 2, os.SEEK_CUR)
    return None


def _uniquely_named(found: list[Footage]) -> list[Footage]:
    named: dict[str, Footage] = {}
    sources = set[str]()
    for footage in found:
        if footage.source in sources:
            continue
        sources.add(footage.source)
        clip = name = writable(footage.clip)
        count = 1
        while name in named:
            count += 1
            name = f"{clip}-{count}"
        named[name] = replace(footage, clip=name)
    return list(named.values())
