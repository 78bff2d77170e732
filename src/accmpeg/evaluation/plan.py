"""What a sweep consists of: clips, server DNNs with their AccModels, settings, and the cells that follow."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accmpeg.accmodel.card import AccModelCard, card_path, read_accmodel_card
from accmpeg.dnn.card import DnnCard, read_card
from accmpeg.dnn.registry import get_adapter
from accmpeg.dnn.weights import check_hash
from accmpeg.errors import SourceError, UsageError
from accmpeg.evaluation.cache import content_hash
from accmpeg.evaluation.clip import Clip, read_clip
from accmpeg.evaluation.labels import read_coco
from accmpeg.evaluation.link import Link
from accmpeg.evaluation.methods import Method
from accmpeg.evaluation.rows import Role
from accmpeg.media.source import Footage, open_source
from accmpeg.version import __version__

__all__ = [
    "PROPAGATION_MS",
    "ClipSpec",
    "DnnSpec",
    "Group",
    "PlannedCell",
    "SweepSettings",
    "footage_clips",
    "plan_clip",
]

NULL_METHODS = ("constant-qp", "aq-1")
NOISE_FLOOR_METHOD = "constant-qp"
LINKS_BPS = (500_000, 1_000_000, 2_000_000, 4_000_000)
PROPAGATION_MS = 20.0


def _default_links() -> dict[str, Link]:
    return {
        f"{bandwidth_bps / 1e6:g} Mbit/s": Link(bandwidth_bps=bandwidth_bps, propagation_ms=PROPAGATION_MS)
        for bandwidth_bps in LINKS_BPS
    }


@dataclass(frozen=True)
class SweepSettings:
    """What all cells share. `points` are QPs or CRFs; a method's `quality_shift` is added to each.

    `limit`: frames per clip; `step`: accuracy on every so many of them; `every`: frames per quality map.
    """

    points: tuple[int, ...] = (22, 27, 32, 37, 42)
    limit: int | None = None
    step: int = 3
    every: int = 10
    feedback_delay_s: float = 0.2
    links: dict[str, Link] = field(default_factory=_default_links)
    pictures: bool = True

    def __post_init__(self) -> None:
        if not self.points or not all(1 <= point <= 51 for point in self.points):
            raise UsageError(f"--points {self.points}: give QPs or CRFs from 1 to 51")
        if min(self.step, self.every, self.limit or 1) < 1:
            raise UsageError("--step, --every and --limit must be 1 or more")


@dataclass(frozen=True)
class ClipSpec:
    """A clip to be opened in a worker. `sha256` is of its content."""

    name: str
    sha256: str
    open: Callable[[int | None], Clip]


@dataclass(frozen=True)
class DnnSpec:
    """A server DNN by its card, with the AccModel made for it, if there is one."""

    card_file: Path
    card: DnnCard
    accmodel_file: Path | None = None
    accmodel: AccModelCard | None = None

    @classmethod
    def read_all(cls, cards: Sequence[Path], accmodels: Sequence[Path]) -> "list[DnnSpec]":
        """Pairs cards with AccModels by the hash of the server DNN; raises UsageError for one left over,
        and WeightsError for weights that are not the card's: every cell would fail of it."""
        models = {path: read_accmodel_card(card_path(path)) for path in accmodels}
        specs = []
        for file in cards:
            card = read_card(file)
            if get_adapter(card.adapter).model_is_file:
                check_hash(card, file.parent / card.model)
            own = [path for path, model in models.items() if model.dnn.sha256 == card.sha256]
            specs.append(cls(file, card, own[0], models.pop(own[0])) if own else cls(file, card))
        for path, model in models.items():
            raise UsageError(f"--accmodel {path} was made for {model.dnn.name}, which no --dnn names")
        names = [spec.card.name for spec in specs]
        if len(set(names)) < len(names):
            raise UsageError(f"two server DNNs are called alike ({', '.join(names)}): rename one in its card")
        return specs


@dataclass(frozen=True)
class PlannedCell:
    """A cell to be measured; `key` is the hash of everything its figures depend on."""

    key: str
    role: Role
    method: str
    quality: int


@dataclass(frozen=True)
class Group:
    """The cells of one clip and server DNN, which share decoded frames and reference results."""

    clip: ClipSpec
    dnn: DnnSpec
    cells: tuple[PlannedCell, ...]


def footage_clips(footage: Sequence[Footage], labels: Path | None = None) -> list[ClipSpec]:
    """Videos and folders of numbered pictures; stills are no clips.

    A clip is called by its file's or folder's name where that is unique. `labels`: a folder with COCO files,
    `NAME.json` for the clip NAME. Raises SourceError for a file that can't be read.
    """
    clips = [item for item in footage if item.kind != "still"]
    names = Counter(item.path.stem for item in clips)
    specs = []
    for item in clips:
        name = item.path.stem if names[item.path.stem] == 1 else item.clip
        coco = None if labels is None else labels / f"{item.path.stem}.json"
        own = coco if coco is not None and coco.exists() else None
        try:
            specs.append(ClipSpec(name, _content_sha256(item.path, own), _Opener(item.path, own)))
        except OSError as error:
            raise SourceError(f"can't read {error.filename}: {error.strerror}") from error
    return specs


def _content_sha256(path: Path, labels: Path | None) -> str:
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(b"" if path.is_file() else file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    if labels is not None:
        digest.update(labels.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Opener:
    path: Path
    labels: Path | None

    def __call__(self, limit: int | None) -> Clip:
        labels, names = (None, ()) if self.labels is None else read_coco(self.labels)
        with open_source(self.path) as source:
            return read_clip(source, limit=limit, labels=labels, label_classes=names)


def plan_clip(
    clip: ClipSpec, dnns: Sequence[DnnSpec], methods: Sequence[Method], settings: SweepSettings
) -> list[Group]:
    """All cells of a clip, a group for each server DNN."""
    groups = []
    for dnn in dnns:
        cells = [
            PlannedCell(_cell_key(clip, dnn, method, quality, role, settings), role, method.name, quality)
            for method in methods
            for role, quality in _grid(method, settings.points)
        ]
        groups.append(Group(clip, dnn, tuple(cells)))
    return groups


def _grid(method: Method, points: Sequence[int]) -> list[tuple[Role, int]]:
    """The operating points of a method, with those of the null comparison and the noise floor."""
    shift = getattr(method, "quality_shift", 0)
    levels = sorted({min(51, max(1, point + shift)) for point in points})
    grid: list[tuple[Role, int]] = [("method", level) for level in levels]
    if method.name in NULL_METHODS:
        grid += [("null", (a + b) // 2) for a, b in itertools.pairwise(levels)]
    if method.name == NOISE_FLOOR_METHOD:
        grid.append(("noise_floor", max(1, levels[0] - 1)))
    return grid


def _cell_key(
    clip: ClipSpec, dnn: DnnSpec, method: Method, quality: int, role: Role, settings: SweepSettings
) -> str:
    accmodel = None
    if getattr(method, "needs_accmodel", True) and dnn.accmodel is not None:
        accmodel = dnn.accmodel.sha256, dnn.accmodel.calibration.object_threshold
    links = {name: asdict(link) for name, link in settings.links.items()}
    return content_hash(
        __version__,
        clip.name,
        clip.sha256,
        dnn.card.model_dump(mode="json"),
        accmodel,
        method.name,
        quality,
        role,
        (settings.limit, settings.step, settings.every, settings.feedback_delay_s, links),
    )
