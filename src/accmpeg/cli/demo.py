"""`accmpeg demo`: a small comparison on the embedded scene, or on a user's own video."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from accmpeg.cli.common import AsJson, out, print_json, progress_bar, warn_of
from accmpeg.cli.evaluate import scene_clip
from accmpeg.errors import EvaluationError, UsageError

if TYPE_CHECKING:
    from accmpeg.evaluation import ClipSpec, Findings

__all__ = ["demo"]

_METHODS = ("aq-1", "constant-qp", "aq-1@dnn", "b2@dnn", "graded", "graded@dnn", "b2-graded@dnn")
_BASELINE = "aq-1"
_POINTS = 5
_OWN_FRAMES = 300

Row = dict[str, str | float | None]


def demo(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path(
        "accmpeg-demo"
    ),
    video: Annotated[str | None, typer.Option(help="Your own video, instead of the embedded scene.")] = None,
    dnn: Annotated[Path | None, typer.Option(help="Server DNN card, with --video.")] = None,
    accmodel: Annotated[Path | None, typer.Option(help="AccModel card or ONNX file, with --video.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Frames to compare on.", show_default="all; 300 of a video")
    ] = None,
    step: Annotated[int, typer.Option(min=1, help="Measure answers on every so many frames.")] = 3,
    every: Annotated[int, typer.Option(min=1, help="Renew the quality map every so many frames.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Compare stock x264 and AccMPEG by the bytes they need for the same answers; write an HTML report.

    It is `accmpeg evaluate` with one clip and a few methods.
    """
    given = [name for name, value in (("--video", video), ("--dnn", dnn), ("--accmodel", accmodel)) if value]
    if given and len(given) < 3:
        raise UsageError(f"{' and '.join(given)} alone won't do: give --video, --dnn and --accmodel together")

    from accmpeg.demo import assets_path
    from accmpeg.evaluation import SweepSettings, evaluate

    clip = _own_clip(video) if video else scene_clip()
    dnn = dnn or assets_path() / "detector.card.toml"
    accmodel = accmodel or assets_path() / "accmodel.card.toml"
    _check_folder(folder, clip, dnn)
    warn_of(accmodel)
    with progress_bar() as bar:
        task = bar.add_task("costs", total=None)
        done = evaluate(
            [clip],
            dnns=[dnn],
            accmodels=[accmodel],
            out=folder,
            methods=_METHODS,
            primary=[name for name in _METHODS if name != _BASELINE],
            baselines=(_BASELINE,),
            settings=SweepSettings(
                points=_POINTS, limit=limit or (_OWN_FRAMES if video else None), step=step, every=every
            ),
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )
    for failed in done.failed:
        raise EvaluationError(f"{failed.method} on {failed.clip} failed: {failed.reason}")
    rows = _rows(done.findings)
    if as_json:
        print_json({"clip": clip.name, "synthetic": video is None, "report": str(done.report), "rows": rows})
    else:
        _print(rows, done.report, synthetic=video is None)


def _print(rows: list[Row], report: Path, *, synthetic: bool) -> None:
    if synthetic:
        out.print(
            "The embedded scene is synthetic: rendered by this project, as is what its models learned from."
        )
    table = Table(box=None, header_style="bold", pad_edge=False)  # made to fit 80 columns
    table.add_column("method", min_width=16)
    against = f"% against\n{_BASELINE}"
    for heading in ("kbit/s\nat 90 %", against, "kbit/s\nat 95 %", against):
        table.add_column(heading, justify="right")
    table.add_column("camera CPU,\nof plain x264", justify="right")
    for row in rows:
        table.add_row(
            str(row["method"]),
            *(_shown(row[key]) for key in ("kbps_90", "percent_90", "kbps_95", "percent_95")),
            _shown(row["camera_ratio"], 2),
        )
    out.print(table)
    out.print(
        "Bytes needed for 90 and 95 % of the answers that a visually lossless stream gives; one clip, so no "
        "intervals.",
        soft_wrap=True,
    )
    out.print(
        f"{_BASELINE} is plain x264, constant-qp has no adaptive quantisation, b2 has two B-frames, graded "
        "is steered; @dnn is at the size that the server DNN sees.",
        soft_wrap=True,
    )
    out.print(f"Report: {report}", soft_wrap=True)


def _rows(findings: "Findings") -> list[Row]:
    """A row per method, as plain values."""
    (dnn,) = findings.dnns
    reference = dnn.headline
    cameras = {cost.method: cost.ratio for cost in dnn.camera}
    rows: list[Row] = []
    for method in dnn.methods:
        row: Row = {"method": method, "camera_ratio": cameras.get(method)}
        for target in (0.90, 0.95):
            point = reference.operating_point(method, target)
            comparison = reference.comparison(method, _BASELINE)
            gap = None if comparison is None else comparison.gap(target)
            bitrate_bps = None if point is None else point.bitrate_bps
            row[f"kbps_{100 * target:.0f}"] = None if bitrate_bps is None else round(bitrate_bps / 1000, 1)
            row[f"percent_{100 * target:.0f}"] = None if gap is None else gap.percent
        rows.append(row)
    return rows


def _shown(value: str | float | None, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, float) else "–"


def _check_folder(folder: Path, clip: "ClipSpec", dnn: Path) -> None:
    """The table is of one clip and one server DNN; what a folder says is of all that it holds."""
    from accmpeg.dnn.card import read_card
    from accmpeg.evaluation.bench.rows import CELLS_NAME, read_rows

    wanted = (clip.name, read_card(dnn).name)
    for row in read_rows(folder / CELLS_NAME):
        if (row.clip, row.dnn) != wanted:
            raise UsageError(
                f"{folder} holds the comparison of {row.clip} with {row.dnn}: give another --output"
            )


def _own_clip(video: str) -> "ClipSpec":
    from accmpeg.errors import SourceError
    from accmpeg.evaluation.bench.plan import footage_clips
    from accmpeg.media.source import find_footage

    clips = footage_clips(find_footage([video]))
    if len(clips) != 1:
        raise SourceError(
            f"{video} holds {len(clips)} clips: the demo takes one video or folder of numbered "
            "pictures; accmpeg evaluate takes many"
        )
    return clips[0]
