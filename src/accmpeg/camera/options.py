"""How a camera streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from accmpeg.media.codecs import (
    LIVE_GOP_FRAMES,
    AqMode,
    CodecName,
    EncoderSettings,
    MbtreeFrames,
    Preset,
    find_codec,
)
from accmpeg.options import Option
from accmpeg.steering.encoder import Every, MapStrength
from accmpeg.steering.feedback import MARGIN_MACROBLOCKS, MapMargin

if TYPE_CHECKING:
    from accmpeg.media.source import SourceInfo

__all__ = ["ADOPTABLE", "CameraKeywords", "CameraOptions"]

ADOPTABLE = frozenset(
    {
        "policy", "every", "map_strength", "map_margin", "size_px", "b_frames", "mbtree_frames", "preset",
        "aq_mode", "highest_bps",
    }
)  # fmt: skip
"""The fields that a server's offer may change."""
SHARED_GOP_FRAMES = 300
"""Of a stream that others read too, or whose frames are sent again from a keyframe on after an outage."""


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How a camera streams; every field has the default that suits an unattended camera.

    `bitrate_bps` None adapts to the link within `lowest_bps` and `highest_bps`; a number fixes it. Where
    results come later than `delay_budget_ms` after capture, the bitrate falls if it is the link, and fewer
    frames go out if camera or server are behind. `drop`: `latest` leaves frames out where machine or link
    fall behind, `none` leaves none out (footage is then read only as fast as it can be sent). `spool` is
    the folder that keeps frames of an outage, `spool_limit_bytes` its bound. `publish` are further
    addresses for the same stream; size and frame rate then stay as they are. `policy` is `graded` or
    `binary`, maps of an AccModel, or `feedback`, maps of the server's last answers and of an AccModel only
    while there are none; `none` is a plain stream. `map_strength` multiplies a map's offsets, `map_margin` is
    what stays fine about the boxes of answers, in macroblocks. `b_frames` save bytes and cost one frame of
    delay more than they are, `mbtree_frames` as many as they are. `tolerance` is the share of predicted
    accuracy that is not worth more bits. `results_per_s` sends no more frames than that, evenly by their time
    of capture; the server may ask for fewer. `adopts` names the fields, of `ADOPTABLE`, that the server's
    offer may change; with none of them, the offer and its AccModel are ignored. `drain_s` bounds the end.
    """

    name: Annotated[
        str | None, Option("The camera's name at the server.", default="this machine's name and a mark")
    ] = None
    """None is made of this machine's name and the source's, see `default_name`."""
    dnn: Annotated[
        str | None, Option("Name of the server DNN that is to answer.", default="the server's first")
    ] = None
    policy: str = "graded"
    every: Every = 10
    map_strength: MapStrength = 1.0
    map_margin: MapMargin = MARGIN_MACROBLOCKS
    codec: CodecName = "libx264"
    preset: Preset = "veryfast"
    gop_frames: Annotated[
        int | None,
        Option(
            "Frames from one keyframe to the next, if nobody asks for one.",
            default=f"{LIVE_GOP_FRAMES}; {SHARED_GOP_FRAMES} with --spool, --drop none or --publish",
            name="gop",
            min=1,
        ),
    ] = None
    """None is as rare as the stream's readers allow: the server asks for the keyframes that it needs."""
    results_per_s: Annotated[
        float | None,
        Option(
            "Send no more frames than this.",
            default="as many as the server answers",
            name="results_per_second",
            min=0.1,
        ),
    ] = None
    b_frames: Annotated[
        int | None,
        Option(
            "B-frames in a row at most: fewer bytes, later by one frame more than that.",
            default="up to 2, where the delay budget has room",
            min=0,
            max=16,
        ),
    ] = None
    """None is up to two, where the results so far show that the delay budget has room for them."""
    mbtree_frames: MbtreeFrames = 0
    aq_mode: AqMode = None
    size_px: Annotated[
        tuple[int, int] | None,
        Option("Stream size, such as 640x360, if not the source's.", name="size"),
    ] = None
    bitrate_bps: int | None = None
    start_bps: Annotated[int, Option("Where 'auto' begins.", name="start_bitrate")] = 1_000_000
    lowest_bps: Annotated[int, Option("'auto' never goes below.", name="min_bitrate")] = 100_000
    highest_bps: Annotated[int, Option("'auto' never goes above.", name="max_bitrate")] = 8_000_000
    delay_budget_ms: Annotated[
        float,
        Option(
            "Capture to result, held by the bitrate if that is auto, and by fewer frames.", min=50, max=10_000
        ),
    ] = 300.0
    adapt_size: bool = True
    tolerance: float = 0.02
    drop: Annotated[
        Literal["latest", "none"],
        Option("When something falls behind: the newest frame wins, or none is left out."),
    ] = "latest"
    realtime: Annotated[bool, Option("Read footage at its frame rate.")] = True
    loop: Annotated[bool, Option("Begin footage again when it ends.")] = False
    limit: Annotated[int | None, Option("Stop after so many frames.", min=1)] = None
    spool: Annotated[Path | None, Option("Keep frames here while the server is away.", metavar="DIR")] = None
    spool_limit_bytes: Annotated[
        int, Option("Most bytes in the spool, such as 256M or 4G.", name="spool_limit")
    ] = 256 << 20
    publish: Annotated[
        Sequence[str],
        Option("Send it to this file, rtsp://, rtmp:// or udp:// too; may repeat.", metavar="ADDRESS"),
    ] = ()
    adopts: frozenset[str] = frozenset()
    cache: Annotated[
        Path | None,
        Option("Keep what the server offers here.", metavar="DIR", default="~/.cache/accmpeg"),
    ] = None
    drain_s: float = 10.0
    statistics_every_s: Annotated[
        float,
        Option("Seconds from one line of statistics in the log to the next.", name="statistics_s", min=0.1),
    ] = 10.0

    @property
    def follows_answers(self) -> bool:
        """Whether maps come from the server's answers."""
        return self.policy == "feedback"

    def encoder_settings(self, info: "SourceInfo", bitrate_bps: int, *, steerable: bool) -> EncoderSettings:
        """Those of the full stream of a source; `steerable` where there will be maps."""
        width_px, height_px = self.size_px or (info.width_px, info.height_px)
        return EncoderSettings.for_source(
            info,
            width_px=width_px,
            height_px=height_px,
            codec=self.codec,
            preset=self.preset,
            gop_frames=self._gop_frames,
            bitrate_bps=bitrate_bps,
            # A keyframe as large as this buffer takes the budget to send: keep it below.
            vbv_buffer_ms=max(100, int(0.8 * self.delay_budget_ms)),
            b_frames=self.b_frames or 0,
            mbtree_frames=self.mbtree_frames,
            aq_mode=self.aq_mode,
            steerable=steerable,
        )

    @property
    def chooses_b_frames(self) -> bool:
        """Whether their number follows from the delay: none is set, and the stream may change on its way."""
        may = find_codec(self.codec, steerable=False).b_frames and not self.mbtree_frames
        return self.b_frames is None and may and not self._is_shared

    @property
    def _gop_frames(self) -> int:
        if self.gop_frames is not None:
            return self.gop_frames
        return SHARED_GOP_FRAMES if self._is_shared else LIVE_GOP_FRAMES

    @property
    def _is_shared(self) -> bool:
        """Whether there are readers that begin in the midst of the stream: players, or a server once more."""
        return self.keeps_frames or bool(self.publish)

    @property
    def keeps_frames(self) -> bool:
        """Whether a frame waits for the server as long as it takes, rather than be left out."""
        return self.spool is not None or self.drop == "none"


class CameraKeywords(TypedDict, total=False):
    """The fields of `CameraOptions`, for type checkers, where they are given one by one."""

    name: str | None
    dnn: str | None
    policy: str
    every: int
    map_strength: float
    map_margin: int
    codec: str
    preset: str
    gop_frames: int | None
    results_per_s: float | None
    b_frames: int | None
    mbtree_frames: int
    aq_mode: int | None
    size_px: tuple[int, int] | None
    bitrate_bps: int | None
    start_bps: int
    lowest_bps: int
    highest_bps: int
    delay_budget_ms: float
    adapt_size: bool
    tolerance: float
    drop: Literal["latest", "none"]
    realtime: bool
    loop: bool
    limit: int | None
    spool: Path | None
    spool_limit_bytes: int
    publish: Sequence[str]
    adopts: frozenset[str]
    cache: Path | None
    drain_s: float
    statistics_every_s: float
