"""The encoders that this package drives, a registry row each: how settings become FFmpeg options.

| name | steered by | one 16x16 block can have | odd sizes | bitrate changes |
|---|---|---|---|---|
| libx264 | regions of interest | any QP | padded to even | on the open encoder |
| libx265 | regions of interest | any QP | padded to even | by opening again |
| libvpx-vp9 | regions of interest, not on keyframes | one of 8 levels | as they are | by opening again |
| libsvtav1 | nothing (a baseline only) | – | padded to even | by opening again |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Self, TypedDict, Unpack

from accmpeg.errors import EncoderError, MapIgnoredError
from accmpeg.options import Option

if TYPE_CHECKING:
    from accmpeg.media.source import SourceInfo

__all__ = [
    "CODECS",
    "LIVE_GOP_FRAMES",
    "SOFTWARE_DECODERS",
    "AqMode",
    "BFrames",
    "Codec",
    "CodecName",
    "EncoderKeywords",
    "EncoderSettings",
    "GopFrames",
    "MbtreeFrames",
    "Preset",
    "find_codec",
]

CodecName = Annotated[str, Option("libx264, libx265 or libvpx-vp9.", name="codec")]
Preset = Annotated[str, Option("Encoder preset.", name="preset")]
GopFrames = Annotated[int, Option("Frames from one keyframe to the next.", name="gop", min=1)]
LIVE_GOP_FRAMES = 1500
"""Of a stream that only a server reads: it asks for the keyframes that it needs."""

BFrames = Annotated[
    int, Option("B-frames in a row at most: fewer bytes, later by one frame more than that.", min=0, max=16)
]
MbtreeFrames = Annotated[
    int, Option("libx264: look so many frames ahead to spend bits; later by as many.", min=0, max=250)
]
AqMode = Annotated[
    int | None,
    Option("Adaptive quantisation: 0 is off, 1 the usual one.", min=0, max=3, default="1"),
]

DEAF_ENCODERS = (
    "_nvenc",
    "_amf",
    "_qsv",
    "_vaapi",
    "_vulkan",
    "_mf",
    "_videotoolbox",
    "_v4l2m2m",
    "libaom-av1",
)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """How one stream is encoded. Exactly one of `qp`, `crf` and `bitrate_bps` is given.

    - `qp`: every block's QP is `qp` plus its offset. In libx264 that is exact, but for one habit of its own:
      a macroblock within 1 QP of the one before it is given that one's QP. libvpx-vp9 and libsvtav1 read
      the number on their own 0 to 63 scale, and promise nothing exact.
    - `crf`: the encoder's constant-quality scale, adaptive quantisation on.
    - `bitrate_bps`: average rate, held by a VBV of `vbv_buffer_ms`; it can be changed while encoding.

    `time_base` is the unit of the access units' timestamps (the source's keeps variable frame rates exact;
    default 1/90000 s). `preset` takes x264's names; VP9 reads them as cpu-used 9 (ultrafast) to 1 (veryslow),
    and takes a number too, as SVT-AV1 does. `aq_mode` and `aq_strength` default to what steers: `qp` has
    adaptive quantisation practically off, the other modes have mode 1. `steerable=False` gives an encoder
    that takes no maps and is not probed. `b_frames` (libx264, libx265) are B-frames in a row (in libx265, and
    with mb-tree, at most): the stream then leaves in decoding order, that many frames late, and a decoder
    needs as many to put it right. `mbtree_frames` lets libx264 look so many frames ahead to spend bits on
    what later frames refer to; it is late by as many. `pixel_aspect` is the width of a pixel over its height,
    by which players stretch the picture. `extra` holds further FFmpeg options, which win over all others.
    """

    width_px: int
    height_px: int
    frame_rate: Fraction
    time_base: Fraction | None = None
    codec: CodecName = "libx264"
    qp: int | None = None
    crf: float | None = None
    bitrate_bps: int | None = None
    vbv_buffer_ms: int = 1000
    preset: Preset = "veryfast"
    tune: str = "zerolatency"
    gop_frames: GopFrames = 250
    aq_mode: AqMode = None
    aq_strength: float | None = None
    threads: int = 1
    b_frames: BFrames = 0
    mbtree_frames: MbtreeFrames = 0
    steerable: bool = True
    pixel_aspect: Fraction = Fraction(1)
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def for_source(cls, info: "SourceInfo", **settings: Unpack["EncoderKeywords"]) -> Self:
        """Settings for a source's own size, shape, rate and time base; `settings` are further fields."""
        width_px = settings.get("width_px", info.width_px)
        height_px = settings.get("height_px", info.height_px)
        own: EncoderKeywords = {
            "width_px": width_px,
            "height_px": height_px,
            "frame_rate": info.frame_rate,
            "time_base": info.time_base,
            "pixel_aspect": info.pixel_aspect_at(width_px, height_px),
        }
        return cls(**(own | settings))


