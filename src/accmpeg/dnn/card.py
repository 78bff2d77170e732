"""The card of a server DNN, `NAME.card.toml` beside its weights: everything needed to run it and read it.

```toml
name = "mynet"
task = "detection"
adapter = "onnx"
model = "mynet.onnx"            # relative to the card, or absolute
sha256 = "…"
classes = ["person", "car"]
score_threshold = 0.25
nms_iou = 0.45                  # leave out where the network suppresses duplicates itself

[input]
name = "images"
width_px = 640
height_px = 640
size_multiple = 32              # leave out where only width_px x height_px is accepted
colour = "rgb"
mean = [0.0, 0.0, 0.0]          # in 0..255 units, in the network's channel order
std = [255.0, 255.0, 255.0]
letterbox = "centre"
pad_value = 114.0

[head]
name = "yolo"
```
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from accmpeg.errors import CardError, did_you_mean
from accmpeg.files import write_whole
from accmpeg.tasks.base import TaskName

__all__ = [
    "CARD_SUFFIX",
    "DnnCard",
    "HeadCard",
    "InputCard",
    "KeypointCard",
    "card_text",
    "check_options",
    "parse_card",
    "read_card",
    "write_card",
]

CARD_SUFFIX = ".card.toml"
LEAST_SHRINKING = 1.4
"""Below this, a stream is not made smaller for its server DNN."""

Fraction01 = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(ge=-1000, le=1000)]
Divisor = Annotated[float, Field(ge=1e-3, le=1e5)]
C = TypeVar("C", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputCard(_Section):
    """What the network reads: a batch of pictures, (value − mean) / std per channel."""

    name: str
    width_px: int = Field(ge=1, le=16384)
    height_px: int = Field(ge=1, le=16384)
    size_multiple: int | None = Field(default=None, ge=1, le=1024)
    """With it, frames are padded only up to the next multiple; without it, always to the full size."""
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Level, Level, Level] = (0.0, 0.0, 0.0)
    std: tuple[Divisor, Divisor, Divisor] = (255.0, 255.0, 255.0)
    letterbox: Literal["stretch", "centre", "top-left"] = "centre"
    pad_value: float = Field(default=114.0, ge=0, le=255)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Of an ONNX file's input; everything else is given NCHW."""

    @model_validator(mode="after")
    def _check(self) -> "InputCard":
        multiple = self.size_multiple or 1
        if self.width_px % multiple or self.height_px % multiple:
            raise ValueError(f"{self.width_px}x{self.height_px} is no multiple of size_multiple {multiple}")
        if max(self.std) < 1:
            raise ValueError(f"std = {list(self.std)} is for pixels of 0 to 1: multiply it and mean by 255")
        return self

    def seen_size_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """The size at which the network sees frames of that size, in even numbers, never larger.

        >>> InputCard(name="x", width_px=640, height_px=640).seen_size_px(1280, 720)
        (640, 360)
        """
        scales = self.width_px / width_px, self.height_px / height_px
        scale = min(1.0, max(scales) if self.letterbox == "stretch" else min(scales))
        return max(2, 2 * round(width_px * scale / 2)), max(2, 2 * round(height_px * scale / 2))

    def stream_size_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """The size that a stream for this network should have: `seen_size_px`, or the frames' own where
        that is less than `LEAST_SHRINKING` times as large.

        A little smaller saves hardly a bit, and yet the frame is resampled and loses three quarters of its
        chroma: measured, on two clips such streams needed about twice the bytes for the same accuracy.

        >>> InputCard(name="x", width_px=640, height_px=640).stream_size_px(768, 432)
        (768, 432)
        """
        seen = self.seen_size_px(width_px, height_px)
        return seen if width_px >= LEAST_SHRINKING * seen[0] else (width_px, height_px)


class HeadCard(_Section):
    """How the network's outputs are read: a head of `accmpeg.dnn.heads`, with its parameters."""

    name: str
    outputs: list[str] | None = None
    """Names of the outputs in the order that the head expects; None is the network's own order."""
    parameters: dict[str, float | int | str | list[int]] = {}


class KeypointCard(_Section):
    """The keypoints of a keypoint network."""

    names: list[str] = Field(min_length=1)
    visibility_threshold: Fraction01 = 0.5


class DnnCard(_Section):
    """One server DNN. Made by `read_card`, or by hand and stored by `write_card`."""

    name: str = Field(min_length=1)
    task: TaskName
    adapter: str
    model: str = Field(min_length=1)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    classes: list[str] = Field(min_length=1)
    score_threshold: Fraction01 = 0.25
    nms_iou: Fraction01 | None = None
    """Suppress duplicates above this IoU; None for networks that do it themselves."""
    input: InputCard
    head: HeadCard
    keypoints: KeypointCard | None = None
    options: dict[str, float | int | str | bool] = {}
    """What the adapter needs beyond the common keys; each adapter checks its own."""
    source: str = ""
    licence: str = ""

    @model_validator(mode="before")
    @classmethod
    def _check_kind(cls, document: Any) -> Any:
        if isinstance(document, dict) and "dnn" in document and "task" not in document:
            raise ValueError("this is the card of an AccModel, not that of a server DNN")
        return document

    @model_validator(mode="after")
    def _check(self) -> "DnnCard":
        if self.task == "keypoints" and self.keypoints is None:
            raise ValueError("a keypoints card needs a [keypoints] section with names")
        return self


def read_card(path: str | Path) -> DnnCard:
    """Reads and checks a card; raises `CardError` naming the key that is missing, unknown or senseless."""
    return parse_card(DnnCard, card_text(Path(path)), str(path))


def card_text(path: Path) -> str:
    """What stands in a card; raises `CardError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no text; `accmpeg models import FILE` makes the card of an ONNX file"
        raise CardError(f"{path} can't be read as a card: {reason}") from error


def parse_card(kind: type[C], text: str, where: str) -> C:
    """Checks the text of a card of this kind, which came from `where`; raises `CardError`."""
    try:
        return kind.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise CardError(f"{where}: {explain(error, kind)}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
        raise CardError(f"{where} is not valid TOML: {error}") from error


def write_card(card: BaseModel, path: str | Path) -> None:
    """Stores a card as TOML, in one step; raises `OSError`."""
    write_whole(Path(path), tomli_w.dumps(card.model_dump(exclude_none=True, mode="json")).encode())


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a failed validation as one line, with the nearest valid key for a misspelt one."""
    problems = error.errors()
    # A misspelt key is also a missing one: the misspelling is the cause.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        valid = _keys_at(model, first["loc"][:-1])
        hint = did_you_mean(str(first["loc"][-1]), valid, "valid keys are")
        return f"unknown key '{key}': {hint}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}: {reason}" if key else reason


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    section: Any = model
    for part in location:
        if isinstance(part, int):
            continue  # an entry of the list that the part before it names
        annotation = section.model_fields[str(part)].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(section.model_fields)


def check_options(card: DnnCard, known: Sequence[str]) -> None:
    """Raises `CardError` for an option that the card's adapter does not know."""
    for name in card.options:
        if name not in known:
            hint = did_you_mean(name, known, "it knows")
            raise CardError(f"{card.name}: the adapter '{card.adapter}' has no option '{name}': {hint}")
