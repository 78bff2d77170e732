"""`accmpeg profile`: chooses a site's whole stream by measuring it on the site's own footage."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from accmpeg.cli.common import AsJson, Labels, Reference, err, out, print_json, progress_bar, warn_of
from accmpeg.errors import UsageError
from accmpeg.evaluation.settings import ProfileSettings

__all__ = ["profile"]


def profile(
    footage: Annotated[
        list[str], typer.Argument(metavar="FOOTAGE", help="Videos of one camera, or folders of them.")
    ],
    dnn: Annotated[Path, typer.Option(help="Server DNN card (NAME.card.toml).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The profile, such as site.toml.")],
    *,
    accmodel: Annotated[Path | None, typer.Option(help="AccModel made for the server DNN.")] = None,
    reference: Reference = None,
    labels: Labels = None,
    settings: ProfileSettings,
    results_per_second: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="For a camera that sends about so many frames.", show_default="the source's rate"
        ),
    ] = None,
    reading_size: Annotated[
        list[int] | None,
        typer.Option(
            min=32,
            metavar="PX",
            help="Longest side of pictures that the server DNN could read instead; may repeat. Needs "
            "--labels or --reference.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose the whole stream for a site: size, B-frames, map and the rest, by the server DNN's own answers.

    The first half of the footage chooses, the second judges. Measured cells stay in the folder NAME.cells
    beside the profile, and the same command goes on where an interrupted one stopped, in the time it had
    left.
    """
    from dataclasses import replace

    from accmpeg.evaluation.bench.plan import DnnSpec
    from accmpeg.evaluation.profile.parts import cut
    from accmpeg.evaluation.profile.reading import compare_readings
    from accmpeg.evaluation.profile.render import sentences, site_document, table, write_picture, write_site
    from accmpeg.evaluation.profile.search import search
    from accmpeg.media.source import find_footage

    if output.suffix != ".toml":
        raise UsageError(f"-o {output}: a profile is a TOML file, so give a name such as site.toml")
    (spec,) = DnnSpec.read_all([dnn], [accmodel] if accmodel is not None else [], reference)
    if spec.accmodel is not None:
        warn_of(spec.accmodel)
    parts = cut(find_footage(footage), results_per_second=results_per_second, labels=labels)
    with progress_bar() as bar:
        task = bar.add_task("profile", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        folder = output.with_suffix(".cells")
        readings = compare_readings(
            parts, spec, reading_size or (), folder / "readings", settings, progress=show
        )
        found = replace(search(parts, spec, folder, settings, progress=show), readings=readings)
    write_site(found, output)
    write_picture(found, output.with_suffix(".png"))
    if as_json:
        print_json({"profile": site_document(found), "said": sentences(found), "streams": table(found)})
        return
    rows = table(found)
    shown = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        shown.add_row(*row.values())
    out.print(shown)
    for sentence in sentences(found):
        out.print(sentence, soft_wrap=True)
    err.print(f"written: {output}, {output.with_suffix('.png')}", soft_wrap=True)
