"""What every verb shares: consoles, the one place that turns errors into exit codes, and option parsing."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from typer.core import TyperGroup

from accmpeg.errors import AccmpegError, MissingExtraError, UsageError

__all__ = [
    "TranslatingGroup",
    "err",
    "interrupt_on_sigterm",
    "out",
    "parse_bitrate",
    "parse_bytes",
    "parse_size",
    "print_json",
    "progress_bar",
]

# No markup: it would swallow what stands in brackets, such as the extra in "accmpeg[server]".
err = Console(stderr=True, highlight=False, markup=False)
out = Console(highlight=False, markup=False)

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

EXIT_FAILED = 1
EXIT_BAD_USE = 2
EXIT_INTERRUPTED = 130

# Which extra brings the module that turned out to be missing.
_EXTRA_OF_MODULE = {
    "cv2": "server",
    "fastapi": "server",
    "jinja2": "server",
    "PIL": "server",
    "prometheus_client": "server",
    "supervision": "server",
    "uvicorn": "server",
    "matplotlib": "evaluate",
    "scipy": "evaluate",
    "onnx": "train",
    "onnx2torch": "train",
    "safetensors": "train",
    "torch": "train",
    "torchvision": "train",
    "transformers": "huggingface",
    "openvino": "openvino",
    "aiomqtt": "mqtt",
}


class TranslatingGroup(TyperGroup):
    """A command group whose failures are one clear line and the right exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _fail(str(error), EXIT_BAD_USE)
        except AccmpegError as error:
            _fail(str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            _fail("interrupted: what was finished is kept", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of our stdout has gone (`accmpeg … | head`): nothing to say and nobody to say it to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_FAILED) from None
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            _fail(str(MissingExtraError(f"this command ({error.name})", extra)), EXIT_FAILED)
        except OSError as error:
            _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", EXIT_FAILED)


def _fail(message: str, exit_code: int) -> NoReturn:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    raise typer.Exit(exit_code)


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM behave like Ctrl-C, so that a stopped service keeps what it finished."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def print_json(document: Any) -> None:
    """Puts one JSON document on stdout (`--json`)."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr with count, elapsed and remaining time."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=quiet,
    ) as progress:
        yield progress


def parse_bitrate(text: str) -> int:
    """Bits per second from `800k`, `1.5M` or `250000`.

    >>> parse_bitrate("1.5M")
    1500000
    """
    number, factor = text.strip(), 1
    if number[-1:].lower() in {"k", "m"}:
        factor = {"k": 1_000, "m": 1_000_000}[number[-1].lower()]
        number = number[:-1]
    try:
        bitrate_bps = int(float(number) * factor)
    except (ValueError, OverflowError):
        bitrate_bps = 0
    if bitrate_bps < 1000:
        raise UsageError(f"--bitrate {text}: give bits per second, such as 800k, 1.5M or 250000")
    return bitrate_bps


def parse_bytes(text: str, option: str) -> int:
    """Bytes of an option from `256M`, `4G` or `1000000`.

    >>> parse_bytes("256M", "--memory")
    268435456
    """
    number, factor = text.strip(), 1
    if number[-1:].lower() in _UNITS:
        factor, number = _UNITS[number[-1].lower()], number[:-1]
    if not number.isdigit() or int(number) * factor < 1 << 20:
        raise UsageError(f"{option} {text}: give bytes, such as 256M or 4G, at least 1M")
    return int(number) * factor


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels from `640x360`."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"--size {text}: give width x height in pixels, such as 640x360")
    return int(width), int(height)
