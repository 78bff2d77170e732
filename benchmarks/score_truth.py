"""What the score is worth: true accuracy beside S, along the rates, on clips with true labels.

    python benchmarks/score_truth.py --videos DIR --labels DIR --dnn CARD --reference CARD --out DIR

Every clip that has a label file goes through x264 (veryfast, aq-mode 1) at each CRF: at the source's size, at
the DNN's, and at the DNN's with two B-frames. Of each stream: true AP and recall as shares of those on the
pristine frames, and S against each reference as a share of the ceiling. Then the S at which a true loss
of 1, 3 and 5 % stands: a score is fair if that is the same for all sizes, good if for all clips and DNNs too.

`truth.json` keeps all of it, and the same command goes on where it was; `truth.png` shows it.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import matplotlib as mpl
import numpy as np
import supervision as sv
import typer

from accmpeg.camera import SteeredEncoder
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.errors import AccmpegError, EvaluationError
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.bench.labels import read_coco
from accmpeg.evaluation.bench.references import (
    FrameReference,
    confirmed_references,
    label_references,
    own_references,
)
from accmpeg.evaluation.bench.score import frame_counts, judged_result, score
from accmpeg.evaluation.findings import curves
from accmpeg.evaluation.methods.base import DNN_SIZE_SHIFT, OperatingPoint, StreamFormat
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import EncoderSettings
from accmpeg.media.footage import Footage, find_footage, folder_pictures
from accmpeg.media.source import open_source
from accmpeg.tasks.detection import MATCH_IOU, class_ids_of, confidence_of
from accmpeg.tasks.matching import (
    FrameMatches,
    average_precision,
    clip_average_precision,
    f1_counts,
    iou_matrix,
    match,
)

CEILING_CRF = 12
LOSSES = (0.01, 0.03, 0.05)
REFERENCES = ("own", "confirmed", "labels")
STREAMS = ("source", "dnn", "dnn, B-frames")
MEASURES = {
    "ap": "AP, mean over classes",
    "ap_pooled": "AP, all objects in one curve",
    "recall": "recall at the DNN's threshold",
}

MATCH_IOUS = {"pedestrian-labelled-1": 0.4}
"""Its body boxes were derived from heads, so they are loose."""
MIN_HEIGHTS_PX = {"traffic-labelled-1": 25.0}
"""Far cars and people are labelled only in part there."""

Point = dict[str, Any]


def main(
    videos: Annotated[list[str], typer.Option(help="Clips, or folders of them; may repeat.")],
    labels: Annotated[
        Path, typer.Option(help="Folder with CLIP.json in COCO's format; other clips are left out.")
    ],
    dnn: Annotated[list[Path], typer.Option(help="Card of a detection DNN; may repeat.")],
    reference: Annotated[Path, typer.Option(help="Card of the stronger DNN that confirms.")],
    out: Annotated[Path, typer.Option(help="Folder for truth.json and truth.png.")],
    crf: Annotated[str, typer.Option(help="CRFs at the source's size; 6 lower at a smaller one.")] = (
        "20,25,29,32,35,38,41,44,47"
    ),
    limit: Annotated[int | None, typer.Option(help="First frames of each clip.")] = None,
    step: Annotated[int, typer.Option(min=1, help="Measure every so many frames.")] = 1,
    min_height: Annotated[
        list[str] | None,
        typer.Option(help="CLIP=PIXELS: lower objects are no one's fault there; may repeat."),
    ] = None,
    match_iou: Annotated[
        list[str] | None, typer.Option(help="CLIP=IOU where it is not 0.5; may repeat.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the DNNs.")] = None,
) -> None:
    """Measure what is missing in --out, then print and draw what is there."""
    ious = MATCH_IOUS | dict(map(_named_number, match_iou or []))
    heights_px = MIN_HEIGHTS_PX | dict(map(_named_number, min_height or []))
    crfs = [float(text) for text in crf.split(",")]
    try:
        strong = load_dnn(reference, threads=threads)
        readers = [load_dnn(card, threads=threads) for card in dnn]
        settings = {
            "limit": limit,
            "step": step,
            "min_height_px": heights_px,
            "match_iou": ious,
            "reference": strong.card.model_dump(mode="json"),
        }
        document = _opened(out / "truth.json", settings, readers)
        for footage in find_footage(videos):
            coco = labels / f"{footage.path.stem}.json"
            if footage.kind != "still" and coco.exists():
                clip = _opened_clip(footage, coco, limit)
                least_px, iou = heights_px.get(clip.name, 0.0), ious.get(clip.name, MATCH_IOU)
                bench = Bench(clip, strong, step, least_px, iou, document)
                for _ in bench.measured(readers, crfs):
                    _write(out / "truth.json", document)
    except AccmpegError as error:
        raise SystemExit(f"score_truth: {error}") from error
    document["at_loss"] = [row for measure in MEASURES for row in at_loss(document["points"], measure)]
    _write(out / "truth.json", document)
    for measure in MEASURES:
        print("\n".join(table(document["at_loss"], measure)), end="\n\n")
    draw(document["points"], out / "truth.png")


def _named_number(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is no CLIP=NUMBER") from error


def _opened(file: Path, settings: dict[str, Any], readers: Sequence[ServerDnn]) -> dict[str, Any]:
    """What is there so far; DNNs, clips and CRFs may come to it, but nothing they depend on may change."""
    document: dict[str, Any] = {"settings": settings, "dnns": {}, "points": []}
    if file.exists():
        document = json.loads(file.read_text())
    for dnn in readers:
        card = dnn.card.model_dump(mode="json")
        if document["settings"] != settings or document["dnns"].setdefault(dnn.card.name, card) != card:
            raise EvaluationError(
                f"{file} holds figures of other settings or of another DNN called {dnn.card.name}: "
                "give another --out"
            )
    return document


def _write(file: Path, document: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(file)


def _opened_clip(footage: Footage, coco: Path, limit: int | None) -> Clip:
    folder = footage.kind == "frames"
    names = [picture.name for picture in folder_pictures(footage.path)] if folder else None
    labels, label_classes = read_coco(coco, names)
    with open_source(footage.path) as source:
        clip = read_clip(source, limit=limit, labels=labels, label_classes=label_classes)
    return Clip(**{**vars(clip), "name": footage.path.stem})


@dataclass(frozen=True)
class Truths:
    """What one DNN is held against on one clip; a `FrameReference` per measured frame."""

    dnn: ServerDnn
    references: dict[str, list[FrameReference]]
    match_iou: float

    def measure(self, results: Sequence[sv.Detections]) -> dict[str, dict[str, float | None]]:
        """True accuracy by measure, and S by reference."""
        card = self.dnn.card
        s = {}
        for name, frames in self.references.items():
            pairs = zip(results, frames, strict=True)
            counts = sum((frame_counts(self.dnn.task, *pair, card) for pair in pairs), np.zeros((1, 3)))
            s[name] = _finite(score(counts, card.task))
        return {"true": self._true(results), "s": s}

    def _true(self, results: Sequence[sv.Detections]) -> dict[str, float | None]:
        frames = []
        for result, reference in zip(results, self.references["labels"], strict=True):
            judged, labels = judged_result(result, reference, self.match_iou), reference.result
            overlap = iou_matrix(judged.xyxy, labels.xyxy)
            frames.append(
                FrameMatches(confidence_of(judged), class_ids_of(judged), class_ids_of(labels), overlap)
            )
        threshold = self.dnn.card.score_threshold
        correct = [match(frame.class_aware, frame.scores, self.match_iou) >= 0 for frame in frames]
        objects = sum(len(frame.reference_class_ids) for frame in frames)
        hits = sum(f1_counts(frame, self.match_iou, threshold)[0] for frame in frames)
        pooled = average_precision(
            np.concatenate([frame.scores for frame in frames]), np.concatenate(correct), objects
        )
        return {
            "ap": _finite(clip_average_precision(frames, self.match_iou, threshold)) if objects else None,
            "ap_pooled": _finite(pooled),
            "recall": hits / objects if objects else None,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Bench:
    """The points of one clip, added to the document as they are measured."""

    def __init__(
        self,
        clip: Clip,
        strong: ServerDnn,
        step: int,
        min_height_px: float,
        match_iou: float,
        document: dict[str, Any],
    ) -> None:
        self._clip, self._strong, self._step = clip, strong, step
        self._min_height_px, self._match_iou = min_height_px, match_iou
        self._points: list[Point] = document["points"]
        self._source = StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base)
        self._strong_results: list[Any] | None = None

    def measured(self, readers: Sequence[ServerDnn], crfs: Sequence[float]) -> Iterator[None]:
        """Measures what the document lacks; yields after each stream. A stream is made once for all DNNs."""
        wanted: dict[tuple[str, int, int, float | None], list[tuple[ServerDnn, str]]] = {}
        for dnn in readers:
            for stream, crf in self._plan(dnn, crfs):
                if not self._has(dnn, stream, crf):
                    size = self._format(dnn, stream)
                    kind = "B" if stream == STREAMS[2] else "P"
                    key = (kind, size.width_px, size.height_px, crf)
                    wanted.setdefault(key, []).append((dnn, stream))
        needed = {dnn.card.name: dnn for users in wanted.values() for dnn, _ in users}
        truths = {name: truth for name, dnn in needed.items() if (truth := self._truths(dnn)) is not None}
        for (kind, _, _, crf), all_users in wanted.items():
            users = [(dnn, stream) for dnn, stream in all_users if dnn.card.name in truths]
            if not users:
                continue
            stream_format = self._format(*users[0])
            if crf is None:
                frames, bitrate_bps = self._scaled(stream_format), None
            else:
                settings = stream_format.settings(
                    OperatingPoint(crf), aq_mode=1, b_frames=2 if kind == "B" else 0
                )
                frames, bitrate_bps = self._coded(settings)
            for dnn, stream in users:
                results = [dnn.infer(frame, self._size_px) for frame in frames]
                self._add(dnn, stream, crf, bitrate_bps, truths[dnn.card.name].measure(results))
            yield

    def _plan(self, dnn: ServerDnn, crfs: Sequence[float]) -> Iterator[tuple[str, float | None]]:
        small = self._format(dnn, STREAMS[1]) != self._source
        yield from ((STREAMS[0], crf) for crf in [None, *sorted({CEILING_CRF, *crfs})])
        shift = DNN_SIZE_SHIFT if small else 0
        if small:
            yield from ((STREAMS[1], crf) for crf in [None, *(crf + shift for crf in crfs)])
        yield from ((STREAMS[2], crf + shift) for crf in crfs)

    def _format(self, dnn: ServerDnn, stream: str) -> StreamFormat:
        return self._source if stream == STREAMS[0] else self._source.at_dnn_size(dnn)

    @property
    def _size_px(self) -> tuple[int, int]:
        return self._clip.width_px, self._clip.height_px

    def _has(self, dnn: ServerDnn, stream: str, crf: float | None) -> bool:
        key = (self._clip.name, dnn.card.name, stream, crf)
        return any((p["clip"], p["dnn"], p["stream"], p["crf"]) == key for p in self._points)

    def _add(
        self, dnn: ServerDnn, stream: str, crf: float | None, bitrate_bps: float | None, figures: Point
    ) -> None:
        point = {"clip": self._clip.name, "dnn": dnn.card.name, "stream": stream, "crf": crf}
        self._points.append({**point, "bitrate_bps": bitrate_bps, **figures})
        said = ", ".join(
            f"{name} {value:.3f}"
            for part in figures.values()
            for name, value in part.items()
            if value is not None
        )
        print(f"{self._clip.name} {dnn.card.name} {stream} CRF {crf}: {said}", flush=True)

    def _truths(self, dnn: ServerDnn) -> Truths | None:
        clip = self._clip
        assert clip.labels is not None
        indices = clip.measured_frames(self._step)
        labels = [clip.labels[index] for index in indices]
        true = label_references(labels, clip.label_classes, dnn.card, min_height_px=self._min_height_px)
        if true is None:
            print(f"{clip.name}: its labels can't judge {dnn.card.name}", flush=True)
            return None
        pristine = [clip.frames[index] for index in indices]
        own = [dnn.infer(frame) for frame in pristine]
        references = {"own": own_references(own), "labels": true}
        if dnn.card != self._strong.card:  # no DNN can confirm itself
            if self._strong_results is None:
                self._strong_results = [self._strong.infer(frame) for frame in pristine]
            references["confirmed"] = confirmed_references(
                own, dnn.card, self._strong_results, self._strong.card
            )
        return Truths(dnn, references, self._match_iou)

    def _scaled(self, stream_format: StreamFormat) -> list[av.VideoFrame]:
        width_px, height_px = stream_format.width_px, stream_format.height_px
        return [
            self._clip.frames[index].reformat(width_px, height_px)
            for index in self._clip.measured_frames(self._step)
        ]

    def _coded(self, settings: EncoderSettings) -> tuple[list[av.VideoFrame], float]:
        """The measured frames as decoded, and the bitrate for a whole GOP."""
        wanted = set(self._clip.measured_frames(self._step))
        encoder = SteeredEncoder(settings, None)
        decoder = Decoder(encoder.encoder.decoder_name)
        units = [unit for frame in self._clip.frames for unit in encoder.encode(frame)] + encoder.flush()
        decoded = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
        if len(decoded) != len(self._clip.frames):
            raise EvaluationError(f"{len(self._clip.frames)} frames came back as {len(decoded)}")
        key = [unit.size_bytes for unit in units if unit.is_keyframe]
        others = [unit.size_bytes for unit in units if not unit.is_keyframe]
        frame_bytes = np.mean(key) / settings.gop_frames + (np.mean(others) if others else 0.0)
        bitrate_bps = 8 * float(frame_bytes) * float(self._clip.frame_rate)
        return [frame for index, frame in enumerate(decoded) if index in wanted], bitrate_bps


def at_loss(points: Sequence[Point], measure: str) -> list[dict[str, Any]]:
    """S over its ceiling where the true measure has lost so much, by clip, DNN, stream and reference.

    Both are made to rise with the bitrate (isotonic fit) before the one is read where the other stands.
    """
    rows: list[dict[str, Any]] = []
    for clip, dnn in dict.fromkeys((point["clip"], point["dnn"]) for point in points):
        own = [point for point in points if (point["clip"], point["dnn"]) == (clip, dnn)]
        for stream, reference in ((s, r) for s in STREAMS for r in REFERENCES):
            curve = shares(own, stream, reference, measure)
            if curve is None or len(curve[0]) < curves.MIN_POINTS:
                continue
            log_bitrate, true, s = curve
            true, s = curves.fit(true[None])[0], curves.fit(s[None])[0]
            row: dict[str, Any] = {
                "measure": measure,
                "clip": clip,
                "dnn": dnn,
                "stream": stream,
                "reference": reference,
            }
            bits = [_read(true, log_bitrate, 1 - loss) for loss in LOSSES]
            row["s"] = [_read(true, s, 1 - loss) for loss in LOSSES]
            row["bitrate_bps"] = [None if value is None else math.exp(value) for value in bits]
            rows.append(row)
    return rows


def _read(true: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """The value where the rising `true` first reaches the level, straight between points; None outside."""
    above = np.flatnonzero(true >= level - 1e-9)
    if len(above) == 0 or (above[0] == 0 and true[0] > level + 1e-9):
        return None
    high = int(above[0])
    low = max(high - 1, 0)
    return float(np.interp(level, true[[low, high]], values[[low, high]]))


def shares(
    own: Sequence[Point], stream: str, reference: str, measure: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Log-bitrates, true shares and shares of the ceiling of one clip, DNN and stream, by rising bitrate."""
    pristine = next((p for p in own if p["stream"] == STREAMS[0] and p["crf"] is None), None)
    lossless = next((p for p in own if p["stream"] == STREAMS[0] and p["crf"] == CEILING_CRF), None)
    if pristine is None or lossless is None:
        return None
    true, ceiling = pristine["true"][measure], lossless["s"].get(reference)
    coded = sorted(
        (p for p in own if p["stream"] == stream and p["crf"] is not None), key=lambda p: p["bitrate_bps"]
    )
    if not true or not ceiling or not coded:
        return None
    return (
        np.log([p["bitrate_bps"] for p in coded]),
        np.asarray([p["true"][measure] / true for p in coded]),
        np.asarray([(p["s"][reference] or 0.0) / ceiling for p in coded]),
    )


