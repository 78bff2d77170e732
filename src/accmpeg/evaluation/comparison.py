"""A whole comparison in one call: clips, server DNNs and methods in, findings and a report out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain as joined
from pathlib import Path

from accmpeg.dnn.registry import get_adapter
from accmpeg.errors import EvaluationError, SourceError, UsageError, did_you_mean
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec, footage_clips
from accmpeg.evaluation.bench.record import read_record
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.bench.sweep import run_sweep
from accmpeg.evaluation.findings.analysis import primary_pairs, with_baselines
from accmpeg.evaluation.findings.best_of import groups_of
from accmpeg.evaluation.findings.findings import Findings
from accmpeg.evaluation.methods import BASELINES, METHODS, find_methods
from accmpeg.evaluation.methods.plugins import find_plugins
from accmpeg.evaluation.methods.whole_stream import PREFIX
from accmpeg.evaluation.report.render import read_findings, write_report
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.media.footage import find_footage
from accmpeg.workers import Workers

__all__ = ["Evaluation", "evaluate"]

_QUICK_CLIPS = 3
_QUICK_FRAMES = 75
_QUICK_POINTS = 4
_QUICK_STEP = 3


@dataclass(frozen=True)
class Evaluation:
    """What a sweep has come to: its cells, what follows from them, and the HTML report."""

    cells: Sequence[CellRow]
    findings: Findings
    report: Path

    @property
    def failed(self) -> list[CellRow]:
        """Cells that could not be measured; each says why in `reason`."""
        return [cell for cell in self.cells if cell.status == "failed"]


def evaluate(
    videos: Sequence[str | Path | ClipSpec],
    *,
    dnns: Sequence[str | Path],
    out: str | Path,
    accmodels: Sequence[str | Path] = (),
    reference: str | Path | None = None,
    labels: str | Path | None = None,
    methods: str | Sequence[str] = "primary",
    primary: Sequence[str] = (),
    baselines: Sequence[str] = (),
    settings: SweepSettings | None = None,
    quick: bool = False,
    workers: int | Workers | None = None,
    retry_failed: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Measures every method on every clip for every server DNN, and writes the report.

    The same call goes on where an interrupted one stopped: cells that `out` holds are not measured again. On
    Ctrl-C the cells in work are finished first. Cells are measured in spawned processes, so a script needs a
    `__main__` guard.

    Args:
        videos: Videos and folders of them or of numbered pictures; clips of one's own as `ClipSpec`.
        dnns: Cards of server DNNs, `NAME.card.toml`.
        out: Folder of the results.
        accmodels: AccModels, each made for one of the server DNNs.
        reference: Card of a stronger DNN that confirms the server DNNs' answers.
        labels: Folder with true labels, `CLIP.json` in COCO's detection format.
        methods: Names, `primary` or `all`: a sequence, or one text with commas.
        primary: Comparisons named beforehand, `METHOD` or `METHOD:BASELINE`, the only kind that is tested.
        baselines: Those of the tables; none for the fixed ones.
        settings: What all cells share.
        quick: A look of some minutes: 3 clips, 75 frames, every third measured.
        workers: Processes; as many as there are cores. Or `Workers` of another kind, which `accmpeg cluster
            evaluate` gives.
        retry_failed: Measures failed cells again.
        progress: Told what is going on, and how much of it is done.

    Returns:
        The cells, the findings, and where the report is. A cell that fails is among them with its reason.

    Raises:
        SourceError: There is no clip, or one can't be read.
        UsageError: An option can't be meant, a method is unknown, or an AccModel belongs to no server DNN.
        WeightsError: Weights are not those of their card.
        EvaluationError: `out` holds another sweep or can't be written, or a worker died.
    """
    folder, settings = Path(out), settings or SweepSettings()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file: give a folder")
    clips = _clips(videos, None if labels is None else Path(labels))
    if quick:
        limit = min(_QUICK_FRAMES, settings.limit or _QUICK_FRAMES)
        settings = replace(settings, points=_QUICK_POINTS, limit=limit, step=_QUICK_STEP)
        clips = clips[:_QUICK_CLIPS]
    stronger = None if reference is None else Path(reference)
    specs = DnnSpec.read_all([Path(card) for card in dnns], [Path(model) for model in accmodels], stronger)
    away = [spec.card.name for spec in specs if not get_adapter(spec.card.adapter).runs_here]
    if away and settings.server_cores is not None:
        raise UsageError(f"--server-ms measured: {away[0]} does not run here: say what a pass takes there")
    rows = find_methods(methods if isinstance(methods, str) else ",".join(methods))
    names = [row.name for row in rows]
    named = _named(folder, primary, baselines, names)
    cells = run_sweep(
        clips,
        specs,
        rows,
        folder,
        settings,
        primary=named,
        workers=workers,
        retry_failed=retry_failed,
        progress=progress,
    )
    findings = read_findings(folder, baselines=baselines)
    report = write_report(folder, findings=findings, pictures=settings.pictures)
    return Evaluation(cells, findings, report)


def _named(
    folder: Path, primary: Sequence[str], baselines: Sequence[str], methods: Sequence[str]
) -> tuple[str, ...]:
    """The comparisons named beforehand, each with its baseline. Raises UsageError for a misspelt one, which
    can't be mended when all is measured, and EvaluationError where the figures are there: what is named then
    proves nothing."""
    every = list(dict.fromkeys([*METHODS, *find_plugins(METHODS), *methods]))
    pairs = primary_pairs(primary, every, baselines or BASELINES)
    for name in (*baselines, *joined.from_iterable(pairs)):
        if name not in {*every, *groups_of(every)} and not name.startswith(PREFIX):
            raise UsageError(
                f"--primary and --baseline: no method is called {name}: {did_you_mean(name, every)}"
            )
    named = with_baselines(primary, methods, baselines or BASELINES)
    before = with_baselines(read_record(folder).get("primary", []), methods, BASELINES)
    if before != named and read_rows(folder / CELLS_NAME):
        raise EvaluationError(
            f"{folder} was begun with other comparisons ({', '.join(before) or 'the primary methods'}), and "
            "what is named afterwards proves nothing: give the same --primary, or another --output"
        )
    return named


def _clips(videos: Sequence[str | Path | ClipSpec], labels: Path | None) -> list[ClipSpec]:
    clips = [video for video in videos if isinstance(video, ClipSpec)]
    files = [video for video in videos if not isinstance(video, ClipSpec)]
    if files:
        clips += footage_clips(find_footage(files), labels)
    if not clips:
        raise SourceError(
            f"no clip under {', '.join(map(str, files))}: give videos, or folders of "
            "pictures whose names are numbers alone (0001.jpg)"
        )
    twice, times = Counter(clip.name for clip in clips).most_common(1)[0]
    if times > 1:
        raise UsageError(f"two clips are called {twice}: rename one, their figures go by it")
    return clips
