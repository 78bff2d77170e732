"""What a setting says of itself, once: the command line, the TOML file and the reference are made of it.

And how people write quantities, the same in all of them.
"""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from accmpeg.errors import UsageError, did_you_mean

__all__ = ["Option", "parse_bitrate", "parse_bytes", "parse_rate", "parse_size", "read_site", "read_toml"]

_SITE_KEYS = frozenset({
    "size", "b-frames", "mbtree-frames", "policy", "map-strength", "map-margin", "every", "preset", "aq-mode",
    "crf", "max-bitrate", "profile",
})  # fmt: skip
"""What `accmpeg profile` writes; `profile` is the table that says what for."""
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class Option:
    """Stands in the annotation of a settings field that is an option of the command line.

    ```python
    every: Annotated[int, Option("Renew the quality map every so many frames.", min=1)] = 10
    ```

    Args:
        help: The sentence for users.
        name: What it is called on the command line, where that is not the field's own name.
        min: The least value that the command line takes.
        max: The greatest one.
        metavar: What stands for the value in the help, such as `FILE`.
        default: What the default means, where it is found out.
    """

    help: str
    name: str = ""
    min: float | None = None
    max: float | None = None
    metavar: str | None = None
    default: str = ""


def parse_bitrate(text: str, option: str = "--bitrate") -> int:
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
        raise UsageError(f"{option} {text}: give bits per second, such as 800k, 1.5M or 250000")
    return bitrate_bps


def parse_bytes(text: str, option: str) -> int:
    """Bytes of an option from `256M`, `4G` or `1000000`.

    >>> parse_bytes("256M", "--memory")
    268435456
    """
    number, factor = text.strip(), 1
    if number[-1:].lower() in _UNITS:
        factor, number = _UNITS[number[-1].lower()], number[:-1]
    if not number.isdecimal() or int(number) * factor < 1 << 20:
        raise UsageError(f"{option} {text}: give bytes, such as 256M or 4G, at least 1M")
    return int(number) * factor


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Width and height in pixels from `640x360`."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"{option} {text}: give width x height in pixels, such as 640x360")
    return int(width), int(height)


def parse_rate(text: str, option: str) -> Fraction:
    """Frames per second from `30` or `30000/1001`."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(f"{option} {text}: give frames per second, such as 30 or 30000/1001")
    return rate


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """The TOML file that an option names. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark before it
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"{option} {path}: can't be read: {said}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
        raise UsageError(f"{option} {path}: not valid TOML: {error}") from None  # it may quote a token


def read_site(path: Path, option: str, also: Collection[str] = ()) -> dict[str, Any]:
    """A profile that `accmpeg profile` wrote, and that may have been edited; `also` are more keys for it.

    Raises UsageError, also for a key that nobody would read.
    """
    document = {key.replace("_", "-"): value for key, value in read_toml(path, option).items()}
    known = _SITE_KEYS | set(also)
    for key in document:
        if key not in known and "profile" in document:  # without it, it is no profile: that is said elsewhere
            hint = did_you_mean(key, sorted(known), "valid keys are")
            raise UsageError(f"{option} {path}: unknown key '{key}': {hint}")
    return document