def table(rows: Sequence[dict[str, Any]], measure: str) -> list[str]:
    """Lines of Markdown: S at each loss, then how much it differs between sizes and over everything."""
    own = [row for row in rows if row["measure"] == measure]
    heads = [f"{loss:.0%}" for loss in LOSSES]
    lines = [
        f"S over its ceiling at a true loss of {', '.join(heads)} ({MEASURES[measure]}):",
        "",
        f"| clip | DNN | stream | {' | '.join(REFERENCES)} |",
        "|---" * (3 + len(REFERENCES)) + "|",
    ]
    by_stream: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in own:
        key = row["clip"], row["dnn"], row["stream"]
        by_stream.setdefault(key, {})[row["reference"]] = ", ".join(map(_figure, row["s"]))
    lines += [
        f"| {' | '.join(key)} | {' | '.join(cells.get(name, '–') for name in REFERENCES)} |"
        for key, cells in by_stream.items()
    ]
    lines += ["", f"| reference | loss | {' | '.join(SPREADS)} |", "|---" * (2 + len(SPREADS)) + "|"]
    for reference in REFERENCES:
        for number, head in enumerate(heads):
            groups: dict[tuple[str, str], list[float]] = {}
            for row in own:
                if row["reference"] == reference and row["s"][number] is not None:
                    groups.setdefault((row["clip"], row["dnn"]), []).append(row["s"][number])
            cells = [_figure(spread(list(groups.values()))) for spread in SPREADS.values()]
            lines.append(f"| {reference} | {head} | {' | '.join(cells)} |")
    return lines


