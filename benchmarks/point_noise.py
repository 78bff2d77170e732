"""How exact one operating point is, and what more of them bring: `python benchmarks/point_noise.py SWEEP`.

SWEEP is a folder of `accmpeg evaluate --methods aq-1 --points 33,34,…`: a method at neighbouring CRFs and, as
its null comparison, half-way between them. Question: does a point's score scatter by itself, and do curves of
more points agree better with themselves? Against a smooth curve through all points of a clip (a cubic of
−log(1.05 − S) over log bytes, where lines are nearly straight) the scatter is told in bytes, and the
correlation of neighbours says whether a point half a CRF further is another draw. Then curves of every n-th
point are held against curves of the points half-way between, at 90 % of the ceiling, as the bench does it.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from accmpeg.evaluation.bench.rows import read_rows
from accmpeg.evaluation.findings.curves import fit, reach
from accmpeg.evaluation.findings.measured import cell_score

TARGET = 0.9
BAND = (0.75, 0.975)
STRIDES = (2, 4, 8)
"""In half steps of CRF: a curve has every so many, its rival those in the middle."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", default="confirmed")
    asked = parser.parse_args()
    ceilings: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for row in read_rows(asked.folder / "cells.jsonl"):
        score = cell_score(row, asked.reference) if row.status == "ok" else None
        if score is None:
            continue
        if row.role == "ceiling":
            ceilings[row.clip] = score
        elif row.role in ("method", "null"):
            curves[row.clip].append((row.quality, float(np.log(row.bitrate_bps)), score))
    print(f"{'clip':24} points  noise of one, % of bytes  correlation of neighbours")
    noises, gaps = [], defaultdict(list)
    for clip, points in sorted(curves.items()):
        points.sort(reverse=True)
        quality, log_bytes, score = np.array(points).T
        share = score / ceilings[clip]
        within = (share > BAND[0]) & (share < BAND[1])
        for stride in STRIDES:
            gaps[stride].append(_gap(2 * quality, log_bytes, share, stride))
        if within.sum() < 8:
            print(f"{clip:24} {within.sum():6d}  too few")
            continue
        x, kept = log_bytes[within], -np.log(1.05 - share[within])
        rest = kept - np.polyval(np.polyfit(x, kept, 3), x)
        slope = np.polyfit(x, kept, 1)[0]
        noise = 100 * float(np.sqrt((rest**2).sum() / (len(rest) - 4)) / slope)
        noises.append(noise)
        print(f"{clip:24} {len(x):6d}  {noise:24.1f}  {np.corrcoef(rest[1:], rest[:-1])[0, 1]:+.2f}")
    print(f"median noise of one point: {np.median(noises):.1f} % of bytes")
    for stride in STRIDES:
        found = 100 * np.expm1([gap for gap in gaps[stride] if np.isfinite(gap)])
        mean = 100 * np.expm1(np.log1p(found / 100).mean())
        print(
            f"points {stride / 2:g} CRF apart, against those between, at {TARGET:.0%}: mean {mean:+.1f} %, "
            f"95 % within {np.percentile(np.abs(found), 95):.0f} %, {len(found)} clips: "
            f"{np.sort(found).round()}"
        )


def _gap(halves: np.ndarray, log_bytes: np.ndarray, share: np.ndarray, stride: int) -> float:
    """The log ratio of the bytes at the target: of the points between over every `stride`-th one's."""
    first = halves.min()
    at = []
    for offset in (0, stride // 2):
        mine = (halves - first) % stride == offset
        order = np.argsort(log_bytes[mine], kind="stable")
        found = reach(log_bytes[mine][order][None], fit(share[mine][order][None]), np.array([TARGET]))
        at.append(float(found.log_bitrate[0, 0]) if found.side[0, 0] == 0 else np.nan)
    return at[1] - at[0]


if __name__ == "__main__":
    main()
