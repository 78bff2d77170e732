"""`accmpeg cluster`: the same work on a Ray cluster."""

from typing import Annotated

import typer

from accmpeg.cli.common import TranslatingGroup

__all__ = ["Address", "cluster_app"]

cluster_app = typer.Typer(cls=TranslatingGroup, help="The same work on a Ray cluster.", no_args_is_help=True)

Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help="Head of the Ray cluster. Default: the cluster that this machine is part of.",
    ),
]
