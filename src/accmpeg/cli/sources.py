"""Addresses that verbs accept: those of `media.source`, and the embedded scene; and how they are opened."""

from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accmpeg.cli.common import parse_size
from accmpeg.errors import UsageError

if TYPE_CHECKING:
    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.media.inputs import InputOptions
    from accmpeg.media.source import Source, SourceInfo

__all__ = [
    "DNN_SIZE",
    "EMBEDDED_SCENE",
    "InputFormat",
    "InputRate",
    "InputSize",
    "RtspTransport",
    "RtspTransportOption",
    "embedded_accmodel",
    "input_options",
    "open_any_source",
    "stream_size",
]

DNN_SIZE = "dnn"

EMBEDDED_SCENE = "scene"


class RtspTransport(StrEnum):
    """How an RTSP camera sends its pictures."""

    AUTO = "auto"
    TCP = "tcp"
    UDP = "udp"


RtspTransportOption = Annotated[
    RtspTransport, typer.Option(help="RTSP: auto is TCP, and UDP where the camera refuses that.")
]
InputFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="Device: pixel format, such as mjpeg or yuyv.")
]
InputSize = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Device: picture size, such as 1280x720.")
]
InputRate = Annotated[str | None, typer.Option(metavar="RATE", help="Device: frames per second, such as 30.")]


def input_options(
    rtsp_transport: RtspTransport, input_format: str | None, input_size: str | None, input_rate: str | None
) -> "InputOptions":
    """What `--rtsp-transport` and the `--input-…` options ask of a source. Raises UsageError."""
    from accmpeg.media.inputs import InputOptions

    return InputOptions(
        rtsp_transport=rtsp_transport.value,
        pixel_format=input_format,
        size_px=parse_size(input_size, "--input-size") if input_size else None,
        frame_rate=_parse_rate(input_rate) if input_rate else None,
    )


def _parse_rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(f"--input-rate {text}: give frames per second, such as 30 or 30000/1001")
    return rate


def embedded_accmodel(address: str) -> Path | None:
    """The card of the embedded scene's AccModel, if `address` is that scene."""
    if address != EMBEDDED_SCENE:
        return None
    from accmpeg.demo import assets_path

    return assets_path() / "accmodel.card.toml"


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
