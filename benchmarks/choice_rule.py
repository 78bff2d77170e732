"""How sure `accmpeg profile` is before it adds a lever: `python benchmarks/choice_rule.py results/yolo11n`.

The folder holds a sweep of METHODS. Question one: do gains of one half of a clip differ from those of the
other by more than the noise of measuring says? Question two: which certainty, and which spread for that
difference (`drift`), saves most on the half that a choice was not made on? Every clip is used twice: each
half chooses once. A choice that sends more than an untouched x264 there counts as one: it is taken back.
Tuned on the fourteen clips of the sweep; `benchmarks/profile_study.py` reports others.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.methods.whole_stream import StreamSetting
from accmpeg.evaluation.profile.belief import believe, prior_of
from accmpeg.evaluation.profile.choice import choose, complexity
from accmpeg.evaluation.profile.gains import Gains, measure_gains

METHODS = {
    "aq-1": StreamSetting(),
    "aq-0": StreamSetting(aq_mode=0),
    "b2": StreamSetting(b_frames=2),
    "graded": StreamSetting(map="accmodel"),
    "b2-graded": StreamSetting(b_frames=2, map="accmodel"),
    "feedback": StreamSetting(map="feedback"),
    "b2-feedback": StreamSetting(b_frames=2, map="feedback"),
}
"""At the source's size, and `@dnn`."""
LOSES_ABOVE = 0.03
Site = tuple[tuple[int, int], tuple[int, int], tuple[Gains, Gains]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    by_clip = defaultdict(list)
    for row in read_rows(folder / CELLS_NAME):
        if row.status == "ok":
            by_clip[row.clip].append(row)
    for keep in (0.90, 0.95):
        sites = [_site(rows, keep) for rows in by_clip.values()]
        ordered = [(s, d, half) for s, d, halves in sites for half in (halves, halves[::-1])]
        known = [(s, d, half) for s, d, half in ordered if half[0].seen and half[1].seen]
        apart = np.asarray(
            [
                ((one.gain - other.gain) / math.hypot(one.sd, other.sd), one.gain - other.gain)
                for _, _, (first, second) in known
                for one in first.seen
                if one.setting != StreamSetting() and one.reached
                and (other := second.of(one.setting)) is not None and other.reached
            ]
        )  # fmt: skip
        z, gap = np.sqrt((apart**2).mean(axis=0))
        noise = np.sqrt(((apart[:, 1] / apart[:, 0]) ** 2).mean())
        apart_sd = math.sqrt(max(0.0, gap**2 - noise**2) / 2)
        best = np.mean([min(each.gain for each in judge.seen if each.reached) for _, _, (_, judge) in known])
        print(
            f"{keep:.0%} kept, {len(known)} halves: a gain differs by {gap:.2f}, {z:.1f} times its noise: "
            f"each half drifts by {apart_sd:.2f}. The best of each half: {100 * math.expm1(best):.1f} %"
        )
        print("drift  " + "".join(f"  sure of {certainty:<14}" for certainty in (0.5, 0.6, 0.7, 0.8, 0.9)))
        for drift_sd in (0.0, 0.1, 0.15, 0.2, 0.3):
            told = [_saved(known, keep, drift_sd, certainty) for certainty in (0.5, 0.6, 0.7, 0.8, 0.9)]
            print(
                f"{drift_sd:<7}"
                + "".join(
                    f"  {saved:5.1f} % ({lost} lost, {levers:.1f} levers)" for saved, lost, levers in told
                )
            )


def _site(rows: Sequence[CellRow], keep: float) -> Site:
    """A clip's size, the DNN's, and the gains on its halves."""
    plain = next(row for row in rows if row.method == "aq-1")
    size = plain.width_px, plain.height_px
    small = next((r.stream_width_px, r.stream_height_px) for r in rows if r.method == "aq-1@dnn")
    blocks = len(plain.blocks.frames)
    found = []
    for half in (slice(0, blocks // 2), slice(-(blocks // 2), None)):
        mine = []
        for row in rows:
            name, _, at = row.method.partition("@")
            if row.role == "ceiling":
                mine.append(_cut(row, half, row.method))
            elif row.role == "method" and name in METHODS and at in ("", "dnn"):
                pixels = small if at and small != size else None
                mine.append(_cut(row, half, _sized(METHODS[name], pixels).name))
        found.append(measure_gains(mine, "confirmed", keep))
    return size, small, (found[0], found[1])


def _sized(setting: StreamSetting, size_px: tuple[int, int] | None) -> StreamSetting:
    return StreamSetting(size_px, setting.b_frames, map=setting.map, aq_mode=setting.aq_mode)


def _cut(row: CellRow, half: slice, method: str) -> CellRow:
    kept = row.blocks
    blocks = kept.model_copy(
        update={
            "frames": kept.frames[half],
            "bytes": kept.bytes[half],
            "counts": {name: counts[half] for name, counts in kept.counts.items()},
            "delay_ms": {},
        }
    )
    return row.model_copy(update={"blocks": blocks, "method": method})


def _saved(known: Sequence[Site], keep: float, drift_sd: float, certainty: float) -> tuple[float, int, float]:
    """Per cent of bytes in the mean, halves where the choice as made sends more, levers of a choice."""
    gains, levers = [], []
    for size, small, (first, second) in known:
        settings = [each.setting for each in first.seen]
        moves = np.asarray([setting != StreamSetting() for setting in settings])
        belief = believe(
            prior_of(settings, size, small, keep),
            {each.setting: each.gain for each in first.seen},
            first.noise + np.diag(moves * drift_sd**2),
        )
        allowed = [each.setting for each in first.seen if each.reached and each.gain <= 0]
        chosen = choose(belief, allowed, certainty=certainty)
        judged = second.of(chosen[-1].setting)
        gains.append(judged.gain if judged is not None else 0.0)
        levers.append(complexity(chosen[-1].setting))
    kept = np.minimum(gains, 0.0)
    return 100 * math.expm1(kept.mean()), int((np.asarray(gains) > LOSES_ABOVE).sum()), float(np.mean(levers))


if __name__ == "__main__":
    main()
