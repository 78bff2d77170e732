"""What a sweep consists of: clips, server DNNs with their AccModels, settings, and the cells that follow."""

import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import av

from accmpeg.accmodel.card import AccModelCard, read_accmodel_card
from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.registry import read_checked_card
from accmpeg.errors import SourceError, UsageError
from accmpeg.evaluation.bench.cache import content_hash
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.bench.labels import read_coco
from accmpeg.evaluation.bench.rows import FORMAT, Role
from accmpeg.evaluation.methods import Method, find_methods
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.media.footage import folder_pictures, writable
from accmpeg.media.seeking import frames_of
from accmpeg.media.shared_files import local_file
from accmpeg.media.source import Footage, open_source
from accmpeg.version import __version__

__all__ = [
    "CEILING_QUALITY",
    "NULL_METHOD",
    "ClipSpec",
    "DnnSpec",
    "Group",
    "footage_clips",
]

log = logging.getLogger(__name__)

NULL_METHOD = "aq-1"
"""Measured a second time between its own operating points: what a comparison of equals looks like."""
CEILING_QUALITY = 12
"""CRF of the visually lossless stream of the source whose score is a clip's ceiling."""


@dataclass(frozen=True)
class ClipSpec:
    """A clip to be opened in a worker. `sha256` is of its content."""

    name: str
    sha256: str
    open: Callable[[int | None], Clip]
    weight: float = 0.0
    """Pixels or bytes: about how much work it is, so that the longest clips are begun first."""

    def part(self, name: str, first: int, frames: int, stride: int = 1) -> "ClipSpec":
        """A clip of its own, of so many frames from `first` on, every `stride`-th."""
        if not isinstance(self.open, _Opener):
            raise ValueError(f"{self.name} comes from no file, so it has no parts")
        return ClipSpec(
            name,
            content_hash(self.sha256, first, frames, stride),
            replace(self.open, first=first, frames=frames, stride=stride),
            self.weight,
        )


@dataclass(frozen=True)
class DnnSpec:
    """A server DNN by its card, with the AccModel made for it, if there is one."""

    card_file: Path
    card: DnnCard
    accmodel_file: Path | None = None
    accmodel: AccModelCard | None = None
    stronger: "DnnSpec | None" = None
    """Confirms the server DNN's answers."""

    @classmethod
    def read_all(
        cls, cards: Sequence[Path], accmodels: Sequence[Path], stronger: Path | None = None
    ) -> "list[DnnSpec]":
        """Pairs cards with AccModels by the hash of the server DNN; raises UsageError for one left over,
        and WeightsError for weights that are not the card's: every cell would fail of it.

        `stronger` confirms the answers of those that have boxes and are another network, or the same one
        reading another size.
        """
        models = {path: read_accmodel_card(path) for path in accmodels}
        specs = []
        taken: set[Path] = set()
        for file in cards:
            card = read_checked_card(file)
            own = [path for path, model in models.items() if model.dnn.is_same(card.name, card.sha256)]
            if len(own) > 1:
                raise UsageError(
                    f"--accmodel: {own[0]} and {own[1]} were both made for {card.name}: give one"
                )
            taken.update(own)
            judge = None
            if stronger is not None and card.task != "segmentation":
                judge = cls(stronger, read_checked_card(stronger))
                if judge.card.task == "segmentation":
                    raise UsageError(f"--reference {stronger} reports no boxes, so it can't confirm any")
                if _network(judge.card) == _network(card):
                    judge = None
            accmodel_file = own[0] if own else None
            specs.append(cls(file, card, accmodel_file, models[own[0]] if own else None, judge))
        for path, model in models.items():
            if path in taken:
                continue
            raise UsageError(f"--accmodel {path} was made for {model.dnn.name}, which no --dnn names")
        names = [spec.card.name for spec in specs]
        if len(set(names)) < len(names):
            raise UsageError(f"two server DNNs are called alike ({', '.join(names)}): rename one in its card")
        if stronger is not None and not any(spec.stronger for spec in specs):
            raise UsageError(
                f"--reference {stronger} confirms nothing: it takes a stronger DNN, and boxes of both"
            )
        return specs


def _network(card: DnnCard) -> tuple[object, ...]:
    """What can't confirm itself, whatever its card calls it."""
    return card.sha256 or card.model, card.input


