"""Rare keyframes, on clips long enough for them: each short clip forth, back and forth again.

    python benchmarks/there_and_back.py --videos CLIPS --frames 1530 --out LONG
    python benchmarks/x264_options.py keyint=1500 -- --videos LONG --dnn CARD --reference CARD --limit 1530 \\
        --step 6 --baseline b2@dnn --no-pictures --output DIR
    python benchmarks/there_and_back.py --read DIR

The clips of a sweep last some ten seconds, no longer than from one keyframe of an untouched x264 to the next.
Questions: does a DNN answer worse, far from a keyframe, than soon after one? And are as many bytes saved as
keyframes take, though frames that follow one are cheaper? At equal CRF, which makes the same frames but for
keyframes. Rule: answers are worse if S falls by more than twice its standard error over all points. Motion
goes on without a cut where a clip turns. CRF 12, so that sizes say nothing about the clip's own.
"""

import argparse
import math
import statistics
from collections import defaultdict
from itertools import cycle, islice
from pathlib import Path

from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.media.codecs import EncoderSettings
from accmpeg.media.encoder import Encoder
from accmpeg.media.sink import open_sink
from accmpeg.media.source import find_footage, open_source

CRF = 12.0
USUAL, RARE = "b2@dnn", "keyint-1500@dnn"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=1530)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path, help="the sweep to compare in")
    asked = parser.parse_args()
    if asked.read is not None:
        compare(read_rows(asked.read / CELLS_NAME))
    elif asked.videos and asked.out:
        lengthen(asked.videos, asked.frames, asked.out)
    else:
        parser.error("give --videos and --out, or --read")


def lengthen(videos: list[Path], frames: int, out: Path) -> None:
    """Writes a clip of so many frames for each one."""
    out.mkdir(parents=True, exist_ok=True)
    for footage in find_footage(videos):
        with open_source(footage.path) as source:
            info, pictures = source.info, list(source)
        settings = EncoderSettings.for_source(info, crf=CRF, time_base=1 / info.frame_rate, steerable=False)
        path = out / f"{footage.path.stem}.mp4"
        with Encoder(settings) as encoder, open_sink(path, encoder) as sink:
            for number, picture in enumerate(islice(cycle([*pictures, *pictures[-2:0:-1]]), frames)):
                picture.pts, picture.time_base = number, settings.time_base
                for unit in encoder.encode(picture):
                    sink.write(unit)
            for unit in encoder.flush():
                sink.write(unit)
        print(path)


def compare(rows: list[CellRow]) -> None:
    """Prints what rare keyframes do to S and to bytes, point by point, in the mean of each clip."""
    points: dict[tuple[str, float], dict[str, CellRow]] = defaultdict(dict)
    for row in rows:
        if row.status == "ok" and row.quality is not None and row.method in (USUAL, RARE):
            points[row.clip, row.quality].setdefault(row.method, row)
    pairs = [(pair[USUAL], pair[RARE]) for pair in points.values() if len(pair) == 2]
    print("clip | points | S, mean difference | bytes | bytes, if keyframes cost what they take")
    for clip in [*sorted({usual.clip for usual, _ in pairs}), "all"]:
        own = [(usual, rare) for usual, rare in pairs if clip in (usual.clip, "all")]
        moved = [_score(rare) - _score(usual) for usual, rare in own]
        error = statistics.stdev(moved) / math.sqrt(len(moved))
        saved = statistics.mean(math.log(rare.bitrate_bps / usual.bitrate_bps) for usual, rare in own)
        taken = statistics.mean(math.log(1 - _share(usual) * _spared(usual, rare)) for usual, rare in own)
        print(
            f"{clip} | {len(own)} | {statistics.mean(moved):+.4f} ± {error:.4f} | {_percent(saved)} | "
            f"{_percent(taken)}"
        )


def _score(row: CellRow) -> float:
    assert row.accuracy is not None  # of a finished cell
    return row.accuracy


def _share(row: CellRow) -> float:
    return row.keyframe_bytes / row.gop_frames / (row.bitrate_bps / 8 / row.frame_rate)


def _spared(usual: CellRow, rare: CellRow) -> float:
    return 1 - usual.gop_frames / rare.gop_frames


def _percent(log: float) -> str:
    return f"{100 * math.expm1(log):+.1f} %"


if __name__ == "__main__":
    main()
