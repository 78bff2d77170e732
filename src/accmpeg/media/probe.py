"""Opening an encoder, and the proof that a map steers it."""

import functools
import os
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from accmpeg.errors import EncoderError, reason
from accmpeg.media.codecs import CODECS, SOFTWARE_DECODERS, Codec
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.roi import MapAttacher

__all__ = ["UNTAGGED", "ColourTags", "map_steers", "open_context", "rate_options", "shown"]

ColourTags = tuple[int, int, int, int]
"""AVFrame's colorspace, color_primaries, color_trc and color_range."""

UNTAGGED: ColourTags = (2, 2, 2, 0)

_PROBE_SIZE_PX = (128, 96)
_PROBE_BITRATE_BPS = 600_000
_PROBE_OFFSET = 20
_TIP = 1.1
_PROBE_FRAMES = 4  # the first is a keyframe, on which VP9 takes no map


@functools.cache
def map_steers(codec_name: str, options: tuple[tuple[str, str], ...], *, rate_controlled: bool) -> bool:
    """Whether an encoder with these FFmpeg options follows quality maps, found out by trying; cached.

    Four textured frames are encoded three times: with the left half 20 QP better and the right half 20 QP
    worse, with a flat map, and the other way round. If the map is read, the balance of errors between the
    halves tips both ways. (One way is not enough: libvpx with `aq-mode=3` overrules most of the map, and yet
    the outcome differs.)
    """
    codec = CODECS[codec_name]
    chosen = {**(rate_options(_PROBE_BITRATE_BPS, 1000) if rate_controlled else {}), **dict(options)}
    left, flat, right = (_probe_error_ratio(codec, chosen, sign) for sign in (-1, 0, 1))
    return left * _TIP < flat and flat * _TIP < right


def _probe_error_ratio(codec: Codec, options: Mapping[str, str], left_sign: int) -> float:
    """Squared error of the left half over that of the right half, in the last frame."""
    width_px, height_px = _PROBE_SIZE_PX
    grid = MacroblockGrid(width_px, height_px)
    offsets = np.full(grid.shape, left_sign * _PROBE_OFFSET, np.float32)
    offsets[:, grid.cols // 2 :] *= -1
    encoder = open_context(codec, options, _PROBE_SIZE_PX, frame_rate=Fraction(25), time_base=Fraction(1, 25))
    decoder = av.CodecContext.create(SOFTWARE_DECODERS.get(codec.decoder, codec.decoder), "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    maps = MapAttacher(grid, levels=codec.map_levels, scale=codec.map_scale)
    random = np.random.default_rng(0)
    decoded: list[av.VideoFrame] = []
    try:
        for index in range(_PROBE_FRAMES):
            squares = (
                random.integers(88, 169, (height_px // 8, width_px // 8)).repeat(8, axis=0).repeat(8, axis=1)
            )
            luma = (squares + random.integers(-24, 25, squares.shape)).astype(np.uint8)
            with maps.attached(_grey_frame(luma, index), offsets) as steered:
                packets = encoder.encode(steered)
            decoded += [frame for packet in packets for frame in decoder.decode(packet)]
        decoded += [frame for packet in encoder.encode(None) for frame in decoder.decode(packet)]
        decoded += decoder.decode(None)
    except av.FFmpegError as error:
        raise EncoderError(
            f"{codec.name} failed on a test picture with {shown(options)}: {reason(error)}"
        ) from error
    squared = (plane_view(decoded[-1], 0).astype(np.float64) - luma) ** 2
    return float((squared[:, : width_px // 2].sum() + 1) / (squared[:, width_px // 2 :].sum() + 1))


def _grey_frame(luma: NDArray[np.uint8], pts: int) -> av.VideoFrame:
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], "yuv420p")
    plane_view(frame, 0)[:] = luma
    for index in (1, 2):
        plane_view(frame, index)[:] = 128
    frame.pts, frame.time_base = pts, Fraction(1, 25)
    return frame


def rate_options(bitrate_bps: int | None, vbv_buffer_ms: int) -> dict[str, str]:
    if bitrate_bps is None:
        return {}
    buffer_bits = max(1, bitrate_bps * vbv_buffer_ms // 1000)
    return {"b": str(bitrate_bps), "maxrate": str(bitrate_bps), "bufsize": str(buffer_bits)}


def open_context(
    codec: Codec,
    options: Mapping[str, str],
    size_px: tuple[int, int],
    *,
    frame_rate: Fraction,
    time_base: Fraction,
    threads: int = 1,
    colour: ColourTags = UNTAGGED,
    pixel_aspect: Fraction = Fraction(1),
    flags: int = 0,
) -> VideoCodecContext:
    if codec.name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "0")  # it writes its banner to stderr whatever FFmpeg's log level is
    context = VideoCodecContext.create(codec.name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = size_px
    context.pix_fmt = "yuv420p"
    context.time_base = time_base
    context.framerate = frame_rate
    context.thread_count = threads
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = colour
    if pixel_aspect != 1:
        context.sample_aspect_ratio = pixel_aspect
    context.flags |= flags
    context.options = dict(options)
    try:
        context.open()
    except (av.FFmpegError, ValueError) as error:
        raise EncoderError(
            f"{codec.name} refused {size_px[0]}x{size_px[1]} with {shown(options)}: {reason(error)}"
        ) from error
    if context.options:
        raise EncoderError(
            f"{codec.name} has no option {', '.join(sorted(context.options))}: check the spelling"
        )
    return context


def shown(options: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(options.items()) if value)
