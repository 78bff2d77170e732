"""How a sweep measures, and what a profile must keep. The command line is made of it."""

import math
from dataclasses import dataclass, field
from typing import Annotated

from accmpeg.errors import UsageError
from accmpeg.evaluation.findings.findings import LEVELS
from accmpeg.evaluation.link.link import Link
from accmpeg.options import Option

__all__ = ["LIVE_LINK", "PROPAGATION_MS", "ProfileSettings", "SweepSettings"]

LINKS_BPS = (500_000, 1_000_000, 2_000_000, 4_000_000)
PROPAGATION_MS = 20.0
LIVE_LINK = Link(bandwidth_bps=4e6, propagation_ms=PROPAGATION_MS)
"""What feedback travels over while a method runs, where the sweep says nothing else."""


def _default_links() -> dict[str, Link]:
    return {
        f"{bandwidth_bps / 1e6:g} Mbit/s": Link(bandwidth_bps=bandwidth_bps, propagation_ms=PROPAGATION_MS)
        for bandwidth_bps in LINKS_BPS
    }


@dataclass(frozen=True)
class SweepSettings:
    """What all cells share."""

    points: Annotated[
        int,
        Option("Operating points of each method on each clip, without --points.", name="most_points", min=3),
    ] = 7
    """Chosen as it goes (see `points.next_quality`)."""
    qualities: tuple[int, ...] = ()
    """In place of them, these QPs or CRFs, to which a method's `quality_shift` is added."""
    limit: Annotated[int | None, Option("Frames of each clip.", min=1, default="all")] = None
    step: Annotated[int, Option("Measure answers on every so many frames.", min=1)] = 1
    """After the first second."""
    every: Annotated[int, Option("Renew quality maps every so many frames.", min=1)] = 10
    links: dict[str, Link] = field(default_factory=_default_links)
    """Delays are emulated over each."""
    live_link: Link = LIVE_LINK
    """Brings feedback to the camera while a method runs."""
    server_ms: float = 10.0
    """One pass of the server DNN on the stated machine (default: a small GPU)."""
    server_cores: int | None = None
    """In place of `server_ms`: as long as this machine takes, measured, with so many cores."""
    label_min_height_px: Annotated[
        float,
        Option(
            "Labelled objects lower than this do not count.", name="label_min_height", min=0, metavar="PX"
        ),
    ] = 0.0
    """Nor do results as low."""
    pictures: Annotated[
        bool, Option("Keep pictures of a frame of each clip, and show them in the report.")
    ] = True

    def __post_init__(self) -> None:
        if self.points < 3:
            raise UsageError(f"{self.points} operating points: a curve needs 3 or more")
        if not all(1 <= quality <= 51 for quality in self.qualities):
            raise UsageError(f"--points {','.join(map(str, self.qualities))}: give QPs or CRFs from 1 to 51")
        if min(self.step, self.every, self.limit or 1) < 1:
            raise UsageError("--step, --every and --limit must be 1 or more")
        if not 0 < self.server_ms < math.inf or (self.server_cores or 1) < 1:
            raise UsageError("the server takes more than 0 ms on at least one core: mend --server-ms")


@dataclass(frozen=True)
class ProfileSettings:
    """What a site asks for, when its whole stream is chosen. Raises UsageError."""

    keep: Annotated[float, Option("Share of a visually lossless stream's answers to keep, 0.80 to 0.95.")] = (
        0.90
    )
    """In hundredths."""
    delay_budget_ms: Annotated[
        float, Option("Capture to result in ms, mean, on a link that is no bottleneck.", min=20)
    ] = 300.0
    camera_budget: Annotated[
        float, Option("Most camera CPU, in multiples of plain x264's at the source's size.", min=0.01)
    ] = 1.0
    minutes: Annotated[float, Option("Time for the search; it tries less where that is short.", min=0.1)] = (
        10.0
    )
    server_ms: Annotated[float, Option("One pass of the server DNN in ms.", min=0.1)] = 10.0
    workers: Annotated[int | None, Option("Processes.", min=1, default="as many as cores")] = None

    @property
    def most_camera_ratio(self) -> float:
        """CPU over plain x264's that still fits the budget. Rehearsals err by some per cent: a map of the
        server's answers, which takes 1 to 3 %, must not fall out of a budget of 1 by them."""
        return 1.05 * self.camera_budget

    def __post_init__(self) -> None:
        if self.keep not in LEVELS or self.keep > 0.95:
            raise UsageError(f"--keep {self.keep:g}: give 0.80 to 0.95, in hundredths")
        if min(self.delay_budget_ms, self.camera_budget, self.minutes) <= 0:
            raise UsageError("--delay-budget-ms, --camera-budget and --minutes must be above 0")
