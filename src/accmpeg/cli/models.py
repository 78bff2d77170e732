"""`accmpeg models`: make and check the cards of server DNNs."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from accmpeg.cli.common import AsJson, TranslatingGroup, err, out, print_json
from accmpeg.errors import AccmpegError, UsageError

__all__ = ["models_app"]

models_app = typer.Typer(
    cls=TranslatingGroup, help="Make and check the cards of server DNNs.", no_args_is_help=True
)


@models_app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An ONNX file, or a folder of them.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Data folder: cards go to DATA/cards. Without it they go beside the networks."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A card key, such as input.colour=bgr; may repeat."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite cards that exist.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the card of an ONNX network from what the file and the JSON beside it say, and ask for the rest.

    Without a terminal nobody is asked: an error names the keys that are open, and --set gives each.
    """
    from accmpeg.dnn.importer import find_models, import_model

    answers = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: give KEY=VALUE, such as --set input.colour=bgr")
        answers[key.strip()] = value
    ask = None if as_json or not sys.stdin.isatty() else _ask
    done, failed = [], 0
    for model in find_models(path):
        cards = data / "cards" if data is not None else model.parent
        try:
            imported = import_model(model, cards, data=data, answers=answers, ask=ask, replace=replace)
        except AccmpegError as error:
            if path == model:
                raise
            failed += 1
            err.print(Text.assemble(("failed ", "bold red"), f"{model.name}: {error}"), soft_wrap=True)
            continue
        done.append({"model": str(model), "card": str(imported.card or ""), "note": imported.note})
        if not as_json:
            target = f" → {imported.card}" if imported.card else ""
            out.print(f"{model.name}{target} ({imported.note})", soft_wrap=True)
    if as_json:
        print_json(done)
    if failed:
        raise typer.Exit(1)


@models_app.command()
def check(
    card: Annotated[Path, typer.Argument(metavar="CARD", help="Server DNN card (NAME.card.toml).")],
    image: Annotated[Path, typer.Option(help="A picture to run it on.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Draw the result into this PNG.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a server DNN on a picture, compare it with PyTorch and verify its input gradient."""
    from accmpeg.dnn.base import load_dnn
    from accmpeg.dnn.check import check_dnn
    from accmpeg.media.footage import read_still

    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"-o {output}: the drawn result is a PNG; name it so")
    frame = read_still(image)
    dnn = load_dnn(card, threads=threads)
    result, findings = check_dnn(dnn, frame)
    if as_json:
        print_json({"card": str(card), "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table("check", "result", "", box=None, header_style="bold")
        for finding in findings:
            table.add_row(
                finding.name, finding.value, Text("ok", "green") if finding.ok else Text("failed", "red")
            )
        out.print(table)
    if output is not None:
        from accmpeg.tasks.drawing import draw, write_png

        drawn = draw(
            np.asarray(frame.to_ndarray(format="rgb24"), np.uint8),
            result,
            dnn.card.classes,
            score_threshold=dnn.card.score_threshold,
        )
        write_png(output, drawn)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _ask(key: str, question: str, default: str | None) -> str:
    return str(typer.prompt(f"{question} [{key}]", default=default, err=True))
