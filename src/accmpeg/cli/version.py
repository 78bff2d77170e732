"""`accmpeg version`."""

from accmpeg.cli.common import out
from accmpeg.version import __version__

__all__ = ["version"]


def version() -> None:
    """Print the version."""
    out.print(__version__)
