"""One camera's bitstream in the server: access units in, checked frames out. Used in worker threads."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.errors import DecoderError
from accmpeg.media.decoder import Decoder, qp_map
from accmpeg.media.encoder import AccessUnit
from accmpeg.media.frames import FrameCropper

__all__ = ["ReceivedUnit", "StreamDecoder", "read_quality_map"]

_UNIT_TIME_BASE = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class ReceivedUnit:
    """An access unit as it came. `size_px` is the size of its frame, before any padding to even numbers."""

    sequence: int
    data: bytes
    is_keyframe: bool
    size_px: tuple[int, int]


class StreamDecoder:
    """Decodes one stream whose size and B-frames may change at keyframes; for one thread at a time.

    Frames come out with their sequence as `pts`, so that a client's timestamps can't confuse them.
    """

    def __init__(self, codec: str, parameter_sets: bytes, size_px: tuple[int, int]) -> None:
        self._codec = codec
        self._size_px = size_px
        self._decoder = self._open(parameter_sets)
        self._cropper = FrameCropper(*size_px)
        self._sequence = b""
        self.waits_for_keyframe = True

    def decode(self, unit: ReceivedUnit) -> list[VideoFrame]:
        """The frames that this unit completes. Raises `DecoderError`; then none come up to a keyframe."""
        if self.waits_for_keyframe and not unit.is_keyframe:
            return []
        held: list[VideoFrame] = []
        if unit.size_px != self._size_px and not unit.is_keyframe:
            raise self._damaged("a new size without a keyframe")
        if self._begins_anew(unit) or unit.size_px != self._size_px:
            held = self.flush()
            self._size_px = unit.size_px
            self._decoder.close()
            self._decoder = self._open(b"")
            self._cropper = FrameCropper(*unit.size_px)
        coded = AccessUnit(unit.data, unit.sequence, unit.sequence, _UNIT_TIME_BASE, unit.is_keyframe)
        try:
            frames = self._decoder.decode(coded)
        except DecoderError:
            self.waits_for_keyframe = True
            raise
        self.waits_for_keyframe = False
        return [*held, *(self._checked(frame) for frame in frames)]

    def flush(self) -> list[VideoFrame]:
        """The frames still held for reordering; nothing is decoded after it."""
        try:
            return [self._checked(frame) for frame in self._decoder.flush()]
        except DecoderError:
            return []

    def close(self) -> None:
        self._decoder.close()

    def _open(self, parameter_sets: bytes) -> Decoder:
        # The coded picture is up to a superblock larger on each side than what is shown of it.
        width_px, height_px = ((side + 127) // 64 * 64 for side in self._size_px)
        return Decoder(self._codec, parameter_sets, max_pixels=width_px * height_px)

    def _begins_anew(self, unit: ReceivedUnit) -> bool:
        """Whether another encoder has made it: a decoder that has held frames for B-frames never stops to."""
        before = self._sequence
        if unit.is_keyframe:
            self._sequence = _sequence_parameters(self._codec, unit.data) or before
        return before not in (b"", self._sequence)

    def _checked(self, frame: VideoFrame) -> VideoFrame:
        width_px, height_px = self._size_px
        # An odd size is coded with one more column or row.
        if frame.width - width_px not in (0, width_px % 2) or frame.height - height_px not in (
            0,
            height_px % 2,
        ):
            raise self._damaged(
                f"a frame of {frame.width}x{frame.height} px in a stream of {width_px}x{height_px}"
            )
        return self._cropper.crop(frame)

    def _damaged(self, reason: str) -> DecoderError:
        self.waits_for_keyframe = True
        return DecoderError(reason)


def _sequence_parameters(codec: str, data: bytes) -> bytes:
    """The sequence parameter set at the beginning of a keyframe; empty where there is none."""
    for unit in data[:512].split(b"\0\0\1")[1:]:
        if unit and (unit[0] & 31 == 7 if codec == "h264" else codec == "hevc" and unit[0] >> 1 & 63 == 33):
            return unit
    return b""


def read_quality_map(unit: ReceivedUnit, parameter_sets: bytes) -> NDArray[np.int32] | None:
    """The QP of every macroblock, `(rows, cols)`, of an H.264 keyframe; None where it can't be told.

    Opens a decoder for this one picture: reading QPs along with all frames would cost every camera that
    nobody looks at.
    """
    width_px, height_px = ((side + 127) // 64 * 64 for side in unit.size_px)
    try:
        decoder = Decoder("h264", parameter_sets, read_qp=True, max_pixels=width_px * height_px)
        with decoder:
            frames = decoder.decode(unit.data) + decoder.flush()
        return qp_map(frames[0]) if frames else None
    except DecoderError:
        return None
