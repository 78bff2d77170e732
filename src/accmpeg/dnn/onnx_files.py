"""Which files an ONNX network consists of: large ones keep their weights in files beside the `.onnx`.

Read from the file's own bytes (protocol buffers: a sequence of numbered fields), because a server has no
`onnx` package; only the fields on the way to a tensor's `external_data` are followed, all others are skipped.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

__all__ = ["external_files"]

# Field numbers of onnx.proto, by message: which message a field holds.
MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, ENTRY = range(8)
FOLLOWED = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    FUNCTION: {7: NODE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    TENSOR: {13: ENTRY},
}
MAX_DEPTH = 32


def external_files(model: Path) -> list[Path]:
    """The files that hold weights of an ONNX file, sorted; empty for one that is complete or is no ONNX.

    OpenVINO's own `.xml` has them in the `.bin` beside it. Raises `OSError` where the file can't be read.
    """
    if model.suffix == ".xml":
        return [model.with_suffix(".bin")]
    with model.open("rb") as stream:
        if model.stat().st_size == 0:
            return []
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                names = set(_locations(content, 0, len(content), MODEL, 0))
            except (ValueError, IndexError, UnicodeDecodeError):
                # Damaged: that is for whoever opens it to say.
                return []
    return sorted(model.parent / name for name in names)


def _locations(content: mmap.mmap, start: int, end: int, message: int, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for number, first, last in _fields(content, start, end):
        kind = FOLLOWED[message].get(number)
        if kind == ENTRY:
            key, value = (
                next((content[a:b] for n, a, b in _fields(content, first, last) if n == wanted), b"")
                for wanted in (1, 2)
            )
            if key == b"location":
                yield value.decode()
        elif kind is not None:
            yield from _locations(content, first, last, kind, depth + 1)


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field that holds bytes; raises `ValueError` for what is no message."""
    while at < end:
        tag, at = _varint(content, at)
        match tag & 7:
            case 0:
                _, at = _varint(content, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(content, at)
                if at + length > end:
                    raise ValueError("a field beyond its message")
                yield tag >> 3, at, at + length
                at += length
            case 5:
                at += 4
            case _:
                raise ValueError("an unknown kind of field")


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")
