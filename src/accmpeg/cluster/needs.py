"""What a node must see to do its part: footage on shared storage, server DNNs with their weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accmpeg.cluster.connect import Look
from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.registry import read_checked_card
from accmpeg.errors import AccmpegError

__all__ = ["Needs"]


@dataclass(frozen=True)
class Needs:
    """Absolute paths, and cards as this machine reads them."""

    footage: Sequence[Path]
    cards: dict[Path, DnnCard]

    @classmethod
    def of(cls, footage: Sequence[str], cards: Sequence[str]) -> "Needs":
        """Raises CardError or WeightsError where this machine's own card can't be used."""
        return cls(
            [Path(each) for each in footage], {Path(each): read_checked_card(Path(each)) for each in cards}
        )

    @property
    def lacking(self) -> Look:
        return partial(_lacking, self)


def _lacking(needs: Needs) -> str | None:
    for path in needs.footage:
        if not path.exists():
            return f"can't see {path}: put it on storage that all nodes share, at the same path"
    for path, card in needs.cards.items():
        try:
            own = read_checked_card(path)
        except AccmpegError as error:
            return f"lacks a server DNN: {error}"
        if own != card:
            return f"has another {path}: give all nodes the same card and weights"
    return None
