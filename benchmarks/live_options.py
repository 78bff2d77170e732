"""The options that benchmarks share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["CameraOptions", "FrameRate", "Frames", "JsonFile", "ServerOptions", "Size", "Work"]

Size = Annotated[str, typer.Option(help="Size of the scene.")]
FrameRate = Annotated[int, typer.Option(help="Frames per second.")]
Frames = Annotated[int, typer.Option(help="Frames of the scene to draw, played to and fro.")]
CameraOptions = Annotated[
    list[str] | None, typer.Option(help="More for `accmpeg stream`, such as --bitrate=1M.")
]
ServerOptions = Annotated[
    list[str] | None, typer.Option(help="More for `accmpeg serve`, such as --threads=1.")
]
Work = Annotated[Path | None, typer.Option(help="Folder for the drawn scene and the programs' files.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