@dataclass(frozen=True)
class Group:
    """A clip and a server DNN, whose cells share decoded frames and reference results."""

    clip: ClipSpec
    dnn: DnnSpec
    method_names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.clip.name} for {self.dnn.card.name}"

    @property
    def methods(self) -> Mapping[str, Method]:
        """By name; a worker process finds them anew, so that plug-ins need not be picklable."""
        return _found(self.method_names)

    def cell_key(self, method: str, quality: float, role: Role, settings: SweepSettings) -> str:
        """The hash of everything a cell's figures depend on but the machine's speed."""
        dnn, accmodel = self.dnn, None
        declared = self.methods.get(method)
        if declared is not None and "accmodel" in declared.needs and dnn.accmodel is not None:
            accmodel = dnn.accmodel.sha256, dnn.accmodel.calibration.object_threshold
        links = {name: asdict(link) for name, link in settings.links.items()}
        stronger = None if dnn.stronger is None else dnn.stronger.card.model_dump(mode="json")
        return content_hash(
            __version__,
            FORMAT,
            self.clip.name,
            self.clip.sha256,
            dnn.card.model_dump(mode="json"),
            stronger,
            accmodel,
            method,
            float(quality),
            role,
            (settings.limit, settings.step, settings.every, links, asdict(settings.live_link)),
            (settings.server_ms, settings.server_cores, settings.label_min_height_px),
            *([declared.code] if declared is not None and declared.code else []),
        )


@cache
def _found(names: tuple[str, ...]) -> Mapping[str, Method]:
    return {method.name: method for method in find_methods(",".join(names))}


def footage_clips(footage: Sequence[Footage], labels: Path | None = None) -> list[ClipSpec]:
    """Videos and folders of numbered pictures; stills are no clips.

    A clip is called by its file's or folder's name where that is unique. `labels`: a folder with COCO files,
    `NAME.json` for the clip NAME; some clips may have none. Raises SourceError for a file that can't be read,
    UsageError where no clip has labels.
    """
    clips = [item for item in footage if item.kind != "still"]
    if clips and len(clips) < len(footage):
        still = next(item for item in footage if item.kind == "still")
        log.warning(
            "%d pictures, such as %s, are left out: those of a clip have numbers for names, and one size",
            len(footage) - len(clips),
            still.path,
        )
    stems = Counter(item.path.stem for item in clips)
    names = [item.path.stem if stems[item.path.stem] == 1 else item.clip for item in clips]
    unlabelled = [] if labels is None else [name for name in names if not (labels / f"{name}.json").exists()]
    if names and len(unlabelled) == len(names):
        raise UsageError(
            f"--labels {labels}: it has none of {', '.join(f'{name}.json' for name in names[:4])}: call each "
            "file like its clip; COCO's format is read, and not the text of YOLO or MOT"
        )
    if unlabelled:
        log.warning(
            "--labels %s has none of %s", labels, ", ".join(f"{name}.json" for name in unlabelled[:4])
        )
    specs = []
    for name, item in zip(names, clips, strict=True):
        own = None if labels is None else labels / f"{name}.json"
        own = own if own is not None and own.exists() else None
        try:
            with local_file(item.location) as path:
                size_bytes = sum(file.stat().st_size for file in _files_of(path))
                sha256 = _content_sha256(path, own)
            specs.append(ClipSpec(writable(name), sha256, _Opener(item.location, own), weight=size_bytes))
        except OSError as error:
            raise SourceError(f"can't read {error.filename}: {error.strerror}") from error
    return specs


def _content_sha256(path: Path, labels: Path | None) -> str:
    digest = hashlib.sha256()
    for file in _files_of(path):
        digest.update(b"" if path.is_file() else os.fsencode(file.name))
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    if labels is not None:
        digest.update(labels.read_bytes())
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())


@dataclass(frozen=True)
class _Opener:
    location: Path | str
    labels: Path | None
    first: int = 0
    frames: int | None = None
    stride: int = 1

    def __call__(self, limit: int | None) -> Clip:
        limit = min((each for each in (limit, self.frames) if each is not None), default=None)
        with local_file(self.location) as path:
            return self._read(path, limit)

    def _read(self, path: Path, limit: int | None) -> Clip:
        labels, names = None, tuple[str, ...]()
        with open_source(path) as source:
            if self.labels is not None:
                pictures = [each.name for each in folder_pictures(path)] if path.is_dir() else None
                size_px = source.info.width_px, source.info.height_px
                labels, names = read_coco(
                    self.labels, pictures, size_px=size_px, count_frames=lambda: frames_of(path)
                )
                if self.frames is not None and len(labels[self.first :: self.stride]) < self.frames:
                    labels = None  # a part keeps its frames, where they end before it does
            bitrate_bps = 0.0
            if path.is_file():
                bitrate_bps = path.stat().st_size * 8 / _duration_s(path)
            return read_clip(
                source,
                limit=limit,
                first=self.first,
                stride=self.stride,
                labels=labels,
                label_classes=names,
                source_bitrate_bps=bitrate_bps,
            )


def _duration_s(path: Path) -> float:
    with av.open(path) as container:
        return (container.duration or 0) / av.time_base or math.inf