class EncoderKeywords(TypedDict, total=False):
    """The fields of `EncoderSettings`, for type checkers, where they are given one by one."""

    width_px: int
    height_px: int
    frame_rate: Fraction
    time_base: Fraction | None
    codec: str
    qp: int | None
    crf: float | None
    bitrate_bps: int | None
    vbv_buffer_ms: int
    preset: str
    tune: str
    gop_frames: int
    aq_mode: int | None
    aq_strength: float | None
    threads: int
    b_frames: int
    mbtree_frames: int
    steerable: bool
    pixel_aspect: Fraction
    extra: Mapping[str, str]


@dataclass(frozen=True)
class Codec:
    """One registry row. `options` are FFmpeg's, less size and rates."""

    name: str
    decoder: str
    options: Callable[[EncoderSettings], dict[str, str]]
    steerable: bool = True
    even_size: bool = True
    shortest_side_px: int = 2
    longest_side_px: int = 16384
    live_bitrate: bool = False
    b_frames: bool = False
    mbtree: bool = False
    map_levels: int | None = None
    map_scale: float = 1.0


# x265 looks ahead as far as it must to choose B-frames. At a CRF that costs no delay.
_LOOKAHEAD_FRAMES = 8

_PB_RATIO = 2.0
"""How many times the step of P-frames B-frames have: 2 is 6 QP coarser. x264's own is 1.3, which is 2 QP."""

_PRESETS = ["veryslow", "slower", "slow", "medium", "fast", "faster", "veryfast", "superfast", "ultrafast"]


def find_codec(name: str, *, steerable: bool) -> Codec:
    """The registry row of that name. Raises MapIgnoredError for an encoder known to read no map."""
    codec = CODECS.get(name)
    steered = ", ".join(row.name for row in CODECS.values() if row.steerable)
    if steerable and (name.endswith(DEAF_ENCODERS) or (codec is not None and not codec.steerable)):
        raise MapIgnoredError(f"{name} never reads a quality map in stock FFmpeg: use one of {steered}")
    if codec is None:
        raise EncoderError(f"no codec named {name!r} here: use one of {', '.join(CODECS)}")
    return codec


def _check_preset(settings: EncoderSettings) -> None:
    # x264 would print its own complaint to stderr and leave FFmpeg with "Invalid argument".
    if settings.preset not in (*_PRESETS, "placebo"):
        raise EncoderError(
            f"{settings.codec} has no preset {settings.preset!r}: use one of {', '.join(_PRESETS)}"
        )


def _libx264(settings: EncoderSettings) -> dict[str, str]:
    _check_preset(settings)
    options = {"preset": settings.preset, "tune": settings.tune, "forced-idr": "1"}
    aq_mode, aq_strength = settings.aq_mode, settings.aq_strength
    if settings.qp is not None:
        # CQP (`qp=`) drops the map. CRF with every QP change of x264's own switched off is the same
        # thing and keeps it; an AQ strength of exactly 0 would drop the map again.
        options |= {"crf": str(settings.qp), "x264-params": "qcomp=1:ipratio=1:pbratio=1:mbtree=0"}
        aq_strength = 0.0001 if aq_strength is None and aq_mode is None else aq_strength
    elif settings.crf is not None:
        options["crf"] = str(settings.crf)
    options["aq-mode"] = str(1 if aq_mode is None else aq_mode)
    if aq_strength is not None:
        options["aq-strength"] = str(aq_strength)
    own = [options["x264-params"]] if "x264-params" in options else []
    if settings.b_frames:
        # B-frames that others refer to would save no bytes that were measured, and keep each answer waiting
        # for a frame more. What nothing refers to may be coarser than x264 has it for people's eyes.
        own.append("b-pyramid=none")
        if settings.qp is None:
            own.append(f"pbratio={_PB_RATIO:g}")
    if settings.b_frames and not settings.mbtree_frames:
        # Always so many in a row: to weigh each one takes x264 a look at every frame of its own, which costs
        # more than B-frames spare and saves nothing. Its search for scene cuts is the half of that.
        own += ["b-adapt=0", "scenecut=0"]
    if settings.b_frames or settings.mbtree_frames:
        options |= {
            "bf": str(settings.b_frames),
            "rc-lookahead": str(settings.mbtree_frames),
            "mbtree": "1" if settings.mbtree_frames else "0",
        }
    if own:
        options["x264-params"] = ":".join(own)
    return options


