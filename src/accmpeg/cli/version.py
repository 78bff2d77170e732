"""`accmpeg version`, which most people look for under `--version`."""

from typing import Annotated

import typer

from accmpeg.cli.common import out
from accmpeg.version import __version__

__all__ = ["version", "version_option"]


def version() -> None:
    """Print the version."""
    out.print(__version__)


def _print_and_leave(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


def version_option(
    asked: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_and_leave, is_eager=True),
    ] = False,
) -> None:
    """Video streams whose macroblock quality follows the accuracy of a server DNN."""