def _pooled(groups: Sequence[Sequence[float]]) -> list[float]:
    return [value for group in groups for value in group]


def _ranges(groups: Sequence[Sequence[float]]) -> list[float]:
    return [max(group) - min(group) for group in groups if len(group) > 1]


SPREADS: dict[str, Callable[[Sequence[Sequence[float]]], float | None]] = {
    "mean": lambda groups: float(np.mean(_pooled(groups))) if groups else None,
    "lowest": lambda groups: min(_pooled(groups), default=None),
    "highest": lambda groups: max(_pooled(groups), default=None),
    "standard deviation": lambda groups: float(np.std(_pooled(groups))) if groups else None,
    "mean range between streams of one clip and DNN": lambda groups: (
        float(np.mean(_ranges(groups))) if _ranges(groups) else None
    ),
    "largest such range": lambda groups: max(_ranges(groups), default=None),
}


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def draw(points: Sequence[Point], path: Path, measure: str = "ap_pooled") -> None:
    """A row per clip and DNN, a column per reference: true share over S, a line per stream."""
    mpl.use("Agg")
    from matplotlib import pyplot

    pairs = list(dict.fromkeys((point["clip"], point["dnn"]) for point in points))
    if not pairs:
        return
    figure, panels = pyplot.subplots(
        len(pairs),
        len(REFERENCES),
        figsize=(3.6 * len(REFERENCES), 2.6 * len(pairs)),
        sharex=True,
        sharey=True,
        squeeze=False,
        constrained_layout=True,
    )
    for (clip, dnn), row in zip(pairs, panels, strict=True):
        own = [point for point in points if (point["clip"], point["dnn"]) == (clip, dnn)]
        for reference, panel in zip(REFERENCES, row, strict=True):
            for stream, style in zip(STREAMS, ("C0o-", "C1s--", "C2^:"), strict=True):
                curve = shares(own, stream, reference, measure)
                if curve is not None:
                    panel.plot(curve[2], curve[1], style, ms=3, lw=1, label=stream)
            for loss in LOSSES:
                panel.axhline(1 - loss, color="grey", lw=0.5)
            panel.set_title(f"{clip}, {dnn}", fontsize=8)
            panel.set(xlim=(0.55, 1.03), ylim=(0.7, 1.08))
        row[0].set_ylabel("true share", fontsize=8)
    for reference, panel in zip(REFERENCES, panels[-1], strict=True):
        panel.set_xlabel(f"S over its ceiling, reference: {reference}", fontsize=8)
    panels[0, 0].legend(fontsize=7, loc="lower right")
    figure.suptitle(f"{MEASURES[measure]}, as a share of that on pristine frames", fontsize=9)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    typer.run(main)
