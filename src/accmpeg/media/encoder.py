"""The encoder: a frame and a map of QP offsets in, access units of a standard bitstream out.

```
frame ─▶ yuv420p, even size ─▶ regions of interest (roi.py) ─▶ libx264 | libx265 | libvpx-vp9 ─▶ AccessUnit
```

Most ways to set up these encoders drop the map without a word. So every steerable encoder is proven when it
is opened: its options encode a small picture under two opposite maps, and unless quality follows the map,
MapIgnoredError is raised.
"""

import functools
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from numpy.typing import NDArray

from accmpeg.errors import EncoderError, MapIgnoredError, reason
from accmpeg.media import native
from accmpeg.media.closing import Closing
from accmpeg.media.codecs import CODECS, Codec, EncoderSettings, find_codec
from accmpeg.media.frames import pad_to_even, to_yuv420p
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.probe import UNTAGGED, ColourTags, map_steers, open_context, rate_options, shown
from accmpeg.media.roi import MapAttacher

__all__ = ["AccessUnit", "Encoder", "EncoderSettings"]

_DEFAULT_TIME_BASE = Fraction(1, 90000)
_LAMBDA_PER_QP = 118  # FF_QP2LAMBDA, the unit that FFmpeg's encoders report quality in
_GLOBAL_HEADER = int(av.codec.context.Flags.global_header)


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded frame. `pts` and `dts` count in `time_base` seconds; keyframes carry their parameter sets.

    `qp` is the frame's own QP, before the map's offsets, where the encoder says it (libx264 and libx265 do).
    """

    data: bytes
    pts: int
    dts: int
    time_base: Fraction
    is_keyframe: bool
    qp: float | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data)


class Encoder(Closing):
    """One stream. Raises EncoderError at open for settings that the codec refuses, MapIgnoredError if it
    would drop the map.

    H.264 and H.265 in 4:2:0 can't say an odd size, so an odd frame is coded one pixel wider or taller, edge
    pixels repeated (`coded_width_px`, `coded_height_px`); `Decoder` cuts it off again when told the size.
    Maps are always those of `MacroblockGrid(width_px, height_px)` of the settings.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self._codec = find_codec(settings.codec, steerable=settings.steerable)
        self._settings = settings
        self._options = _options(settings, self._codec)
        self._check_size()
        if settings.steerable and not map_steers(
            settings.codec,
            tuple(sorted(self._options.items())),
            rate_controlled=settings.bitrate_bps is not None,
        ):
            raise MapIgnoredError(
                f"{settings.codec} would silently drop the quality map with {shown(self._options)}: "
                "leave the adaptive-quantisation and rate options at their defaults, or encode without maps"
            )
        self._bitrate_bps = settings.bitrate_bps
        self._time_base = settings.time_base or _DEFAULT_TIME_BASE
        self._colour: ColourTags = UNTAGGED
        self._context: VideoCodecContext | None = self._open()
        grid = MacroblockGrid(self.coded_width_px, self.coded_height_px)
        self._maps = MapAttacher(grid, levels=self._codec.map_levels, scale=self._codec.map_scale)
        self._flat_map: NDArray[np.float32] | None = None
        self._pending: list[AccessUnit] = []
        self._frames_sent = 0
        self._last_pts: int | None = None

    @property
    def settings(self) -> EncoderSettings:
        return self._settings

    @property
    def decoder_name(self) -> str:
        """The codec of the bitstream, by FFmpeg's decoder name: `h264`, `hevc`, `vp9`, `av1`."""
        return self._codec.decoder

    @property
    def time_base(self) -> Fraction:
        """The unit of every access unit's timestamps, in seconds."""
        return self._time_base

    @property
    def coded_width_px(self) -> int:
        return self._settings.width_px + (self._settings.width_px % 2 if self._codec.even_size else 0)

    @property
    def coded_height_px(self) -> int:
        return self._settings.height_px + (self._settings.height_px % 2 if self._codec.even_size else 0)

    @functools.cached_property
    def parameter_sets(self) -> bytes:
        """The stream's header (SPS and PPS in Annex B form for H.264), empty for codecs without one.

        Keyframes carry it too, so a decoder that starts at a keyframe does without.
        """
        return self._open(flags=_GLOBAL_HEADER).extradata or b""

    def encode(
        self, frame: av.VideoFrame, qp_offsets: NDArray[np.floating] | None = None, *, keyframe: bool = False
    ) -> list[AccessUnit]:
        """Encodes one frame; with the default zero-latency tune its access unit comes back at once.

        `qp_offsets`: (rows, cols) in QP, added to the QP that the encoder would have chosen; None for none.
        The frame itself is left as it was. Timestamps must rise; a frame without one gets the next.
        Raises EncoderError for another frame size, a map of another shape, or time running backwards.
        """
        if self._context is None:
            raise EncoderError("this encoder is closed: open another one")
        if qp_offsets is not None and not self._settings.steerable:
            raise MapIgnoredError("this encoder was opened without maps: open it with steerable=True")
        if (frame.width, frame.height) != (self._settings.width_px, self._settings.height_px):
            raise EncoderError(
                f"a frame of {frame.width}x{frame.height} px came to an encoder opened for "
                f"{self._settings.width_px}x{self._settings.height_px}"
            )
        picture = to_yuv420p(frame)
        self._take_colour(picture)
        if self._codec.even_size:
            picture = pad_to_even(picture)
        pts, dts, time_base = picture.pts, picture.dts, picture.time_base
        duration, pict_type = picture.duration, picture.pict_type
        try:
            self._stamp(picture, pts, time_base)
            # A decoded frame still says how *it* was coded, and encoders would follow that.
            picture.pict_type = PictureType.I if keyframe else PictureType.NONE
            units = self._send(picture, qp_offsets)
        finally:
            if time_base is not None:
                picture.time_base = time_base
            picture.pts, picture.dts = pts, dts
            picture.duration, picture.pict_type = duration, pict_type
        self._frames_sent += 1
        units = [*self._pending, *units]
        self._pending = []
        return units

    def flush(self) -> list[AccessUnit]:
        """The access units that the encoder still holds; it takes no more frames afterwards."""
        units = self._pending
        self._pending = []
        if self._context is not None:
            units += self._drain(self._context)
            self._context = None
        return units

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Changes the rate, and the VBV with it, from the next frame on.

        libx264 goes on as it is; the other codecs are opened again, so their next frame is a keyframe.
        Raises EncoderError in an encoder opened with `qp` or `crf`, which has no rate to change.
        """
        if self._settings.bitrate_bps is None:
            raise EncoderError("only an encoder opened with bitrate_bps has a bitrate to change")
        if bitrate_bps < 1000:
            raise EncoderError(f"a bitrate of {bitrate_bps} bit/s is below the least possible, 1000")
        if self._context is None:
            raise EncoderError("this encoder is closed: open another one")
        self._bitrate_bps = bitrate_bps
        if self._codec.live_bitrate and self._set_live_rate(self._context, bitrate_bps):
            return
        self._pending += self._drain(self._context)
        self._context = self._open()

    def close(self) -> None:
        """Frees the encoder; what it still holds is lost (`flush` first)."""
        self._context = None
        self._pending = []

    def _check_size(self) -> None:
        width_px, height_px, codec = self._settings.width_px, self._settings.height_px, self._codec
        shortest = min(width_px, height_px)
        if codec.even_size and shortest > 0:
            shortest += shortest % 2
        if shortest < codec.shortest_side_px or max(width_px, height_px) > codec.longest_side_px:
            raise EncoderError(
                f"{codec.name} can't code frames of {width_px}x{height_px} px: "
                f"each side must have {codec.shortest_side_px} to {codec.longest_side_px} px"
            )

    def _open(self, flags: int = 0) -> VideoCodecContext:
        rate = rate_options(self._bitrate_bps, self._settings.vbv_buffer_ms)
        return open_context(
            self._codec,
            {**rate, **self._options},
            (self.coded_width_px, self.coded_height_px),
            frame_rate=self._settings.frame_rate,
            time_base=self._time_base,
            threads=self._settings.threads,
            colour=self._colour,
            pixel_aspect=self._settings.pixel_aspect,
            flags=flags,
        )

    def _take_colour(self, frame: av.VideoFrame) -> None:
        """Signals the first frame's colour tags: without them a decoder would guess another matrix."""
        if self._frames_sent:
            return
        colour = (
            int(frame.colorspace),
            int(frame.color_primaries),
            int(frame.color_trc),
            int(frame.color_range),
        )
        if colour != self._colour:
            self._colour = colour
            self.__dict__.pop("parameter_sets", None)
            self._context = self._open()

    def _stamp(self, picture: av.VideoFrame, pts: int | None, time_base: Fraction | None) -> None:
        if pts is None:
            step = 1 / (self._settings.frame_rate * self._time_base)
            stamped = 0 if self._last_pts is None else self._last_pts + max(1, round(step))
        elif time_base is None or time_base == self._time_base:
            stamped = pts
        else:
            stamped = round(pts * time_base / self._time_base)
        if self._last_pts is not None and stamped <= self._last_pts:
            raise EncoderError(
                f"timestamps must rise: {float(stamped * self._time_base):.6f} s came after "
                f"{float(self._last_pts * self._time_base):.6f} s (a finer time_base parts close frames)"
            )
        self._last_pts = stamped
        picture.duration = 0
        picture.dts = None
        picture.time_base = self._time_base
        picture.pts = stamped

    def _send(self, picture: av.VideoFrame, qp_offsets: NDArray[np.floating] | None) -> list[AccessUnit]:
        assert self._context is not None
        if qp_offsets is not None:
            qp_offsets = np.asarray(qp_offsets)
            grid = MacroblockGrid(self._settings.width_px, self._settings.height_px)
            if self._codec.map_levels is not None:
                self._flat_map = np.zeros(grid.shape, np.float32)
        elif self._flat_map is not None:
            qp_offsets = self._flat_map  # libvpx keeps the last map until it gets another
        try:
            if qp_offsets is None:
                return self._units(self._context.encode(picture))
            with self._maps.attached(picture, qp_offsets) as steered:
                return self._units(self._context.encode(steered))
        except (av.FFmpegError, ValueError) as error:
            raise EncoderError(f"{self._codec.name} failed on a frame: {reason(error)}") from error

    def _drain(self, context: VideoCodecContext) -> list[AccessUnit]:
        if not self._frames_sent:
            return []
        try:
            return self._units(context.encode(None))
        except av.FFmpegError as error:
            raise EncoderError(f"{self._codec.name} failed at the end: {reason(error)}") from error

    def _units(self, packets: list[av.Packet]) -> list[AccessUnit]:  # type: ignore[type-arg]
        return [
            AccessUnit(
                bytes(p),
                p.pts or 0,
                (p.pts or 0) if p.dts is None else p.dts,
                self._time_base,
                p.is_keyframe,
                _qp(p),
            )
            for p in packets
        ]

    def _set_live_rate(self, context: VideoCodecContext, bitrate_bps: int) -> bool:
        # x264 holds the average below `maxrate`, so raising the rate needs both; PyAV can set one only.
        buffer_bits = bitrate_bps * self._settings.vbv_buffer_ms // 1000
        if not native.set_codec_option(context, "maxrate", bitrate_bps):
            return False
        if not native.set_codec_option(context, "bufsize", buffer_bits):
            return False
        context.bit_rate = bitrate_bps
        return True


