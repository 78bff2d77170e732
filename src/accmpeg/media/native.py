"""The libav structures behind PyAV objects, reached through ctypes and proven before use.

PyAV can neither attach side data to a frame nor change `maxrate` of an open encoder. Both are one C call on
the structure that the Python object wraps. Where that pointer lies in the object is a detail of PyAV's
build, so it is searched for once on a known object, and every read of the search goes through the
kernel, which reports a wrong address instead of crashing. Without a proof (another system, another
layout) these functions return None or False and callers take their slower way.
"""

import ctypes
import functools
import os
import struct
from collections.abc import Callable
from typing import Any

import av
import av.container.core
import av.video.frame
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

__all__ = [
    "attach_side_data",
    "can_attach_side_data",
    "has_protocol",
    "read_side_data",
    "remove_side_data",
    "set_codec_option",
]

_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
_FRAME_HEAD = struct.Struct("8Q8iQii")  # AVFrame: data[8], linesize[8], extended_data, width, height


def attach_side_data(frame: av.VideoFrame, kind: int, records: NDArray[Any]) -> bool:
    """Replaces the frame's side data of this kind (AVFrameSideDataType) by a copy of `records`."""
    library, offset = _libavutil(), _frame_pointer_offset()
    if library is None or offset is None:
        return False
    address = _pointer_at(frame, offset)
    library.av_frame_remove_side_data(address, kind)
    side_data = library.av_frame_new_side_data(address, kind, records.nbytes)
    if not side_data:
        raise MemoryError(f"no memory for {records.nbytes} bytes of side data")
    # AVFrameSideData is {enum type; uint8_t *data; size_t size; …}: the pointer is aligned behind the type.
    data = ctypes.c_void_p.from_address(side_data + _POINTER_BYTES).value or 0
    ctypes.memmove(data, records.ctypes.data, records.nbytes)
    return True


def read_side_data(frame: av.VideoFrame, kind: int) -> bytes | None:
    """The frame's side data of this kind; None if it has none, or where `can_attach_side_data` is False.

    PyAV's `frame.side_data` refers back to the frame, which then stays in memory until Python looks for such
    circles: every frame that is asked costs its pixels for minutes.
    """
    library, offset = _libavutil(), _frame_pointer_offset()
    if library is None or offset is None:
        return None
    side_data = library.av_frame_get_side_data(_pointer_at(frame, offset), kind)
    if not side_data:
        return None
    data, size = (ctypes.c_void_p.from_address(side_data + i * _POINTER_BYTES).value or 0 for i in (1, 2))
    return ctypes.string_at(data, size)


def remove_side_data(frame: av.VideoFrame, kind: int) -> None:
    """Takes the side data of this kind off a frame; does nothing where `can_attach_side_data` is False."""
    library, offset = _libavutil(), _frame_pointer_offset()
    if library is not None and offset is not None:
        library.av_frame_remove_side_data(_pointer_at(frame, offset), kind)


def can_attach_side_data() -> bool:
    """Whether the pointer behind a frame was found and proven on this machine."""
    return _libavutil() is not None and _frame_pointer_offset() is not None


def set_codec_option(context: VideoCodecContext, name: str, value: int) -> bool:
    """Sets a generic integer option (such as `maxrate`) of an open codec; False where that can't be done."""
    library = _libavutil()
    offset = _context_pointer_offset(context)
    if library is None or offset is None:
        return False
    return bool(library.av_opt_set_int(_pointer_at(context, offset), name.encode(), value, 0) == 0)


def has_protocol(scheme: str) -> bool | None:
    """Whether this FFmpeg can open `scheme://…`; None where it can't be asked."""
    try:
        find = ctypes.CDLL(av.container.core.__file__).avio_find_protocol_name
    except (OSError, AttributeError):
        return None
    find.restype, find.argtypes = ctypes.c_char_p, [ctypes.c_char_p]
    return find(f"{scheme}://".encode()) is not None


@functools.cache
def _libavutil() -> ctypes.CDLL | None:
    """The very libavutil that PyAV is linked to: another copy would free what it did not allocate.

    Looked up through PyAV's own extension module, because OpenCV brings a second libavutil into the process.
    """
    try:
        library = ctypes.CDLL(av.video.frame.__file__)
        library.av_frame_new_side_data  # noqa: B018 - raises where the module does not export what it uses
    except (OSError, AttributeError):
        return None
    library.av_frame_new_side_data.restype = ctypes.c_void_p
    library.av_frame_new_side_data.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    library.av_frame_get_side_data.restype = ctypes.c_void_p
    library.av_frame_get_side_data.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.av_frame_remove_side_data.restype = None
    library.av_frame_remove_side_data.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.av_opt_set_int.restype = ctypes.c_int
    library.av_opt_set_int.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int]
    return library


@functools.cache
def _frame_pointer_offset() -> int | None:
    frame = av.VideoFrame(66, 34, "yuv420p")
    plane = frame.planes[0]

    def is_frame(read: Callable[[int, int], bytes], address: int) -> bool:
        fields = _FRAME_HEAD.unpack(read(address, _FRAME_HEAD.size))
        return (fields[0], fields[8], fields[17], fields[18]) == (
            plane.buffer_ptr,
            plane.line_size,
            frame.width,
            frame.height,
        )

    return _find_pointer(frame, is_frame)


def _context_pointer_offset(context: VideoCodecContext) -> int | None:
    def is_context(read: Callable[[int, int], bytes], address: int) -> bool:
        (av_class,) = struct.unpack("Q", read(address, 8))
        (class_name,) = struct.unpack("Q", read(av_class, 8))
        return read(class_name, 15) == b"AVCodecContext\0"

    return _find_pointer(context, is_context)


def _find_pointer(wrapper: object, matches: Callable[[Callable[[int, int], bytes], int], bool]) -> int | None:
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError:
        return None

    def read(address: int, size: int) -> bytes:
        found = os.pread(memory, size, address)
        if len(found) != size:
            raise OSError(f"only {len(found)} bytes at {address:#x}")
        return found

    try:
        for offset in range(object.__basicsize__, type(wrapper).__basicsize__, _POINTER_BYTES):
            try:
                if matches(read, _pointer_at(wrapper, offset)):
                    return offset
            except (OSError, OverflowError):
                continue
    finally:
        os.close(memory)
    return None


def _pointer_at(wrapper: object, offset: int) -> int:
    return ctypes.c_void_p.from_address(id(wrapper) + offset).value or 0
