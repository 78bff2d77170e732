"""What `accmpeg profile` saves: chosen on each clip's first half, judged on its second.

    python benchmarks/profile_study.py --videos CLIPS --dnn CARD --accmodel M --reference CARD --out DIR

Question: how many bytes does the choice need against an untouched x264 (`stream:source`) at the same share
of the ceiling, over clips that nothing was tuned on, and does any clip lose? Beside it the fixed default: the
DNN's size with two B-frames, or one where two do not fit the delay. Rule: the mean of log ratios over clips,
95 % by drawing clips with each one's chance; a clip loses above +3 %. Resumable: cells stay in OUT/cells.
A choice that does not keep the share on the second half counts as an untouched x264, which `profile` falls
back to since then. `--read STUDY.json` prints the summary of a study that was made before.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from accmpeg.errors import AccmpegError
from accmpeg.evaluation.bench.plan import DnnSpec
from accmpeg.evaluation.profile.parts import cut
from accmpeg.evaluation.profile.render import site_document
from accmpeg.evaluation.profile.search import Outcome, search
from accmpeg.evaluation.settings import ProfileSettings
from accmpeg.media.source import find_footage

LOSES_ABOVE = math.log(1.03)
DRAWS = 5000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, help="folder of clips, each a camera of its own")
    parser.add_argument("--read", type=Path, help="only summarise this study.json")
    parser.add_argument("--dnn", type=Path)
    parser.add_argument("--accmodel", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument(
        "--keep", type=float, action="append", help="shares of the ceiling; default 0.9 and 0.95"
    )
    parser.add_argument("--results-per-second", type=float)
    parser.add_argument("--camera-budget", type=float, default=ProfileSettings.camera_budget)
    parser.add_argument("--workers", type=int)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="for each search; more on a machine that others use too"
    )
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.read is not None:
        rows = json.loads(asked.read.read_text(encoding="utf-8"))["clips"]
        for keep in sorted({row["keep"] for row in rows}):
            print(keep, json.dumps(_summary([row for row in rows if row["keep"] == keep])["judged"]))
        return
    if None in (asked.videos, asked.dnn, asked.out):
        parser.error("give --videos, --dnn and --out, or --read")
    (dnn,) = DnnSpec.read_all([asked.dnn], [asked.accmodel] if asked.accmodel else [], asked.reference)
    rows = []
    for clip in sorted(asked.videos.iterdir()):
        for keep in asked.keep or (0.90, 0.95):
            settings = ProfileSettings(
                keep=keep, workers=asked.workers, minutes=asked.minutes, camera_budget=asked.camera_budget
            )
            try:
                parts = cut(find_footage([clip]), results_per_second=asked.results_per_second)
                found = search(parts, dnn, asked.out / "cells" / clip.stem, settings)
            except AccmpegError as error:
                rows.append({"clip": clip.stem, "keep": keep, "why": str(error)})
            else:
                rows.append(_row(clip.stem, found))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    summary = {
        str(keep): _summary([row for row in rows if row["keep"] == keep])
        for keep in asked.keep or (0.90, 0.95)
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    document = {"dnn": dnn.card.name, "summary": summary, "clips": rows}
    (asked.out / "study.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))


def _row(clip: str, found: Outcome) -> dict[str, object]:
    judged = found.judged[0]
    default = judged.of(found.default)
    verdict = found.verdict
    chosen = found.chosen_by.of(found.choice)
    return {
        "clip": clip,
        "keep": found.settings.keep,
        "choice": found.choice.name,
        "chosen_by": None if chosen is None else chosen.gain,
        "judged": None if verdict is None else verdict.gain,
        "judged_sd": None if verdict is None else verdict.sd,
        "reached": verdict is not None and verdict.reached,
        "default": None if default is None else default.gain,
        "camera_ratio": None if chosen is None else chosen.camera_ratio,
        "delay_ms": None if chosen is None else chosen.delay_ms,
        "profile": site_document(found),
    }


def _summary(rows: list[dict[str, object]]) -> dict[str, object]:
    judged = [row for row in rows if isinstance(row.get("judged"), float)]
    if not judged:
        return {"clips": 0}
    random = np.random.default_rng(0)
    found: dict[str, object] = {
        "clips": len(judged),
        "left out": {str(row["clip"]): row.get("why", "not judged") for row in rows if row not in judged},
    }
    judged = [row if row["reached"] else {**row, "judged": 0.0, "judged_sd": 0.0} for row in judged]
    for name in ("judged", "default"):
        gains = np.asarray([row[name] for row in judged if row[name] is not None], dtype=np.float64)
        spread = np.asarray([row["judged_sd"] for row in judged if row[name] is not None], dtype=np.float64)
        picked = random.integers(0, len(gains), (DRAWS, len(gains)))
        drawn = (gains[picked] + spread[picked] * random.standard_normal(picked.shape)).mean(axis=1)
        low, high = np.percentile(drawn, [2.5, 97.5])
        found[name] = {
            "percent": round(100 * math.expm1(float(gains.mean())), 1),
            "interval": [round(100 * math.expm1(float(each)), 1) for each in (low, high)],
            "worst_percent": round(100 * math.expm1(float(gains.max())), 1),
            "clips that lose": int((gains > LOSES_ABOVE).sum()),
        }
    found["camera_ratio"] = round(float(np.median([float(str(row["camera_ratio"])) for row in judged])), 3)
    return found


if __name__ == "__main__":
    main()
