"""One DNN in ONNX Runtime and in OpenVINO: what a pass costs, and whether the answers are still the same.

    python benchmarks/dnn_runtime.py --videos DIR --dnn CARD --labels DIR --limit 60 --out runtimes.json

The pristine frames of every clip are read by the card's ONNX file in ONNX Runtime, and in OpenVINO in float32
and bfloat16, in turn, each on one thread. `ms` is the median of a pass with decoding its outputs, S is held
against the answers of ONNX Runtime, and `true S` against true labels where a clip has them.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.card import read_card, write_card
from accmpeg.errors import AccmpegError, DnnError
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.bench.labels import read_coco
from accmpeg.evaluation.bench.references import FrameReference, label_references, own_references
from accmpeg.evaluation.bench.score import Counts, frame_counts, score
from accmpeg.media.footage import find_footage
from accmpeg.media.source import open_source

RUNTIMES: dict[str, dict[str, Any]] = {
    "ONNX Runtime": {"adapter": "onnx", "options": {}},
    "OpenVINO f32": {"adapter": "openvino", "options": {"precision": "f32"}},
    "OpenVINO bf16": {"adapter": "openvino", "options": {"precision": "bf16"}},
}
FIRST = "ONNX Runtime"


def main(
    videos: Annotated[list[str], typer.Option(help="Clips, or folders of them; may repeat.")],
    dnn: Annotated[list[Path], typer.Option(help="Card with an ONNX file; may repeat.")],
    labels: Annotated[Path | None, typer.Option(help="Folder with CLIP.json in COCO's format.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="First frames of each clip.")] = 60,
    step: Annotated[int, typer.Option(min=1, help="Read every so many frames.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Where to write the figures, as JSON.")] = None,
) -> None:
    """Print a row per DNN and runtime."""
    try:
        clips = [_clip(str(each.path), labels, limit) for each in find_footage(videos)]
        rows = [row for card in dnn for row in compare(card, clips, step)]
    except AccmpegError as error:
        raise SystemExit(f"dnn_runtime: {error}") from error
    print(f"{'DNN':<16}{'runtime':<15}{'ms':>7}{'S':>8}{'S, worst clip':>15}{'true S':>9}")
    for row in rows:
        true = "" if row["true_s"] is None else f"{row['true_s']:.3f}"
        print(
            f"{row['dnn']:<16}{row['runtime']:<15}{row['ms']:>7.1f}{row['s']:>8.3f}"
            f"{row['s_worst_clip']:>15.3f}{true:>9}"
        )
    if out is not None:
        out.write_text(json.dumps({"clips": [clip.name for clip in clips], "rows": rows}, indent=1) + "\n")


def _clip(path: str, labels: Path | None, limit: int) -> Clip:
    coco = None if labels is None else labels / f"{Path(path).stem}.json"
    known, classes = read_coco(coco) if coco is not None and coco.exists() else (None, ())
    with open_source(path) as source:
        clip = read_clip(source, limit=limit, labels=known, label_classes=classes)
    return Clip(**{**vars(clip), "name": Path(path).stem})


def compare(card_file: Path, clips: list[Clip], step: int) -> list[dict[str, Any]]:
    """The rows of one DNN; raises `AccmpegError` where a runtime can't open it."""
    card = read_card(card_file)
    ms: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    counts: dict[str, list[Counts]] = {name: [] for name in RUNTIMES}
    true_counts: dict[str, list[Counts]] = {name: [] for name in RUNTIMES}
    with TemporaryDirectory() as folder:
        readers: dict[str, ServerDnn] = {}
        for name, changes in RUNTIMES.items():
            file = Path(folder) / f"{name.replace(' ', '-')}.card.toml"
            model = str((card_file.parent / card.model).resolve())
            write_card(card.model_copy(update={**changes, "model": model}), file)
            try:
                readers[name] = load_dnn(file, threads=1)
            except DnnError as error:
                print(error)
        for clip in clips:
            indices = list(clip.measured_frames(step))
            answers: dict[str, list[Any]] = {name: [] for name in RUNTIMES}
            for dnn in readers.values():
                dnn.infer(clip.frames[indices[0]])  # the first frame of a size is dearer
            for index in indices:
                for name, dnn in readers.items():
                    start_s = time.perf_counter()
                    answers[name].append(dnn.infer(clip.frames[index]))
                    ms[name].append(1000 * (time.perf_counter() - start_s))
            true = None
            if clip.labels is not None:
                known = [clip.labels[index] for index in indices]
                true = label_references(known, clip.label_classes, card)
            for name, dnn in readers.items():
                counts[name].append(_counts(dnn, answers[name], own_references(answers[FIRST])))
                if true is not None:
                    true_counts[name].append(_counts(dnn, answers[name], true))
    return [
        {
            "dnn": card.name,
            "runtime": name,
            "ms": float(np.median(ms[name])),
            "s": score(np.sum(counts[name], axis=0), card.task),
            "s_worst_clip": float(np.nanmin([score(each, card.task) for each in counts[name]])),
            "true_s": score(np.sum(true_counts[name], axis=0), card.task) if true_counts[name] else None,
        }
        for name in readers
    ]


def _counts(dnn: ServerDnn, results: list[Any], references: list[FrameReference]) -> Counts:
    pairs = zip(results, references, strict=True)
    counts: Counts = np.sum([frame_counts(dnn.task, *pair, dnn.card) for pair in pairs], axis=0)
    return counts


if __name__ == "__main__":
    typer.run(main)
