"""Bytes by frame and keyframes by stream: what a stream costs once it runs, however short the clip.

    bytes per frame = Σ over streams: mean keyframe · keyframes per frame + mean of the other frames
    keyframes per frame = share of frames sent / GOP + those that came before the GOP was over

A clip of six seconds has one keyframe in 150 frames where a stream has one in 250, and begins with it. A
keyframe that comes early (a scene cut, an encoder that was opened again) is really sent each time.
"""

from collections.abc import Sequence
from typing import NamedTuple

from accmpeg.errors import MethodError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.rows import BLOCK_FRAMES
from accmpeg.media.encoder import AccessUnit, EncoderSettings

__all__ = ["BlockBytes", "Traffic"]


class BlockBytes(NamedTuple):
    """Frames without a keyframe and their bytes, per block of ten frames after the warm-up."""

    frames: list[int]
    bytes: list[int]


class Traffic:
    """Counts what crosses the network, both ways, by the source frame that it belongs to."""

    def __init__(self, clip: Clip) -> None:
        self._frames, self._warm = len(clip.frames), clip.warm_frames
        self._by_pts = {frame.pts: index for index, frame in enumerate(clip.frames) if frame.pts is not None}
        self._time_base = clip.time_base
        self._bytes = [0] * self._frames
        self._keyframes: dict[str, list[int]] = {}
        self._sent: dict[str, int] = {}
        self._gop_frames: dict[str, int] = {}
        self._since_keyframe: dict[str, int] = {}
        self._early_keyframes: dict[str, int] = {}
        self._with_keyframe: set[int] = set()
        self.size_px: tuple[int, int] | None = None
        """Of the newest stream."""

    def add(self, units: Sequence[AccessUnit] | int, index: int) -> int:
        """Counts units, each at its own frame, or bytes at frame `index`; returns their bytes."""
        if isinstance(units, int):
            if units < 0:
                raise MethodError(f"{units} bytes can't be sent")
            self._bytes[index] += units
            return units
        for unit in units:
            self._bytes[self._index_of(unit, index)] += unit.size_bytes
        return sum(unit.size_bytes for unit in units)

    def belongs(
        self, units: Sequence[AccessUnit], stream: str, settings: EncoderSettings, index: int
    ) -> None:
        """Says which stream units are of that were added at frame `index`: keyframes count by stream."""
        self.size_px = settings.width_px, settings.height_px
        self._gop_frames[stream] = settings.gop_frames
        for unit in units:
            own = self._index_of(unit, index)
            if own >= self._warm:
                self._sent[stream] = self._sent.get(stream, 0) + 1
            since = self._since_keyframe.get(stream, settings.gop_frames) + 1
            if unit.is_keyframe:
                if own >= self._warm and since < settings.gop_frames:
                    self._early_keyframes[stream] = self._early_keyframes.get(stream, 0) + 1
                self._keyframes.setdefault(stream, []).append(unit.size_bytes)
                self._bytes[own] -= unit.size_bytes
                self._with_keyframe.add(own)
                since = 0
            self._since_keyframe[stream] = since

    @property
    def keyframe_bytes(self) -> float:
        """What keyframes cost in a GOP of the first stream, of all streams together."""
        measured = max(1, self._frames - self._warm)
        total = 0.0
        for stream, sizes in self._keyframes.items():
            share = min(1.0, self._sent.get(stream, 0) / measured)
            per_frame = share / self._gop_frames[stream] + self._early_keyframes.get(stream, 0) / measured
            total += sum(sizes) / len(sizes) * per_frame
        return total * self.gop_frames

    @property
    def gop_frames(self) -> int:
        """Frames from keyframe to keyframe, of the first stream."""
        return next(iter(self._gop_frames.values()), 1)

    @property
    def bytes_per_frame(self) -> float:
        """Of a stream that goes on, both ways: times 8 and the frame rate it is the bitrate."""
        plain = self.blocks()
        return self.keyframe_bytes / self.gop_frames + sum(plain.bytes) / max(1, sum(plain.frames))

    def blocks(self) -> BlockBytes:
        """Per block, without keyframes and the frames that carry them."""
        frames, sizes = [], []
        for start in range(self._warm, self._frames, BLOCK_FRAMES):
            plain = [
                index
                for index in range(start, min(start + BLOCK_FRAMES, self._frames))
                if index not in self._with_keyframe
            ]
            frames.append(len(plain))
            sizes.append(sum(self._bytes[index] for index in plain))
        return BlockBytes(frames, sizes)

    def _index_of(self, unit: AccessUnit, fallback: int) -> int:
        # Encoders with B-frames and chunked methods hand a frame's bytes over later than the frame.
        return self._by_pts.get(unit.pts, fallback) if unit.time_base == self._time_base else fallback
