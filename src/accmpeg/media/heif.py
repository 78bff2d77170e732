"""How a HEIC or AVIF picture is put together: which item it is, its tiles, and how it is held.

FFmpeg hands out the coded items, one stream each with the item's number as its id; PyAV does not say how they
make a picture. Photographs of phones are grids of tiles (ISO/IEC 23008-12, 6.6.2.3), turned by `irot`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from accmpeg.errors import SourceError

__all__ = ["HeifPicture", "is_heif", "read_heif"]

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"avif", b"mif1", b"mif2", b"miaf"}
_CODED = {"hvc1", "av01", "avc1", "jpeg"}


@dataclass(frozen=True)
class HeifPicture:
    """The primary picture. `items` are the coded items that it shows, row by row.

    `width_px` and `height_px` are those of the grid, 0 for a picture of one item. `filters` are FFmpeg's,
    which cut the assembled picture and turn it upright.
    """

    items: list[int]
    columns: int = 1
    width_px: int = 0
    height_px: int = 0
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def is_grid(self) -> bool:
        return self.width_px > 0


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so is a HEIC or AVIF still."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def read_heif(data: bytes) -> HeifPicture:
    """Reads the boxes of a whole file.

    Raises SourceError, without the file's name, for a damaged file, and for ways of making up a picture that
    are not read here (overlays).
    """
    try:
        return _picture(data)
    except (struct.error, KeyError, IndexError, UnicodeDecodeError, ZeroDivisionError) as error:
        raise SourceError("its HEIF boxes are damaged") from error


def _picture(data: bytes) -> HeifPicture:
    meta = next((body for kind, body in _boxes(data) if kind == "meta"), None)
    if meta is None:
        raise SourceError("it has no picture, only a sequence")
    boxes = dict(_boxes(meta[4:]))
    (primary,) = struct.unpack_from(">I" if boxes["pitm"][0] else ">H", boxes["pitm"], 4)
    kinds = dict(_item_kinds(boxes["iinf"]))
    properties = _properties(boxes["iprp"]).get(primary, [])
    filters = tuple(each for kind, body in properties for each in _filters_of(kind, body))
    if kinds[primary] in _CODED:
        return HeifPicture([primary], filters=filters)
    if kinds[primary] != "grid":
        raise SourceError(f"it is a HEIF picture of the kind '{kinds[primary]}', which is not read")
    content = _content(data, boxes, primary)
    sizes = ">II" if content[1] & 1 else ">HH"
    rows, columns = content[2] + 1, content[3] + 1
    width_px, height_px = struct.unpack_from(sizes, content, 4)
    items = _tiles_of(boxes["iref"], primary)
    if len(items) != rows * columns or not width_px or not height_px:
        raise SourceError(f"it has {len(items)} tiles where a grid of {columns}x{rows} was promised")
    return HeifPicture(items, columns, width_px, height_px, filters)


def _boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        elif size == 0:
            size = len(data) - at
        if size < head:
            raise IndexError("a box smaller than its head")
        yield kind.decode("latin-1"), data[at + head : at + size]
        at += size


def _item_kinds(iinf: bytes) -> Iterator[tuple[int, str]]:
    for kind, body in _boxes(iinf[6 if iinf[0] == 0 else 8 :]):
        if kind == "infe" and body[0] >= 2:
            number = ">I" if body[0] == 3 else ">H"
            (item,) = struct.unpack_from(number, body, 4)
            at = 4 + struct.calcsize(number) + 2
            yield item, body[at : at + 4].decode("latin-1")


def _tiles_of(iref: bytes, item: int) -> list[int]:
    number = "I" if iref[0] else "H"
    width = struct.calcsize(number)
    for kind, body in _boxes(iref[4:]):
        origin, count = struct.unpack_from(f">{number}H", body)
        if kind == "dimg" and origin == item:
            return list(struct.unpack_from(f">{count}{number}", body, width + 2))
    return []


def _properties(iprp: bytes) -> dict[int, list[tuple[str, bytes]]]:
    """The properties of each item, in the order in which they apply."""
    found: dict[int, list[tuple[str, bytes]]] = {}
    known: list[tuple[str, bytes]] = []
    for kind, body in _boxes(iprp):
        if kind == "ipco":
            known = list(_boxes(body))
        elif kind == "ipma":
            (count,) = struct.unpack_from(">I", body, 4)
            at = 8
            for _ in range(count):
                (item,) = struct.unpack_from(">I" if body[0] else ">H", body, at)
                at += 4 if body[0] else 2
                wide, entries = body[3] & 1, body[at]
                at += 1
                for _ in range(entries):
                    index = struct.unpack_from(">H", body, at)[0] & 0x7FFF if wide else body[at] & 0x7F
                    at += 2 if wide else 1
                    if index:
                        found.setdefault(item, []).append(known[index - 1])
    return found


def _filters_of(kind: str, body: bytes) -> list[tuple[str, str]]:
    if kind == "irot":
        half = [("hflip", ""), ("vflip", "")]
        return [[], [("transpose", "cclock")], half, [("transpose", "clock")]][body[0] & 3]
    if kind == "imir":
        return [("hflip" if body[0] & 1 else "vflip", "")]
    if kind == "clap":
        # The clean aperture: libheif codes even sizes, and cuts what was added away again.
        values = struct.unpack_from(">4IiIiI", body)
        width, height, right, down = (Fraction(*pair) for pair in zip(values[::2], values[1::2], strict=True))
        at = f"(iw-ow)/2+({right}):(ih-oh)/2+({down})"
        return [("crop", f"{round(width)}:{round(height)}:{at}:exact=1")]
    return []


def _content(data: bytes, boxes: dict[str, bytes], wanted: int) -> bytes:
    """The bytes of an item, from the file or from the `idat` box."""
    iloc = boxes["iloc"]
    version, sizes = iloc[0], struct.unpack_from(">H", iloc, 4)[0]
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    at = 6

    def number(width: int) -> int:
        nonlocal at
        at += width
        if at > len(iloc):
            raise IndexError("the iloc box ends early")
        return int.from_bytes(iloc[at - width : at])

    wide = 4 if version == 2 else 2
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # another file: never here
        base = number(base_bytes)
        extents = []
        for _ in range(number(2)):
            number(index_bytes)
            extents.append((base + number(offset_bytes), number(length_bytes)))
        if item == wanted:
            source = boxes["idat"] if method == 1 else data
            return b"".join(source[start : start + length] for start, length in extents)
    raise KeyError(wanted)
