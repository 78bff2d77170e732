"""What a node must see to do its part: shared storage, and server DNNs with their weights."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accmpeg.cluster.connect import check_nodes
from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.registry import read_checked_card
from accmpeg.errors import AccmpegError, SourceError
from accmpeg.media.shared_files import is_shared_address, shared_files

__all__ = ["check_needs"]

_SHARE = "on storage that all nodes share, at the same path"


@dataclass(frozen=True)
class _Needs:
    """Absolute paths and addresses, the cards as this machine reads them, and a file in each folder that
    nodes write to."""

    reads: Sequence[str]
    cards: Mapping[Path, DnnCard]
    marks: Sequence[Path]


def check_needs(reads: Sequence[str | Path], cards: Sequence[Path], folders: Sequence[Path]) -> None:
    """Asks every node for what this machine sees.

    Args:
        reads: Files and folders that nodes read, by path or address.
        cards: Those of server DNNs, with their weights.
        folders: Where nodes write; made where they are missing. A folder of the same name is not enough.

    Raises:
        SourceError: This machine can't see it itself.
        ClusterError: A node lacks something; all such nodes are named.
        CardError: This machine's own card can't be understood.
        WeightsError: This machine lacks the weights itself.
        OSError: A folder can't be written to.
    """
    asked = list(map(str, reads))
    for each in asked:
        if (lacking := _unseen(each)) is not None:
            raise SourceError(f"this machine {lacking}")
    read = {path: read_checked_card(path) for path in cards}
    with _marked(folders) as marks:
        check_nodes(partial(_lacking, _Needs(asked, read, marks)))


@contextmanager
def _marked(folders: Sequence[Path]) -> Iterator[list[Path]]:
    marks = [folder / f".shared-{secrets.token_hex(8)}" for folder in folders]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        yield marks
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _unseen(location: str) -> str | None:
    if is_shared_address(location):
        try:
            seen = bool(shared_files(location))
        except AccmpegError as error:
            return str(error)
        return None if seen else f"finds nothing at {location}"
    return None if Path(location).exists() else f"can't see {location}: put it {_SHARE}"


def _lacking(needs: _Needs) -> str | None:
    for each in needs.reads:
        if (unseen := _unseen(each)) is not None:
            return unseen
    for mark in needs.marks:
        if not mark.exists():
            return f"does not share {mark.parent}: give a folder {_SHARE}"
    for path, card in needs.cards.items():
        try:
            own = read_checked_card(path)
        except AccmpegError as error:
            return f"lacks a server DNN: {error}"
        if own != card:
            return f"has another {path}: give all nodes the same card and weights"
    return None
