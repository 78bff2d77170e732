"""`accmpeg demo`: the main job on the embedded scene, or on a user's own video."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from accmpeg.cli.common import err, out, parse_bitrate, print_json, warn_of
from accmpeg.errors import UsageError

if TYPE_CHECKING:
    from accmpeg.evaluation.clip import Clip

__all__ = ["demo"]

_OWN_FRAMES = 300


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("accmpeg-demo"),
    video: Annotated[str | None, typer.Option(help="Your own video, instead of the embedded scene.")] = None,
    dnn: Annotated[Path | None, typer.Option(help="Server DNN card, with --video.")] = None,
    accmodel: Annotated[Path | None, typer.Option(help="AccModel card or ONNX file, with --video.")] = None,
    bitrate: Annotated[str, typer.Option(help="Bitrate of the AccMPEG stream.")] = "400k",
    limit: Annotated[int | None, typer.Option(min=1, help="Compare on so many frames.")] = None,
    step: Annotated[int, typer.Option(min=1, help="Measure accuracy on every so many frames.")] = 3,
    every: Annotated[int, typer.Option(min=1, help="Renew the quality map every so many frames.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare plain x264, adaptive quantisation and AccMPEG at the same bytes; write an HTML report."""
    given = [name for name, value in (("--video", video), ("--dnn", dnn), ("--accmodel", accmodel)) if value]
    if given and len(given) < 3:
        raise UsageError(f"{' and '.join(given)} alone won't do: give --video, --dnn and --accmodel together")
    bitrate_bps = parse_bitrate(bitrate)

    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.demo import assets_path
    from accmpeg.demo.comparison import compare, embedded_clip
    from accmpeg.demo.report import report_rows, write_report
    from accmpeg.dnn.base import load_dnn

    dnn_card = dnn or assets_path() / "detector.card.toml"
    server_dnn = load_dnn(dnn_card)
    model = AccModel.load(accmodel or assets_path() / "accmodel.card.toml")
    warn_of(model.card)
    with err.status("reading the clip") as status:
        clip = _own_clip(video, limit) if video else embedded_clip(limit)
        comparison = compare(
            clip,
            server_dnn,
            dnn_card,
            model,
            bitrate_bps=bitrate_bps,
            step=step,
            every=every,
            report=status.update,
        )
        status.update("writing the report")
        report = folder / "report.html"
        write_report(comparison, report, synthetic=video is None)
    rows = report_rows(comparison)
    if as_json:
        print_json({"clip": clip.name, "synthetic": video is None, "report": str(report), "rows": rows})
        return
    if video is None:
        out.print(
            "The embedded scene is synthetic: rendered by this project, as is what its models learned from."
        )
    labelled = rows[0]["accuracy_vs_labels"] is not None
    table = Table(box=None, header_style="bold", pad_edge=False)  # made to fit 80 columns
    table.add_column("method", min_width=28)
    table.add_column("bytes", justify="right")
    for heading in (
        *(["accuracy\n(labels)"] if labelled else []),
        "accuracy\n(source)",
        "camera\nms/frame",
        "delay ms\np50 / p95",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        labels = [f"{row['accuracy_vs_labels']:.3f}"] if labelled else []
        table.add_row(
            row["method"],
            f"{row['bytes']:,}",
            *labels,
            f"{row['accuracy_vs_source']:.3f}",
            f"{row['camera_ms_per_frame']:.2f}",
            f"{row['delay_p50_ms']} / {row['delay_p95_ms']}",
        )
    out.print(table)
    out.print(
        f"Accuracy {'against true labels, and ' if labelled else ''}against the DNN on the source; "
        "camera: CPU; delay: computed for 1 Mbit/s.",
        soft_wrap=True,
    )
    out.print(f"Report: {report}", soft_wrap=True)


def _own_clip(video: str, limit: int | None) -> "Clip":
    from accmpeg.evaluation.clip import read_clip
    from accmpeg.media.source import open_source

    with open_source(video) as source:
        return read_clip(source, limit=limit or _OWN_FRAMES)
