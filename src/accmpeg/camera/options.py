"""How a camera streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["CameraOptions"]


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How a camera streams; every field has the default that suits an unattended camera.

    `bitrate_bps` None adapts to the link within `lowest_bps` and `highest_bps`, holding `delay_budget_ms`
    from capture to arrival; a number fixes it. `drop`: `latest` leaves frames out where machine or link
    fall behind, `none` leaves none out (footage is then read only as fast as it can be sent). `spool` is
    the folder that keeps frames of an outage, `spool_limit_bytes` its bound. `publish` are further
    addresses for the same stream; size and frame rate then stay as they are. `policy` is `graded` or
    `binary`, maps of an AccModel, or `feedback`, maps of the server's last answers and of an AccModel only
    while there are none; `none` is a plain stream. `b_frames` save bytes and cost about twice as many frames
    of delay, `mbtree_frames` as many as they are. `tolerance` is the share of predicted accuracy that is not
    worth more bits. `drain_s` bounds the end.
    """

    name: str | None = None
    """None is made of this machine's name and the source's, see `default_name`."""
    dnn: str | None = None
    policy: str = "graded"
    every: int = 10
    codec: str = "libx264"
    preset: str = "veryfast"
    gop_frames: int = 300
    b_frames: int = 0
    mbtree_frames: int = 0
    aq_mode: int | None = None
    size_px: tuple[int, int] | None = None
    bitrate_bps: int | None = None
    start_bps: int = 1_000_000
    lowest_bps: int = 100_000
    highest_bps: int = 8_000_000
    delay_budget_ms: float = 300.0
    adapt_size: bool = True
    tolerance: float = 0.02
    drop: Literal["latest", "none"] = "latest"
    realtime: bool = True
    loop: bool = False
    """Begin footage again when it ends."""
    limit: int | None = None
    spool: Path | None = None
    spool_limit_bytes: int = 256 << 20
    publish: Sequence[str] = ()
    drain_s: float = 10.0
    statistics_every_s: float = 10.0

    @property
    def follows_answers(self) -> bool:
        """Whether maps come from the server's answers."""
        return self.policy == "feedback"

    @property
    def keeps_frames(self) -> bool:
        """Whether a frame waits for the server as long as it takes, rather than be left out."""
        return self.spool is not None or self.drop == "none"
