"""The card of an AccModel, `NAME.card.toml` beside `NAME.onnx`: its DNN, training, cost and quality."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from accmpeg.dnn.card import CARD_SUFFIX, InputCard, card_text, parse_card
from accmpeg.errors import CardError, WeightsError
from accmpeg.media.planes import LONG_SIDE_PX, SIZE_MULTIPLE_PX

__all__ = [
    "LEAST_EPOCHS",
    "LEAST_TOP_SHARE",
    "AccModelCard",
    "Calibration",
    "Cost",
    "Quality",
    "ServedDnn",
    "TrainingRecord",
    "card_path",
    "read_accmodel_card",
    "sha256_of",
    "verified_weights",
]

LEAST_TOP_SHARE = 0.65
"""Below it, an AccModel is worth a warning: those of docs/results.md have 0.64 to 0.78, one whose training
had time for a tenth of its epochs 0.615."""
LEAST_EPOCHS = 0.5
"""A training that did less than this share of its epochs is worth a warning."""

Fraction01 = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServedDnn(_Section):
    """The server DNN whose accuracy the AccModel follows."""

    name: str
    task: str
    sha256: str | None = None
    input: InputCard | None = None
    """What it reads: a stream needs no more pixels than it sees (`InputCard.seen_size_px`)."""

    def is_same(self, name: str, sha256: str | None) -> bool:
        """Whether it is that server DNN: by its weights' hash or, where its card states none, by its name."""
        return (self.sha256 or self.name) == (sha256 or name)


class TrainingRecord(_Section):
    """What the AccModel was trained from, and how."""

    footage: list[str]
    """Names of the label sets."""
    label_settings: list[dict[str, Any]]
    frames: int
    clips: int
    held_out_frames: int
    held_out_clips: int
    epochs: float
    epochs_asked: int | None = None
    """How many the schedule would have had with enough time."""
    ended: Literal["epochs", "minutes", "no improvement"] | None = None
    """Why training ended: "minutes" is for lack of time."""
    minutes: float
    seed: int
    device: str
    init: str | None = None
    """The AccModel whose weights it started from."""


class Calibration(_Section):
    """How the outputs read: `accgrad` is log₂ AccGrad per macroblock, `objects` a probability."""

    object_threshold: Fraction01 = 0.5
    """At it, `object_recall` of the macroblocks with objects were found on held-out frames."""
    object_recall: Fraction01 = 0.95


class Cost(_Section):
    """What one map costs; time is that of one core of the machine that trained it."""

    width_px: int
    height_px: int
    macs: int
    parameters: int
    ms: float


class Quality(_Section):
    """Means over frames of clips that training never saw; see `accmpeg.training.quality`."""

    footage: str
    clips: int
    frames: int
    top_share: float | None = None
    """AccGrad held by the predicted top 20 % of macroblocks, relative to that of the true top 20 %.

    Without the frames in which a server DNN that reports objects reports none; `top_share_all` has them too.
    """
    top_share_all: float | None = None
    rank_correlation: float | None = None
    log_correlation: float | None = None
    objects_iou: float | None = None
    objects_recall: float | None = None


class AccModelCard(_Section):
    """One AccModel; stored as TOML by `write_accmodel_card`."""

    name: str = Field(min_length=1)
    format: Literal[1] = 1
    model: str = Field(min_length=1)
    """Weights, relative to the card."""
    sha256: Sha256
    long_side_px: int = Field(default=LONG_SIDE_PX, ge=SIZE_MULTIPLE_PX, le=8192)
    outputs: list[Literal["accgrad", "objects"]] = Field(min_length=1)
    """Maps in the order of the network's output channels."""
    dnn: ServedDnn
    training: TrainingRecord | None = None
    calibration: Calibration = Calibration()
    cost: Cost | None = None
    quality: list[Quality] = []

    @model_validator(mode="before")
    @classmethod
    def _check_kind(cls, document: Any) -> Any:
        if isinstance(document, dict) and "task" in document and "dnn" not in document:
            raise ValueError("this is the card of a server DNN: `accmpeg train` makes an AccModel for it")
        return document

    @model_validator(mode="after")
    def _check_outputs(self) -> "AccModelCard":
        if "accgrad" not in self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError("outputs must name accgrad, and each map once")
        return self

    @property
    def top_share(self) -> float | None:
        """The lowest measured top share, see `Quality`; None where none was measured."""
        shares = [q.top_share_all if q.top_share is None else q.top_share for q in self.quality]
        return min((share for share in shares if share is not None), default=None)

    def shortcomings(self) -> str | None:
        """Why this AccModel should be trained better before anyone relies on it, as one line; else None.

        That is a top share below `LEAST_TOP_SHARE`, or a training that had time for less than `LEAST_EPOCHS`
        of its epochs.
        """
        found = []
        if self.top_share is not None and self.top_share < LEAST_TOP_SHARE:
            found.append(
                f"its top-20 % share on held-out frames is {self.top_share:.3f}, below {LEAST_TOP_SHARE:g}"
            )
        record = self.training
        if record is not None and record.ended == "minutes" and record.epochs_asked is not None:
            done = record.epochs / record.epochs_asked
            if done < LEAST_EPOCHS:
                found.append(f"its training had time for {record.epochs:g} of {record.epochs_asked} epochs")
        if not found:
            return None
        return (
            f"the AccModel {self.name} may steer badly: {' and '.join(found)}; train it for longer or with "
            "more footage"
        )


def card_path(path: str | Path) -> Path:
    """The card of an AccModel that is named by its card or by its ONNX file."""
    path = Path(path)
    return path if path.name.endswith(CARD_SUFFIX) else path.parent / (path.stem + CARD_SUFFIX)


def read_accmodel_card(path: str | Path) -> AccModelCard:
    """Reads and checks a card; raises `CardError` naming the key that is missing, unknown or senseless."""
    card = card_path(path)
    if Path(path).is_file() and not card.exists():
        raise CardError(f"{path} has no {card.name} beside it: accmpeg train writes both, so copy both")
    return parse_card(AccModelCard, card_text(card), str(card))


def verified_weights(card: AccModelCard, card_file: Path) -> bytes:
    """The bytes of the card's ONNX file; raises `WeightsError` where it is missing or has changed."""
    file = card_file.parent / card.model
    try:
        weights = file.read_bytes()
    except OSError as error:
        raise WeightsError(f"the AccModel's weights {file} can't be read: {error.strerror}") from error
    if sha256_of(weights) != card.sha256:
        raise WeightsError(f"{file} is not the file that {card_file.name} describes (sha256 differs)")
    return weights


def sha256_of(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()