def _libx265(settings: EncoderSettings) -> dict[str, str]:
    # info=0: two kilobytes of encoder settings on every keyframe. qg-size=16: a QP per macroblock.
    params = {"log-level": "none", "info": "0", "qg-size": "16", "frame-threads": "1"}
    params["pools"] = "none" if settings.threads == 1 else str(settings.threads)
    if settings.threads == 1:
        params["wpp"] = "0"
    _check_preset(settings)
    options = {"preset": settings.preset, "tune": settings.tune, "forced-idr": "1"}
    aq_mode, aq_strength = settings.aq_mode, settings.aq_strength
    if settings.qp is not None:
        options["crf"] = str(settings.qp)
        params |= {"qcomp": "1", "ipratio": "1", "pbratio": "1", "cutree": "0"}
        aq_strength = 0.0001 if aq_strength is None and aq_mode is None else aq_strength
    elif settings.crf is not None:
        options["crf"] = str(settings.crf)
    params["aq-mode"] = str(1 if aq_mode is None else aq_mode)
    # The presets superfast and ultrafast set a strength of 0, which drops the map.
    params["aq-strength"] = str(1.0 if aq_strength is None else aq_strength)
    if settings.b_frames:
        params |= {
            "bframes": str(settings.b_frames),
            "b-pyramid": "0",
            "rc-lookahead": str(_LOOKAHEAD_FRAMES),
        }
    options["x265-params"] = ":".join(f"{key}={value}" for key, value in params.items())
    return options


def _libvpx_vp9(settings: EncoderSettings) -> dict[str, str]:
    preset = settings.preset
    if not preset.isdecimal():
        _check_preset(settings)
        preset = str(1 + _PRESETS.index(preset)) if preset in _PRESETS else "0"
    options = {
        "deadline": "realtime",
        "cpu-used": preset,
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "aq-mode": str(settings.aq_mode or 0),
    }
    if settings.qp is not None:
        options |= {"crf": str(settings.qp), "qmin": str(settings.qp), "qmax": str(settings.qp)}
    elif settings.crf is not None:
        options["crf"] = str(settings.crf)
    return options


def _libsvtav1(settings: EncoderSettings) -> dict[str, str]:
    options = {"preset": settings.preset if settings.preset.isdecimal() else "10"}
    quality = settings.qp if settings.qp is not None else settings.crf
    if quality is not None:
        options["crf"] = str(quality)
    params = [
        "pred-struct=1",
        f"lp={settings.threads}",
        f"enable-aq={2 if settings.aq_mode is None else settings.aq_mode}",
    ]
    options["svtav1-params"] = ":".join(params)
    return options


# FFmpeg's decoder named "av1" needs a GPU.
SOFTWARE_DECODERS = {"av1": "libdav1d"}

CODECS: dict[str, Codec] = {
    row.name: row
    for row in (
        Codec("libx264", "h264", _libx264, live_bitrate=True, b_frames=True, mbtree=True),
        Codec("libx265", "hevc", _libx265, b_frames=True, shortest_side_px=16),
        # VP9's quantiser doubles its step every 9 units of 63, H.264's every 6 QP: 1.5 units are one QP, of
        # which FFmpeg's own scale (63/51) already gives 1.235.
        Codec(
            "libvpx-vp9",
            "vp9",
            _libvpx_vp9,
            even_size=False,
            shortest_side_px=1,
            map_levels=7,
            map_scale=1.5 * 51 / 63,
        ),
        Codec("libsvtav1", "av1", _libsvtav1, steerable=False, shortest_side_px=16),
    )
}
