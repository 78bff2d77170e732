"""Addresses that verbs accept: those of `media.source`, and the embedded scene."""

from pathlib import Path
from typing import TYPE_CHECKING

from accmpeg.cli.common import parse_size
from accmpeg.errors import UsageError

if TYPE_CHECKING:
    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.media.source import Source, SourceInfo

__all__ = ["DNN_SIZE", "EMBEDDED_SCENE", "embedded_accmodel", "open_any_source", "stream_size"]

DNN_SIZE = "dnn"

EMBEDDED_SCENE = "scene"


def embedded_accmodel(address: str) -> Path | None:
    """The card of the embedded scene's AccModel, if `address` is that scene."""
    if address != EMBEDDED_SCENE:
        return None
    from accmpeg.demo import assets_path

    return assets_path() / "accmodel.card.toml"


def open_any_source(address: str) -> "Source":
    """Opens a file, folder, address or device, or the embedded scene by the name `scene`.

    Raises SourceError for what can't be opened.
    """
    if address == EMBEDDED_SCENE:
        from accmpeg.demo import demo_scene

        return demo_scene()
    from accmpeg.media.source import open_source

    return open_source(address)


def stream_size(text: str | None, info: "SourceInfo", model: "AccModel | None") -> tuple[int, int]:
    """Width and height of a stream from `--size`: given, that which the server DNN sees, or the source's.

    Raises UsageError for anything else, and for `dnn` without an AccModel that knows its DNN's input.
    """
    if text is None:
        return info.width_px, info.height_px
    if text != DNN_SIZE:
        return parse_size(text)
    if model is None or model.card.dnn.input is None:
        raise UsageError(
            "--size dnn needs an AccModel whose card knows its server DNN's input: label and train one with "
            "this version, or give a size such as 640x360"
        )
    return model.card.dnn.input.stream_size_px(info.width_px, info.height_px)
