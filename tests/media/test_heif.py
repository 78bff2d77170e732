"""Pictures made of tiles, as phones write them, put together here box by box."""

import struct
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest

from accmpeg.errors import SourceError
from accmpeg.media.footage import find_footage, read_still
from accmpeg.media.frames import plane_view
from accmpeg.media.source import open_source

TILE_PX = 64
CODECS = {
    "heic": (
        "libx265",
        "hvc1",
        "hvcC",
        {"x265-params": "log-level=none:bframes=0", "tune": "zerolatency", "crf": "4"},
    ),
    "avif": ("libsvtav1", "av01", "av1C", {"crf": "4"}),
}


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def full_box(kind, version, *parts):
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def coded(tmp_path, frame, suffix):
    """One picture as an item: its bytes, and the box that sets the decoder up."""
    codec, _, setup, options = CODECS[suffix]
    path = tmp_path / "tile.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = frame.width, frame.height
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    at = data.index(setup.encode()) - 4
    with av.open(path) as container:
        sample = next(bytes(packet) for packet in container.demux(video=0) if packet.size)
    return sample, data[at : at + int.from_bytes(data[at : at + 4])]


def write_picture(tmp_path, name, tiles, columns, size_px, *, properties=(), kind="grid", drop_tiles=0):
    suffix = name.rpartition(".")[2].lower()
    tag = CODECS[suffix][1]
    items = [coded(tmp_path, tile, suffix) for tile in tiles]
    numbers = range(2, 2 + len(items))
    grid = bytes([0, 0, len(items) // columns - 1, columns - 1]) + struct.pack(">HH", *size_px)
    entries = [full_box("infe", 2, struct.pack(">HH4sx", 1, 0, kind.encode()))]
    entries += [full_box("infe", 2, struct.pack(">HH4sx", number, 0, tag.encode())) for number in numbers]
    tile_size = full_box("ispe", 0, struct.pack(">II", tiles[0].width, tiles[0].height))
    whole_size = full_box("ispe", 0, struct.pack(">II", *size_px))
    known = [whole_size, tile_size, items[0][1], *properties]
    of_whole = [1, *range(4, 4 + len(properties))]
    associated = [struct.pack(f">HB{len(of_whole)}B", 1, len(of_whole), *of_whole)]
    associated += [struct.pack(">HBBB", number, 2, 2, 0x83) for number in numbers]
    shown = list(numbers)[drop_tiles:]

    def meta(first_at):
        places = [struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))]
        at = first_at
        for number, (sample, _) in zip(numbers, items, strict=True):
            places.append(struct.pack(">HHHHII", number, 0, 0, 1, at, len(sample)))
            at += len(sample)
        return full_box(
            "meta", 0,
            full_box("hdlr", 0, struct.pack(">4x4s12xx", b"pict")),
            full_box("pitm", 0, struct.pack(">H", 1)),
            full_box("iloc", 1, struct.pack(">HH", 0x4400, len(places)), *places),
            full_box("iinf", 0, struct.pack(">H", len(entries)), *entries),
            full_box("iref", 0, box("dimg", struct.pack(f">HH{len(shown)}H", 1, len(shown), *shown))),
            box(
                "iprp",
                box("ipco", *known),
                full_box("ipma", 0, struct.pack(">I", len(associated)), *associated),
            ),
            box("idat", grid),
        )  # fmt: skip

    head = box("ftyp", suffix.encode(), bytes(4), b"mif1", suffix.encode())
    first_at = len(head) + len(meta(0)) + 8
    path = tmp_path / name
    path.write_bytes(head + meta(first_at) + box("mdat", *(sample for sample, _ in items)))
    (tmp_path / "tile.mp4").unlink()
    return path


def grey_tile(level, size_px=(TILE_PX, TILE_PX)):
    frame = av.VideoFrame(*size_px, "yuv420p")
    for index, value in enumerate((level, 128, 128)):
        plane_view(frame, index)[:] = value
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


LEVELS = (40, 90, 140, 190, 220, 60)  # 3 columns, 2 rows


