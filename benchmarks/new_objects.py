"""Whether a map of the server's answers hides what is new in the picture: is a refresh needed?

    python benchmarks/new_objects.py --videos DIR --dnn CARD [--accmodel M] --out FILE.json

Question: at equal bytes, is an object that has just come found later, or less often, where the map is made
of answers to earlier frames? An object is a track of the DNN's own answers on the pristine frames. It counts
as new for one second from the first frame that shows it above the card's threshold, if that is after the
first second of the clip, and if half of the frames of its second show it. Its delay is the time until the
coded stream shows it, too, one second at most.

Rule: a refresh is needed where new objects are found less often, or later by more than a frame, and the
interval over clips (95 %) is clear of zero. Null: the plain stream against itself, between its own points.
Every stream is at the DNN's size with two B-frames. What a stream gives at the plain one's bytes (its middle
CRF) is on the straight line, in log bytes, between the two points about it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import supervision as sv
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from accmpeg.accmodel.runtime import AccModel
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.methods import METHODS, MethodContext, OperatingPoint
from accmpeg.media.footage import find_footage
from accmpeg.media.source import open_source
from accmpeg.tasks.matching import iou_matrix

PLAIN = "b2@dnn"
PLAIN_CRFS = (23, 26, 29)
AT_CRF = 26
MAP_CRFS = (19, 22, 25)
NULL_CRFS = (23, 29)
LINK_IOU, MATCH_IOU = 0.3, 0.5
LOST_S = 0.3
MEASURES = ("recall of new objects", "recall of others", "delay of new objects, ms")
DRAWS = 2000


@dataclass
class Track:
    """One object through the pristine frames."""

    box: NDArray[np.float32]
    kind: int
    last: int
    frames: dict[int, NDArray[np.float32]]
    """Boxes of those frames that show it above the threshold."""


def tracks_of(results: Sequence[sv.Detections], threshold: float, lost: int) -> list[Track]:
    """Links the candidates of neighbouring frames, the best overlap first."""
    tracks: list[Track] = []
    for index, result in enumerate(results):
        live = [track for track in tracks if index - track.last <= lost]
        kinds, scores = np.asarray(result.class_id), np.asarray(result.confidence)
        overlaps = iou_matrix(np.asarray([each.box for each in live]).reshape(-1, 4), result.xyxy)
        alike = np.asarray([each.kind for each in live])[:, None] == kinds[None]
        overlaps = np.where(alike, overlaps, 0.0)
        taken: dict[int, Track] = {}
        while overlaps.size and overlaps.max() >= LINK_IOU:
            row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
            taken[int(column)] = live[int(row)]
            overlaps[row], overlaps[:, column] = 0, 0
        for number, (box, kind, score) in enumerate(zip(result.xyxy, kinds, scores, strict=True)):
            track = taken.get(number)
            if track is None:
                track = Track(box, int(kind), index, {})
                tracks.append(track)
            track.box, track.last = box, index
            if score >= threshold:
                track.frames[index] = box
    return tracks


def measures(clip: Clip, tracks: Sequence[Track], results: Sequence[Any], threshold: float) -> list[float]:
    """As `MEASURES`; NaN where the clip has no such object."""
    second = round(clip.frame_rate)

    def found(track: Track, index: int) -> bool:
        result = results[index]
        sure = result[(result.confidence >= threshold) & (result.class_id == track.kind)]
        return bool(len(sure)) and bool(iou_matrix(track.frames[index][None], sure.xyxy).max() >= MATCH_IOU)

    new, others, delays = [], [], []
    for track in tracks:
        if not track.frames:
            continue
        first = min(track.frames)
        young = [index for index in track.frames if index < first + second]
        if first >= clip.warm_frames and len(young) * 2 >= second and first + second <= len(clip.frames):
            seen = [found(track, index) for index in young]
            new += seen
            at = next((index for index, hit in zip(young, seen, strict=True) if hit), first + second)
            delays.append(1000 * (at - first) / float(clip.frame_rate))
        old = [index for index in track.frames if index >= max(first + second, clip.warm_frames)]
        others += [found(track, index) for index in old]
    return [float(np.mean(each)) if each else math.nan for each in (new, others, delays)]


def at_bytes(points: Sequence[tuple[float, list[float]]], bits_per_s: float) -> list[float]:
    """What a stream gives at a bitrate, between its measured points."""
    rates, values = zip(*sorted(points), strict=True)
    logs = np.log(rates)
    return [float(np.interp(math.log(bits_per_s), logs, each)) for each in np.asarray(values).T]


def study(clip: Clip, dnn: ServerDnn, card: Path, accmodel: AccModel | None) -> dict[str, list[float]]:
    """Each stream's measures at the plain one's bytes."""
    threshold = dnn.card.score_threshold
    tracks = tracks_of(
        [dnn.infer(frame) for frame in clip.frames], threshold, max(1, round(LOST_S * clip.frame_rate))
    )
    context = MethodContext(dnn, card, accmodel)
    wanted = frozenset(range(len(clip.frames)))

    def point(name: str, crf: float) -> tuple[float, list[float]]:
        session = run_method(clip, METHODS[name], OperatingPoint(crf), context, wanted=wanted)
        bits_per_s = 8 * session.traffic.bytes_per_frame * float(clip.frame_rate)
        return bits_per_s, measures(clip, tracks, session.clip_results(name), threshold)

    plain = {crf: point(PLAIN, crf) for crf in PLAIN_CRFS}
    bits_per_s, values = plain[AT_CRF]
    found = {PLAIN: values, "null": at_bytes([plain[crf] for crf in NULL_CRFS], bits_per_s)}
    for name in ("b2-feedback@dnn", *(["b2-graded@dnn"] if accmodel is not None else [])):
        found[name] = at_bytes([point(name, crf) for crf in MAP_CRFS], bits_per_s)
    return found


def main(
    videos: Annotated[list[str], typer.Option(help="Clips, or folders of them; may repeat.")],
    dnn: Annotated[Path, typer.Option(help="Card of a detector.")],
    out: Annotated[Path, typer.Option(help="JSON file; clips that it holds are not measured again.")],
    accmodel: Annotated[Path | None, typer.Option(help="AccModel, to be measured beside.")] = None,
    limit: Annotated[int, typer.Option(help="First frames of each clip.")] = 240,
) -> None:
    """Print how often and how soon new objects are found, at equal bytes."""
    reader = load_dnn(dnn, threads=1)
    model = None if accmodel is None else AccModel.load(accmodel)
    kept: dict[str, dict[str, list[float]]] = json.loads(out.read_text()) if out.exists() else {}
    for item in find_footage(videos):
        name = Path(item.path).stem
        if name in kept:
            continue
        with open_source(item.path) as source:
            kept[name] = study(read_clip(source, limit=limit), reader, dnn, model)
        out.write_text(json.dumps(kept, indent=1))
    table = Table("stream, clips in brackets", *MEASURES)
    random = np.random.default_rng(0)
    for stream in next(iter(kept.values())):
        cells = []
        for number in range(len(MEASURES)):
            values = np.asarray([[each[stream][number], each[PLAIN][number]] for each in kept.values()])
            values = values[np.isfinite(values).all(axis=1)]
            if stream == PLAIN:
                cells.append(f"{values[:, 0].mean():.3g} ({len(values)})")
                continue
            gaps = values[:, 0] - values[:, 1]
            low, high = np.percentile(random.choice(gaps, (DRAWS, len(gaps))).mean(axis=1), (2.5, 97.5))
            cells.append(f"{gaps.mean():+.3g} [{low:+.3g}, {high:+.3g}] ({len(gaps)})")
        table.add_row(stream, *cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
