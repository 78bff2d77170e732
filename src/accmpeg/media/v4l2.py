"""Cameras of this machine, as Linux's Video4Linux2 has them: which paths mean one, and what each offers.

FFmpeg reads the frames. What it does not tell is asked of the driver here: see `linux/videodev2.h`, whose
structures and request numbers these are.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

__all__ = ["FORMATS", "Device", "Mode", "devices", "is_device", "look_at"]

# What people write for `--input-format`, by the driver's four letters; FFmpeg's name where it is another.
FORMATS = {
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "YUYV": "yuyv422",
    "UYVY": "uyvy422",
    "YVYU": "yvyu422",
    "NV12": "nv12",
    "NV21": "nv21",
    "YU12": "yuv420p",
    "422P": "yuv422p",
    "GREY": "gray",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
    "H264": "h264",
    "HEVC": "hevc",
}

_MAJOR = 81
_FOLDERS = ("/dev/video", "/dev/v4l/")

_QUERY = 0x80685600  # VIDIOC_QUERYCAP
_FORMAT = 0xC0405602  # VIDIOC_ENUM_FMT
_SIZE = 0xC02C564A  # VIDIOC_ENUM_FRAMESIZES
_INTERVAL = 0xC034564B  # VIDIOC_ENUM_FRAMEINTERVALS
_CAPTURES = 0x1
_HAS_OWN_CAPABILITIES = 0x80000000
_DISCRETE = 1
_MOST = 64  # entries of one list: a driver that never says "no more" must not hold us


@dataclass(frozen=True)
class Mode:
    """A format and size of a device, with its frame rates, the fastest first (empty: it does not say)."""

    format: str
    size_px: tuple[int, int]
    rates: tuple[Fraction, ...] = ()

    def __str__(self) -> str:
        rates = ", ".join(f"{float(rate):g}" for rate in self.rates)
        return f"{self.format} {self.size_px[0]}x{self.size_px[1]}{f' at {rates}/s' if rates else ''}"


@dataclass(frozen=True)
class Device:
    """A camera of this machine. `names` are its lasting ones, under `/dev/v4l`."""

    path: Path
    card: str
    driver: str
    modes: tuple[Mode, ...]
    names: tuple[Path, ...] = ()


def is_device(path: Path) -> bool:
    """Whether a path is a V4L2 device, also through links, and also while its camera is unplugged."""
    if str(path).startswith(_FOLDERS):
        return True
    try:
        found = path.stat()
    except OSError:  # perhaps a link to a device that is away
        return os.path.realpath(path).startswith(_FOLDERS)
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == _MAJOR


def devices(folder: Path = Path("/dev")) -> list[Device | tuple[Path, OSError]]:
    """The cameras below `folder`, in order of their numbers; with the error, those that can't be asked.

    What captures no pictures (a webcam's second node, a decoder) is left out.
    """
    found: list[Device | tuple[Path, OSError]] = []
    for path in sorted(folder.glob("video*"), key=lambda each: (len(each.name), each.name)):
        try:
            device = look_at(path)
        except OSError as error:
            found.append((path, error))
            continue
        if device is not None:
            found.append(device)
    return found


def look_at(path: Path) -> Device | None:
    """What a device is and offers; None if it captures no pictures. Raises OSError if it can't be asked."""
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        answer = _ask(handle, _QUERY, b"", 104)
        driver, card, _, _, everything, own, *_ = struct.unpack("=16s32s32s6I", answer)
        if not (own if everything & _HAS_OWN_CAPABILITIES else everything) & _CAPTURES:
            return None
        modes = tuple(mode for code in _formats(handle) for mode in _modes(handle, code))
    finally:
        os.close(handle)
    return Device(path, _text(card), _text(driver), modes, _lasting_names(path))


def _formats(handle: int) -> Iterator[int]:
    for index in range(_MOST):
        try:
            answer = _ask(handle, _FORMAT, struct.pack("=2I", index, _CAPTURES), 64)
        except OSError:  # EINVAL: no more
            return
        yield struct.unpack_from("=I", answer, 44)[0]


def _modes(handle: int, code: int) -> Iterator[Mode]:
    letters = struct.pack("=I", code).decode("latin1").strip()
    name = FORMATS.get(letters, letters)
    for index in range(_MOST):
        try:
            answer = _ask(handle, _SIZE, struct.pack("=2I", index, code), 44)
        except OSError:
            return
        kind, width_px, largest_px, _, _, highest_px, _ = struct.unpack_from("=7I", answer, 8)
        if kind != _DISCRETE:  # any size up to this one
            yield Mode(name, (largest_px, highest_px), _rates(handle, code, (largest_px, highest_px)))
            return
        yield Mode(name, (width_px, largest_px), _rates(handle, code, (width_px, largest_px)))


def _rates(handle: int, code: int, size_px: tuple[int, int]) -> tuple[Fraction, ...]:
    rates: set[Fraction] = set()
    for index in range(_MOST):
        try:
            answer = _ask(handle, _INTERVAL, struct.pack("=4I", index, code, *size_px), 52)
        except OSError:
            break
        kind, count, per = struct.unpack_from("=3I", answer, 16)
        if count and per:
            rates.add(Fraction(per, count))
        if kind != _DISCRETE:  # a range, of which this is the shortest interval
            break
    return tuple(sorted(rates, reverse=True))


def _ask(handle: int, request: int, question: bytes, size_bytes: int) -> bytes:
    answer = bytearray(question.ljust(size_bytes, b"\0"))
    while True:
        try:
            fcntl.ioctl(handle, request, answer)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        else:
            return bytes(answer)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _lasting_names(path: Path) -> tuple[Path, ...]:
    links = Path(path.parent, "v4l").glob("by-*/*")
    return tuple(sorted(link for link in links if os.path.realpath(link) == os.path.realpath(path)))