def _qp(packet: av.Packet) -> float | None:  # type: ignore[type-arg]
    for side_data in packet.iter_sidedata():
        if side_data.data_type == "quality_stats":
            quality = int.from_bytes(bytes(side_data)[:4], "little", signed=True)
            return quality / _LAMBDA_PER_QP if quality > 0 else None
    return None


def _options(settings: EncoderSettings, codec: Codec) -> dict[str, str]:
    given = [value for value in (settings.qp, settings.crf, settings.bitrate_bps) if value is not None]
    if len(given) != 1:
        raise EncoderError("an encoder takes exactly one of qp, crf and bitrate_bps")
    highest = 51 if codec.decoder in ("h264", "hevc") else 63
    quality = settings.qp if settings.qp is not None else settings.crf
    if quality is not None and not 0 <= quality <= highest:
        raise EncoderError(f"{codec.name} takes a QP or CRF from 0 to {highest}, not {quality}")
    if settings.bitrate_bps is not None and settings.bitrate_bps < 1000:
        raise EncoderError(f"a bitrate of {settings.bitrate_bps} bit/s is below the least possible, 1000")
    if (
        settings.frame_rate <= 0
        or settings.gop_frames < 1
        or settings.threads < 1
        or settings.vbv_buffer_ms < 1
    ):
        raise EncoderError("frame_rate, gop_frames, threads and vbv_buffer_ms must be positive")
    if not 0 <= settings.b_frames <= 16 or not 0 <= settings.mbtree_frames <= 250:
        asked = f"{settings.b_frames} and {settings.mbtree_frames}"
        raise EncoderError(f"b_frames is 0 to 16 and mbtree_frames 0 to 250, not {asked}")
    if (settings.b_frames and not codec.b_frames) or (settings.mbtree_frames and not codec.mbtree):
        asked = "B-frames" if settings.b_frames and not codec.b_frames else "mb-tree"
        able = [row.name for row in CODECS.values() if (row.mbtree if asked == "mb-tree" else row.b_frames)]
        raise EncoderError(
            f"{codec.name} makes no {asked} here: leave the option out, or use {', '.join(able)}"
        )
    options = {**codec.options(settings), "g": str(settings.gop_frames)}
    for key, value in settings.extra.items():
        # Parameter strings are joined, not replaced: the later one wins inside the encoder.
        options[key] = f"{options[key]}:{value}" if key.endswith("-params") and key in options else str(value)
    return options
