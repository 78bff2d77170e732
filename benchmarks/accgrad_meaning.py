"""What accuracy gradients are worth: real accuracy when only a few macroblocks get high quality.

For frames of real clips and several server DNNs: a share of the macroblocks, chosen by AccGrad, at random, or
from the bottom of AccGrad, is coded at the high QP and the rest at the low one by the real encoder; accuracy
is the server DNN's against its own result on the pristine frame. Intervals come from resampling whole clips,
and the gains of one choice over another from the same frames. Writes `docs/images/accgrad-meaning.png` and
`results/accgrad-meaning.json`, and prints the table.

    python benchmarks/accgrad_meaning.py --data DATA --cards CARDS

Panels that are not measured anew keep what the JSON file holds. Clips of large objects leave detection little
to lose at the low QP (read the "nothing at high quality" line first); the photographs leave more.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.media.decoder import encode_still
from accmpeg.media.source import open_source, read_still
from accmpeg.training.gradient import accuracy_gradient

QP_LOW = 44
SHARES = (0.05, 0.10, 0.20, 0.40)
ORDERS = ("AccGrad at low quality", "AccGrad at high quality", "random", "bottom of AccGrad")
PANELS: dict[str, tuple[int, tuple[str, ...]]] = {
    "yolo11n, clips": (20, ("videos/*",)),
    "yolo11n, photographs": (20, ("images/*",)),
    "yolov8n_pose, clips": (
        20,
        ("videos/pedestrian-*", "videos/indoor-*", "videos/sports-*", "videos/people-*", "videos/drone-*"),
    ),
    "yolov8n_pose, photographs": (20, ("images/*",)),
    # This network's own result changes with the slightest coding: only QP 8 comes near the pristine frame's.
    "espnetv2_s2_cityscapes, clips": (
        8,
        ("videos/dashcam-*", "videos/traffic-fixed-[12]*", "videos/pedestrian-street-*"),
    ),
    "espnetv2_s2_cityscapes, photographs": (8, ("images/street_*",)),
}
"""Server DNN and footage: the high QP, and where frames come from."""

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with videos/")
    parser.add_argument("--cards", type=Path, required=True, help="folder with NAME.card.toml of each DNN")
    parser.add_argument("--frames", type=int, default=4, help="frames per clip")
    parser.add_argument("--stills", type=int, default=60, help="photographs, evenly spaced by name")
    parser.add_argument("--panels", nargs="*", choices=list(PANELS), default=list(PANELS))
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    arguments = parser.parse_args()
    stored = arguments.docs.parent / "results" / "accgrad-meaning.json"
    before = json.loads(stored.read_text()) if stored.exists() else {}
    report = {}
    for panel, (qp_high, patterns) in PANELS.items():
        if panel in arguments.panels:
            dnn = load_dnn(arguments.cards / f"{panel.partition(',')[0]}.card.toml")
            found = sorted({path for pattern in patterns for path in arguments.data.glob(pattern)})
            if "photographs" in panel:
                frames = stills(found, arguments.stills)
            else:
                frames = ((clip.stem, f) for clip in found for f in evenly_spaced(clip, arguments.frames))
            report[panel] = summarise(list(measure(dnn, frames, qp_high))) | {"qp_high": qp_high}
        elif panel in before:
            report[panel] = before[panel]
        else:
            continue
        print_table(panel, report[panel])
    stored.parent.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "images").mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(report, indent=1) + "\n")
    draw(report, arguments.docs / "images" / "accgrad-meaning.png")


def measure(
    dnn: ServerDnn, frames: Iterable[tuple[str, VideoFrame]], qp_high: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Clip and accuracies, frame by frame; frames without anything to find are passed over."""
    differentiable = dnn.differentiable()
    for clip, frame in frames:
        pristine = dnn.infer(frame)
        boxes = dnn.task.object_boxes(pristine)
        if boxes is not None and len(boxes) == 0:
            continue
        (high, _), (low, _) = encode_still(frame, qp_high), encode_still(frame, QP_LOW)
        reference = dnn.infer(high)
        at_low, at_high = (
            accuracy_gradient(differentiable, dnn.task, reference, high, low, at=at) for at in ("low", "high")
        )
        random = np.random.default_rng(frame.pts or 0).random(at_low.shape)
        rankings: dict[str, NDArray[Any]] = dict(zip(ORDERS, (at_low, at_high, random, -at_low), strict=True))
        row = {
            "all low": dnn.task.frame_accuracy(dnn.infer(low), pristine),
            "all high": dnn.task.frame_accuracy(reference, pristine),
        }
        for order, ranking in rankings.items():
            for share in SHARES:
                offsets = np.where(top(ranking, share), qp_high - QP_LOW, 0).astype(np.float32)
                decoded, _ = encode_still(frame, QP_LOW, offsets)
                row[f"{order} {share}"] = dnn.task.frame_accuracy(dnn.infer(decoded), pristine)
        yield clip, row


