"""What lies on disk: clips, numbered frames and stills, found by walking folders."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av

from accmpeg.errors import SourceError
from accmpeg.media.frames import FrameTurner, to_yuv420p

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Footage", "find_footage", "folder_pictures", "read_still"]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".mts",
        ".m2ts",
        ".mpg",
        ".mpeg",
        ".m2v",
        ".flv",
        ".wmv",
        ".asf",
        ".3gp",
        ".ogv",
        ".ivf",
        ".y4m",
        ".gif",
        ".mjpeg",
        ".mjpg",
        ".h264",
        ".264",
        ".h265",
        ".265",
        ".hevc",
        ".vob",
        ".mxf",
        ".nut",
    }
)

FRAME_RATE = Fraction(25)


@dataclass(frozen=True)
class Footage:
    """One clip: a video file, a folder of numbered pictures ("frames"), or one picture ("still").

    `clip` names it uniquely within one `find_footage` call, so that training can split by clip.
    """

    path: Path
    kind: Literal["video", "frames", "still"]
    clip: str


def find_footage(paths: Sequence[str | Path]) -> list[Footage]:
    """All footage under files and folders, in a stable order.

    Folders are walked recursively, hidden entries and other kinds of files passed over. A folder whose
    pictures all have purely numeric names is one clip; other pictures are stills. Nothing is opened here.
    Raises SourceError for a path that does not exist, and if nothing is found at all.
    """
    found: list[Footage] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found += _walk(path)
        elif path.exists():
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
    pictures = [
        entry for entry in _entries(folder) if entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES
    ]
    return sorted(pictures, key=_natural_order)


def read_still(path: str | Path) -> av.VideoFrame:
    """A picture as a yuv420p frame of its own size, odd or not, upright as its EXIF data says; pts 0.

    Raises SourceError for a file that is missing, empty or no picture.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror or error}") from error
    if not data:
        raise SourceError(f"{path} is empty (0 bytes)")
    try:
        # From memory, because FFmpeg reads "%03d" in a picture's name as a pattern.
        with av.open(io.BytesIO(data), "r") as container:
            frame = next((f for f in container.decode(video=0) if not f.is_corrupt), None)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise SourceError(f"{path} is not a picture that FFmpeg can read: {_short(error)}") from error
    if frame is None:
        raise SourceError(f"{path} is damaged: no picture in it")
    still = FrameTurner(frame).turn(to_yuv420p(frame))
    still.pts, still.time_base = 0, 1 / FRAME_RATE
    return still


def _walk(root: Path) -> Iterator[Footage]:
    for folder, names, _ in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = Path(folder)
        label = here.relative_to(root.parent if root.name else root).as_posix()
        pictures = folder_pictures(here)
        if pictures and all(picture.stem.isdecimal() for picture in pictures):
            yield Footage(here, "frames", label)
        else:
            yield from (Footage(picture, "still", f"{label}/{picture.stem}") for picture in pictures)
        for entry in _entries(here):
            if entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES:
                yield Footage(entry, "video", f"{label}/{entry.stem}")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SourceError(f"can't read the folder {folder}: {error.strerror or error}") from error


def _uniquely_named(found: list[Footage]) -> list[Footage]:
    named: dict[str, Footage] = {}
    for footage in found:
        name, count = footage.clip, 1
        while name in named:
            count += 1
            name = f"{footage.clip}-{count}"
        named[name] = Footage(footage.path, footage.kind, name)
    return list(named.values())


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _short(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