def levels_of(frame, columns=3, rows=2):
    luma = plane_view(frame, 0)
    height_px, width_px = luma.shape
    return [
        int(luma[(2 * row + 1) * height_px // (2 * rows), (2 * column + 1) * width_px // (2 * columns)])
        for row in range(rows)
        for column in range(columns)
    ]


@pytest.mark.parametrize("name", ["a.heic", "a.avif", "IMG_1.HEIC"])
def test_tiles_become_one_picture(tmp_path, name):
    path = write_picture(
        tmp_path, name, [grey_tile(level) for level in LEVELS], 3, (3 * TILE_PX - 10, 2 * TILE_PX - 5)
    )
    still = read_still(path)
    assert (still.width, still.height, still.format.name) == (182, 123, "yuv420p")
    assert levels_of(still) == pytest.approx(LEVELS, abs=3)
    with open_source(path) as source:
        (frame,) = source
    assert (frame.width, frame.height) == (182, 123)
    assert [footage.kind for footage in find_footage([tmp_path])] == ["still"]


@pytest.mark.parametrize(
    ("properties", "turn"),
    [
        ([box("irot", b"\1")], lambda a: np.rot90(a, 1)),
        ([box("irot", b"\2")], lambda a: np.rot90(a, 2)),
        ([box("irot", b"\3")], lambda a: np.rot90(a, 3)),
        ([box("imir", b"\0")], np.flipud),
        ([box("imir", b"\1")], np.fliplr),
        ([box("irot", b"\1"), box("imir", b"\1")], lambda a: np.fliplr(np.rot90(a, 1))),
    ],
)
def test_tiled_pictures_come_upright(tmp_path, properties, turn):
    tiles = [grey_tile(level) for level in LEVELS]
    path = write_picture(tmp_path, "a.avif", tiles, 3, (3 * TILE_PX, 2 * TILE_PX), properties=properties)
    expected = turn(np.reshape(LEVELS, (2, 3)))
    found = levels_of(read_still(path), columns=expected.shape[1], rows=expected.shape[0])
    assert found == pytest.approx(expected.ravel().tolist(), abs=3)


def test_a_clean_aperture_cuts_the_picture_before_it_is_turned(tmp_path):
    tiles = [grey_tile(level) for level in LEVELS[:2]]
    # 97x60 px, their centre 15.5 to the right of the middle and 2 above it: x from 31 to 127, y from 0 to 59.
    aperture = struct.pack(">4IiIiI", 97, 1, 60, 1, 31, 2, -2, 1)
    properties = [box("clap", aperture), box("irot", b"\3")]
    size_px = (2 * TILE_PX, TILE_PX)
    still = read_still(write_picture(tmp_path, "a.heic", tiles, 2, size_px, properties=properties))
    assert (still.width, still.height) == (60, 97)
    luma = plane_view(still, 0).mean(axis=1)
    assert luma[:33] == pytest.approx(LEVELS[0], abs=3)
    assert luma[33:] == pytest.approx(LEVELS[1], abs=3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "iovl"}, "iovl"),
        ({"drop_tiles": 1}, "1 tiles where a grid of 2x1"),
        ({"properties": [box("clap", bytes(32))]}, "damaged"),
        ({"size_px": (3 * TILE_PX, TILE_PX)}, "do not cover"),
    ],
)
def test_what_can_not_be_put_together_is_refused_by_name(tmp_path, changes, says):
    tiles = [grey_tile(level) for level in LEVELS[:2]]
    size_px = changes.pop("size_px", (2 * TILE_PX, TILE_PX))
    path = write_picture(tmp_path, "a.avif", tiles, 2, size_px, **changes)
    with pytest.raises(SourceError, match=says) as refused:
        read_still(path)
    assert "a.avif" in str(refused.value)


def test_damaged_boxes_are_one_clear_error(tmp_path):
    path = write_picture(tmp_path, "a.avif", [grey_tile(level) for level in LEVELS], 3, (192, 128))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in random.integers(0, min(600, len(whole)), 4):
            damaged[at] = random.integers(256)
        path.write_bytes(bytes(damaged[: random.integers(20, len(whole))]))
        with suppress(SourceError):  # and nothing else: some damage leaves a picture
            read_still(path)


def test_a_tiled_picture_without_a_suffix_is_whole_too(tmp_path):
    path = write_picture(tmp_path, "a.avif", [grey_tile(level) for level in LEVELS], 3, (192, 128))
    with open_source(path.rename(tmp_path / "photograph")) as source:
        assert (source.info.width_px, source.info.height_px) == (192, 128)
