"""Frames as every door of this package wants them: 8-bit limited-range yuv420p, odd sizes included."""

import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from accmpeg.media import native
from accmpeg.media.grid import MACROBLOCK_PX

__all__ = [
    "Deinterlacer",
    "FrameCropper",
    "FrameTurner",
    "filter_graph",
    "loses_colours",
    "pad_to_even",
    "pasted",
    "plane_view",
    "rgb_of",
    "tiled",
    "to_yuv420p",
    "turned",
]

_GREY = 128  # in luma; colourless in chroma
_ANY_TIME_BASE = Fraction(1, 25)
_BWDIF = ("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
_FULL_RANGE = int(ColorRange.JPEG)
_RGB_MATRIX, _UNSPECIFIED_MATRIX, _BT601_MATRIX = 0, 2, 6  # AVColorSpace
_READ_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
# "Reserved", as some cameras write, says nothing; of BT.2020 the constant luminance is as good as the other.
_TAKEN_AS = {3: _UNSPECIFIED_MATRIX, 10: 9}


def to_yuv420p(frame: av.VideoFrame) -> av.VideoFrame:
    """Converts any pixel format, bit depth and range; a limited-range yuv420p frame passes untouched.

    The YCbCr matrix of the frame is kept and stays tagged on it; RGB becomes BT.601, and so do grey and
    palette pictures that are tagged as RGB (as all PNG files are), which YCbCr can't be.
    """
    if int(frame.colorspace) not in _READ_MATRICES:  # swscale would refuse the frame here or later
        frame.colorspace = _TAKEN_AS.get(int(frame.colorspace), _UNSPECIFIED_MATRIX)
    name = frame.format.name
    full_range = name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE
    if name == "yuv420p" and not full_range:
        return frame
    is_rgb = frame.format.is_rgb or frame.format.has_palette or int(frame.colorspace) == _RGB_MATRIX
    converted = frame.reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG if full_range or is_rgb else ColorRange.MPEG,
        dst_color_range=ColorRange.MPEG,
        dst_colorspace=Colorspace.ITU601 if is_rgb else None,
        threads=1,
    )
    converted.color_range = int(ColorRange.MPEG)
    if is_rgb:
        converted.colorspace = _BT601_MATRIX
    return converted


def loses_colours(frame: av.VideoFrame) -> bool:
    """Whether its matrix, such as YCgCo, is one that nothing here can read."""
    return int(frame.colorspace) not in _READ_MATRICES | _TAKEN_AS.keys()


def plane_view(frame: av.VideoFrame, index: int) -> NDArray[np.uint8]:
    """One plane as a writable (height, width) view of the frame's own memory, row padding cut off."""
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _like(frame: av.VideoFrame) -> av.VideoFrame:
    """A new yuv420p frame of the same size, time and colours, its planes still to be filled."""
    picture = av.VideoFrame(frame.width, frame.height, "yuv420p")
    picture.pts = frame.pts
    if frame.time_base is not None:
        picture.time_base = frame.time_base
    picture.colorspace, picture.color_range = frame.colorspace, frame.color_range
    picture.color_primaries, picture.color_trc = frame.color_primaries, frame.color_trc
    return picture


def pasted(below: av.VideoFrame, above: av.VideoFrame | None, where: NDArray[np.bool_]) -> av.VideoFrame:
    """A copy of `below`, a yuv420p frame, with the macroblocks `where` `(rows, cols)` taken from `above`.

    That one is of the same size; without one these macroblocks become grey.
    """
    picture = _like(below)
    for index in range(3):
        target = plane_view(picture, index)
        side = MACROBLOCK_PX if index == 0 else MACROBLOCK_PX // 2
        inside = np.repeat(np.repeat(where, side, axis=0), side, axis=1)[: target.shape[0], : target.shape[1]]
        np.copyto(target, plane_view(below, index))
        np.copyto(target, np.uint8(_GREY) if above is None else plane_view(above, index), where=inside)
    return picture


