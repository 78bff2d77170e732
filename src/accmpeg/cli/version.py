"""`accmpeg version`."""

import accmpeg
from accmpeg.cli.common import out

__all__ = ["version"]


def version() -> None:
    """Print the version."""
    out.print(accmpeg.__version__)
