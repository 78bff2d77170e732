"""`--profile site.toml`: what `accmpeg profile` chose for a site, as the defaults of a verb's options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accmpeg.errors import UsageError
from accmpeg.options import read_site, read_toml

if TYPE_CHECKING:
    from accmpeg.accmodel.card import AccModelCard
    from accmpeg.media.source import SourceInfo

__all__ = ["SiteProfile", "check_site"]

RECORD = "profile"
"""The table of the file that says what it was made for."""


def _load(context: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    options = {option.name: option for option in context.command.params}
    flags = {flag.removeprefix("--"): name for name, each in options.items() for flag in each.opts}
    document = read_site(path, "--profile", flags)
    chosen = {str(flags[key]): value for key, value in document.items() if key in flags}
    if "to" not in options and chosen.get("policy") == "feedback":
        chosen["policy"] = "none"  # a file gets no answers
    # Below what --config brings, whichever is read first.
    context.default_map = {**chosen, **(context.default_map or {})}
    return path


SiteProfile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        is_eager=True,  # before the options whose defaults it brings
        callback=_load,
        metavar="FILE",
        help="What `accmpeg profile` chose for this camera; what is set by hand wins over it.",
    ),
]


def check_site(
    path: Path | None,
    source: "SourceInfo",
    *,
    dnn: str | None = None,
    accmodel: "AccModelCard | None" = None,
) -> None:
    """Refuses a profile that was made for another size of frames or another server DNN. Raises UsageError."""
    if path is None:
        return
    record = read_toml(path, "--profile").get(RECORD)
    if not isinstance(record, dict):
        raise UsageError(f"--profile {path} has no [{RECORD}] table: make one with accmpeg profile")
    size = f"{source.width_px}x{source.height_px}"
    way_out = "profile this camera's own footage, or leave --profile out"
    if record.get("source") != size:
        raise UsageError(f"--profile {path} is for frames of {record.get('source')}, not {size}: {way_out}")
    if dnn is not None and record.get("dnn") != dnn:
        raise UsageError(f"--profile {path} is for the server DNN {record.get('dnn')}, not {dnn}: {way_out}")
    if accmodel is not None and record.get("dnn-sha256") not in ("", accmodel.dnn.sha256):
        made = f"the AccModel {accmodel.name} was made for {accmodel.dnn.name}"
        raise UsageError(f"--profile {path} is for the server DNN {record.get('dnn')}, and {made}: {way_out}")