def stills(paths: list[Path], count: int) -> Iterator[tuple[str, VideoFrame]]:
    """Evenly spaced pictures of a sorted list."""
    for index in range(min(count, len(paths))):
        path = paths[int((index + 0.5) * len(paths) / min(count, len(paths)))]
        frame = read_still(path)
        frame.pts = index  # seeds the random choice of macroblocks
        yield path.stem, frame


def evenly_spaced(clip: Path, frames: int) -> Iterator[VideoFrame]:
    with open_source(clip) as source:
        count = source.info.frame_count or 100
        wanted = {int((i + 0.5) * count / frames) for i in range(frames)}
        yield from (frame for index, frame in enumerate(source) if index in wanted)


def top(ranking: NDArray[np.floating[Any]], share: float) -> NDArray[np.bool_]:
    chosen = np.zeros(ranking.size, np.bool_)
    chosen[np.argsort(-ranking, axis=None, kind="stable")[: round(share * ranking.size)]] = True
    return chosen.reshape(ranking.shape)


def summarise(measured: list[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    """Means over frames with 95 % intervals from resampling whole clips; gains are of the same frames."""
    rows = [row for _, row in measured]
    for row in rows:
        for share in SHARES:
            for other in ORDERS[2:]:
                row[f"gain over {other} {share}"] = row[f"{ORDERS[0]} {share}"] - row[f"{other} {share}"]
    clips = sorted({clip for clip, _ in measured})
    member = np.asarray([[clip == own for clip, _ in measured] for own in clips], np.float64)
    drawn = np.random.default_rng(0).multinomial(len(clips), np.full(len(clips), 1 / len(clips)), RESAMPLES)
    weights = drawn @ member
    summary: dict[str, Any] = {"frames": len(rows), "clips": len(clips)}
    for key in rows[0]:
        values = np.asarray([row[key] for row in rows])
        low, high = np.quantile(weights @ values / weights.sum(axis=1), [0.025, 0.975])
        summary[key] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
    return summary


def print_table(name: str, summary: dict[str, Any]) -> None:
    print(f"\n{name}: {summary['frames']} frames, accuracy against the pristine frame, mean [95 % interval]")
    print(f"  nothing at high quality {text(summary['all low'])}, everything {text(summary['all high'])}")
    for order in (*ORDERS, *(f"gain over {other}" for other in ORDERS[2:])):
        cells = (f"{share:.0%} {text(summary[f'{order} {share}'])}" for share in SHARES)
        print(f"  {order:<28}" + "  ".join(cells), flush=True)


def text(cell: dict[str, float]) -> str:
    return f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def draw(report: dict[str, Any], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    columns = -(-len(report) // 2)
    figure, panels = pyplot.subplots(
        2, columns, figsize=(4.2 * columns, 7), constrained_layout=True, squeeze=False
    )
    styles = dict(zip(ORDERS, ("o-", "s--", "^:", "v-."), strict=True))
    for panel, (name, summary) in zip(panels.T.ravel(), report.items(), strict=False):
        for order, style in styles.items():
            cells = [summary["all low"], *(summary[f"{order} {share}"] for share in SHARES)]
            means, lows, highs = (
                np.asarray([cell[key] for cell in cells]) for key in ("mean", "low", "high")
            )
            shares = [0, *(100 * share for share in SHARES)]
            panel.errorbar(shares, means, [means - lows, highs - means], fmt=style, label=order, capsize=2)
        panel.axhline(summary["all high"]["mean"], color="grey", lw=0.8)
        panel.set(title=f"{name} ({summary['frames']})", xlabel=f"macroblocks at QP {summary['qp_high']} [%]")
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy against the pristine frame")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