def rgb_of(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The picture as RGB, (height, width, 3)."""
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def pad_to_even(frame: av.VideoFrame) -> av.VideoFrame:
    """Adds a column or row, edge pixels repeated, where the size is odd; else gives the frame back."""
    width_px, height_px = frame.width + frame.width % 2, frame.height + frame.height % 2
    if (width_px, height_px) == (frame.width, frame.height):
        return frame
    padded = av.VideoFrame(width_px, height_px, "yuv420p")
    for index in range(3):
        source, target = plane_view(frame, index), plane_view(padded, index)
        rows, cols = (have - got for have, got in zip(target.shape, source.shape, strict=True))
        target[:] = np.pad(source, ((0, rows), (0, cols)), mode="edge")
    padded.pts, padded.duration = frame.pts, frame.duration
    if frame.time_base is not None:
        padded.time_base = frame.time_base
    _tag_colours(padded, frame)
    return padded


def tiled(tiles: Sequence[av.VideoFrame], columns: int, width_px: int, height_px: int) -> av.VideoFrame:
    """One yuv420p picture of equal yuv420p tiles, row by row, cut to its size.

    Raises ValueError for tiles that differ, have odd sizes, or do not cover the picture.
    """
    first = tiles[0]
    rows = len(tiles) // columns
    if any((tile.width, tile.height) != (first.width, first.height) for tile in tiles):
        raise ValueError("its tiles differ in size")
    if first.width % 2 or first.height % 2:
        raise ValueError(f"its tiles have {first.width}x{first.height} px, an odd size")
    if columns * first.width < width_px or rows * first.height < height_px:
        raise ValueError("its tiles do not cover it")
    whole = av.VideoFrame(columns * first.width, rows * first.height, "yuv420p")
    for index in range(3):
        target = plane_view(whole, index)
        for number, tile in enumerate(tiles):
            part = plane_view(tile, index)
            top, left = number // columns * part.shape[0], number % columns * part.shape[1]
            target[top : top + part.shape[0], left : left + part.shape[1]] = part
    _tag_colours(whole, first)
    return FrameCropper(width_px, height_px).crop(whole)


def filter_graph(frame: av.VideoFrame, filters: Sequence[tuple[str, str]]) -> Graph:
    """A chain of FFmpeg filters, each with its options, for frames such as this one."""
    graph = Graph()
    buffer = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or _ANY_TIME_BASE,
    )
    chain = [graph.add(name, options) for name, options in filters]
    graph.link_nodes(buffer, *chain, graph.add("buffersink")).configure()
    return graph


def turned(frame: av.VideoFrame, filters: Sequence[tuple[str, str]]) -> av.VideoFrame:
    """The frame after these FFmpeg filters, each with its options."""
    return _Filters(list(filters)).apply(frame)


def _tag_colours(frame: av.VideoFrame, like: av.VideoFrame) -> None:
    frame.colorspace, frame.color_range = like.colorspace, like.color_range
    frame.color_primaries, frame.color_trc = like.color_primaries, like.color_trc


class FrameCropper:
    """Cuts frames to their top-left `width_px` × `height_px`, without a copy, side data kept."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self._size = width_px, height_px
        self._filters = _Filters([("crop", f"{width_px}:{height_px}:0:0:exact=1")])

    def crop(self, frame: av.VideoFrame) -> av.VideoFrame:
        return frame if (frame.width, frame.height) == self._size else self._filters.apply(frame)


class FrameTurner:
    """Turns frames upright as `first` says: phones write what the sensor saw, and how to hold it.

    Quarter turns and mirrorings, at 0.2 ms of CPU for 1280x720; frames that are upright pass untouched.
    """

    def __init__(self, first: av.VideoFrame) -> None:
        axes = _display_axes(first)
        self._filters = _Filters(_TURNS.get(axes, []) if axes else [])

    @property
    def swaps_sides(self) -> bool:
        """Whether frames are turned by a quarter, so that width becomes height."""
        return any(name == "transpose" for name, _ in self._filters.chain)

    def turn(self, frame: av.VideoFrame) -> av.VideoFrame:
        return self._filters.apply(frame)


class Deinterlacer:
    """Makes whole pictures of pairs of fields (`bwdif`), one frame later; progressive frames pass untouched.

    The filter is built for the first interlaced frame, and anew where size or format change; until then
    frames go straight through. Timestamps stay with their frames.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._input: tuple[int, int, str] | None = None
        self._inside: deque[av.VideoFrame] = deque()

    def push(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        """The frames that this one completes, in order."""
        done: list[av.VideoFrame] = []
        kind = frame.width, frame.height, frame.format.name
        if self._graph is not None and kind != self._input:
            done = self.flush()
        if self._graph is None:
            # Two fields of one line can't be told apart, and bwdif takes no picture of fewer than four.
            if not frame.interlaced_frame or min(frame.width, frame.height) < 4:
                return [*done, frame]
            self._graph, self._input = filter_graph(frame, [_BWDIF]), kind
        self._inside.append(frame)
        self._graph.vpush(frame)
        return done + self._pulled()

    def flush(self) -> list[av.VideoFrame]:
        """The frame that waits for its successor."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        done = self._pulled()
        self._graph = None
        self._inside.clear()
        return done

    def _pulled(self) -> list[av.VideoFrame]:
        assert self._graph is not None
        done = []
        with suppress(BlockingIOError, EOFError):
            while True:
                frame, origin = self._graph.vpull(), self._inside.popleft()
                frame.pts = origin.pts
                if origin.time_base is not None:
                    frame.time_base = origin.time_base
                done.append(frame)
        return done


# By the signs of a, b, c, d of the display matrix: x' = a·x + c·y, y' = b·x + d·y, y downwards.
_TURNS = {
    (-1, 0, 0, 1): [("hflip", "")],
    (1, 0, 0, -1): [("vflip", "")],
    (-1, 0, 0, -1): [("hflip", ""), ("vflip", "")],
    (0, 1, 1, 0): [("transpose", "cclock_flip")],
    (0, 1, -1, 0): [("transpose", "clock")],
    (0, -1, 1, 0): [("transpose", "cclock")],
    (0, -1, -1, 0): [("transpose", "clock_flip")],
}
_AXES_OF_ROTATION = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}
_DISPLAY_MATRIX = int(SideDataType.DISPLAYMATRIX.value)  # type: ignore[call-overload]


def _display_axes(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """Signs of the display matrix's a, b, c, d; None where the frame has none."""
    if not native.can_attach_side_data():
        return _AXES_OF_ROTATION.get(frame.rotation)  # all but mirrorings
    matrix = native.read_side_data(frame, _DISPLAY_MATRIX)
    if matrix is None:
        return None
    a, b, _, c, d = (int(np.sign(value)) for value in struct.unpack_from("5i", matrix))
    return a, b, c, d


class _Filters:
    """FFmpeg filters, one frame in and one out; none leave frames as they are."""

    def __init__(self, filters: list[tuple[str, str]]) -> None:
        self.chain = filters
        if ("vflip", "") in filters:
            self.chain = [*filters, ("copy", "")]  # vflip alone only turns line sizes negative
        self._graph: Graph | None = None
        self._input_size = (0, 0)

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        if not self.chain:
            return frame
        if self._graph is None or self._input_size != (frame.width, frame.height):
            self._input_size = (frame.width, frame.height)
            self._graph = filter_graph(frame, self.chain)
        self._graph.vpush(frame)
        filtered = self._graph.vpull()
        filtered.pts = frame.pts
        if frame.time_base is not None:
            filtered.time_base = frame.time_base
        return filtered
