"""What results between sent frames are worth: stale ones, tracked ones, and every frame sent.

    python benchmarks/tracked_results.py --videos DIR --dnn CARD [--reference CARD] --out DIR

Each clip goes through x264 (veryfast, aq-mode 1, the DNN's size) at each CRF, once with all of its frames and
once with every third. All frames are scored, those that were not sent by what the server would publish for
them: the last result as it was (*stale*), or with `serve --publish-per-second` (*tracked*). What all three
would wait for on a link is left out: it is the same for all.

S is that of `accmpeg evaluate`, against the answers on the pristine frames or, with `--reference`, those of
them that a stronger DNN confirms. `answers.json` keeps the DNN's answers, and the same command goes on there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from accmpeg.camera import SteeredEncoder
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.bench.references import FrameReference, confirmed_references, own_references
from accmpeg.evaluation.bench.score import Counts, frame_counts, score
from accmpeg.evaluation.methods.base import OperatingPoint, StreamFormat
from accmpeg.media.decoder import Decoder
from accmpeg.media.footage import find_footage
from accmpeg.media.source import open_source
from accmpeg.server.motion import Motion
from accmpeg.tasks.result_json import from_json, to_json

WAYS = ("every frame", "stale", "tracked")
DRAWS = 2000

Document = dict[str, Any]
Sent = tuple[float, list[Document]]


class Answers:
    """The DNN's answers, kept in a file, for a small machine needs minutes for them."""

    def __init__(self, file: Path, dnn: ServerDnn) -> None:
        self._file, self._dnn = file, dnn
        self._kept: dict[str, Sent] = json.loads(file.read_text()) if file.exists() else {}

    def of(self, clip: Clip, crf: float, every: int) -> Sent:
        """Bits a second, and what the server answers to every so many frames."""
        key = f"{self._dnn.card.name} {clip.name} {len(clip.frames)} CRF {crf:g} 1/{every}"
        if key not in self._kept:
            self._kept[key] = self._answered(clip, crf, every)
            self._file.write_text(json.dumps(self._kept))
        return self._kept[key]

    def _answered(self, clip: Clip, crf: float, every: int) -> Sent:
        card, size_px = self._dnn.card, (clip.width_px, clip.height_px)
        rate = clip.frame_rate / every
        stream = StreamFormat(*size_px, rate, clip.time_base).at_dnn_size(self._dnn)
        encoder = SteeredEncoder(stream.settings(OperatingPoint(crf), aq_mode=1), None)
        decoder = Decoder(encoder.encoder.decoder_name)
        units = [unit for frame in clip.frames[::every] for unit in encoder.encode(frame)] + encoder.flush()
        frames = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
        first, *others = (unit.size_bytes for unit in units)
        bits_per_s = 8 * float(rate) * (first / stream.gop_frames + float(np.mean(others)))
        return bits_per_s, [
            to_json(
                self._dnn.infer(frame, size_px),
                task=card.task,
                classes=card.classes,
                score_threshold=card.score_threshold,
            )
            for frame in frames
        ]


def filled(clip: Clip, sent: Sequence[Document], every: int, *, track: bool) -> list[Document]:
    """A document for each frame of the clip, from those of every so many."""
    motion = Motion((clip.width_px, clip.height_px))
    found = []
    for index in range(len(clip.frames)):
        seen, at_s = sent[index // every], clip.capture_s(index)
        if track and index % every == 0:
            motion.see(seen, at_s)
        found.append(motion.at(at_s) if track and index % every else seen)
    return found


def counts(dnn: ServerDnn, clip: Clip, documents: Sequence[Document], references: Any) -> list[Counts]:
    """Of each measured frame."""
    return [
        frame_counts(dnn.task, from_json(documents[index]), reference, dnn.card)
        for index, reference in zip(clip.measured_frames(1), references, strict=True)
    ]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 %, over clips."""
    drawn = np.random.default_rng(0).choice(differences, (DRAWS, len(differences))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def references_of(clip: Clip, dnn: ServerDnn, strong: ServerDnn | None) -> list[FrameReference]:
    """What S is counted against."""
    pristine = [clip.frames[index] for index in clip.measured_frames(1)]
    own = [dnn.infer(frame) for frame in pristine]
    if strong is None:
        return own_references(own)
    return confirmed_references(own, dnn.card, [strong.infer(frame) for frame in pristine], strong.card)


def main(
    videos: Annotated[list[str], typer.Option(help="Clips, or folders of them; may repeat.")],
    dnn: Annotated[Path, typer.Option(help="Card of a DNN with objects.")],
    out: Annotated[Path, typer.Option(help="Folder for answers.json and tracked.json.")],
    reference: Annotated[Path | None, typer.Option(help="Card of a stronger DNN that confirms.")] = None,
    crf: Annotated[str, typer.Option(help="CRFs.")] = "23,29",
    every: Annotated[int, typer.Option(min=2, help="Every so many frames are sent.")] = 3,
    limit: Annotated[
        int, typer.Option(help="First frames of each clip; the first second is not scored.")
    ] = 90,
    threads: Annotated[int | None, typer.Option(help="Threads of the DNNs.")] = None,
) -> None:
    """Print S and bitrate of the three ways for each CRF, and what tracking changes, with its interval."""
    out.mkdir(parents=True, exist_ok=True)
    reader = load_dnn(dnn, threads=threads)
    strong = None if reference is None else load_dnn(reference, threads=threads)
    answers = Answers(out / "answers.json", reader)
    rows: list[dict[str, Any]] = []
    for footage in find_footage(videos):
        with open_source(footage.path) as source:
            clip = read_clip(source, limit=limit)
        clip = Clip(**{**vars(clip), "name": footage.path.stem})
        references = references_of(clip, reader, strong)
        for quality in map(float, crf.split(",")):
            all_bps, every_frame = answers.of(clip, quality, 1)
            few_bps, few = answers.of(clip, quality, every)
            ways = (
                (all_bps, every_frame),
                (few_bps, filled(clip, few, every, track=False)),
                (few_bps, filled(clip, few, every, track=True)),
            )
            row: dict[str, Any] = {"clip": clip.name, "crf": quality}
            for name, (bits_per_s, documents) in zip(WAYS, ways, strict=True):
                each = counts(reader, clip, documents, references)
                unsent = [n for i, n in zip(clip.measured_frames(1), each, strict=True) if i % every]
                row[name] = {
                    "kbps": bits_per_s / 1000,
                    "s": score(np.sum(each, axis=0), reader.card.task),
                    "s_unsent": score(np.sum(unsent, axis=0), reader.card.task),
                }
            rows.append(row)
            print(json.dumps(row), flush=True)
    (out / "tracked.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(
        "CRF", *(f"S, {name}" for name in WAYS), "kbit/s", "tracked − stale", "− every frame", box=None
    )
    for quality in dict.fromkeys(row["crf"] for row in rows):
        own = [row for row in rows if row["crf"] == quality]
        mean = {name: np.mean([row[name]["s"] for row in own]) for name in WAYS}
        rates = [np.mean([row[name]["kbps"] for row in own]) for name in WAYS]
        changes = []
        for other in WAYS[1::-1]:
            change = [row["tracked"]["s"] - row[other]["s"] for row in own]
            low, high = interval(change)
            changes.append(f"{np.mean(change):+.3f} [{low:+.3f}, {high:+.3f}], worst {min(change):+.3f}")
        table.add_row(
            f"{quality:g}",
            *(f"{mean[name]:.3f}" for name in WAYS),
            f"{rates[0]:.0f}, {rates[1]:.0f}",
            *changes,
        )
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    typer.run(main)
