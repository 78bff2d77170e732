"""Addresses that verbs accept: those of `media.source`, and the embedded scene; and how they are opened."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from accmpeg.errors import UsageError
from accmpeg.options import parse_size

if TYPE_CHECKING:
    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.media.inputs import InputOptions
    from accmpeg.media.source import Source, SourceInfo

__all__ = [
    "DNN_SIZE",
    "EMBEDDED_SCENE",
    "PolicyName",
    "load_accmodel",
    "open_any_source",
    "stream_size",
]

DNN_SIZE = "dnn"

EMBEDDED_SCENE = "scene"


class PolicyName(StrEnum):
    """What makes the quality map: an AccModel's scores by one of two rules, the server's answers, nothing."""

    GRADED = "graded"
    BINARY = "binary"
    FEEDBACK = "feedback"
    NONE = "none"


def load_accmodel(path: Path | None, policy: PolicyName, source: str) -> "AccModel | None":
    """The AccModel that steers: that of `path`, or the embedded scene's own; None for plain video, and where
    the server's answers steer alone.

    Raises UsageError where none is named, CardError or WeightsError for one that can't be loaded.
    """
    if policy is PolicyName.NONE:
        return None
    if path is None and source == EMBEDDED_SCENE:
        from accmpeg.demo import assets_path

        path = assets_path() / "accmodel.card.toml"
    if path is None and policy is PolicyName.FEEDBACK:
        return None
    if path is None:
        raise UsageError("--accmodel is missing: name an AccModel, or ask for plain video with --policy none")
    from accmpeg.accmodel.runtime import AccModel

    return AccModel.load(path)


def open_any_source(address: str, options: "InputOptions | None" = None) -> "Source":
    """Opens a file, folder, address or device, or the embedded scene by the name `scene`.

    Raises SourceError for what can't be opened, UsageError for options that this kind of source has not.
    """
    if address == EMBEDDED_SCENE:
        from accmpeg.demo import demo_scene

        if options is not None:
            options.check(address, is_device=False)
        return demo_scene()
    from accmpeg.media.source import open_source

    return open_source(address, options)


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
