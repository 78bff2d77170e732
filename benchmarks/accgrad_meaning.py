"""What accuracy gradients are worth: real accuracy when only a few macroblocks get high quality.

For frames of real clips and several server DNNs: a share of the macroblocks, chosen by AccGrad, at random, or
from the bottom of AccGrad, is coded at the high QP and the rest at the low one by the real encoder; accuracy
is the server DNN's against its own result on the pristine frame. Writes `docs/images/accgrad-meaning.png` and
`docs/data/accgrad-meaning.json`, and prints the table.

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

from accmpeg.accgrad.gradient import accuracy_gradient
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.media.decoder import encode_still
from accmpeg.media.source import open_source, read_still

QP_HIGH, QP_LOW = 20, 40
SHARES = (0.05, 0.10, 0.20, 0.40)
ORDERS = ("AccGrad at low quality", "AccGrad at high quality", "random", "bottom of AccGrad")
PANELS = {
    "yolo11n, clips": ("videos/*",),
    "yolo11n, photographs": ("images/*",),
    "yolov8n_pose, clips": ("videos/pedestrian-*", "videos/indoor-*", "videos/sports-*", "videos/people-*"),
    "yolov8n_pose, photographs": ("images/*",),
    "espnetv2_s2_cityscapes, clips": (
        "videos/dashcam-*",
        "videos/traffic-fixed-[12]*",
        "videos/pedestrian-street-*",
    ),
}
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with videos/")
    parser.add_argument("--cards", type=Path, required=True, help="folder with NAME.card.toml of each DNN")
    parser.add_argument("--frames", type=int, default=2, help="frames per clip")
    parser.add_argument("--stills", type=int, default=30, help="photographs, evenly spaced by name")
    parser.add_argument("--panels", nargs="*", choices=list(PANELS), default=list(PANELS))
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    arguments = parser.parse_args()
    stored = arguments.docs / "data" / "accgrad-meaning.json"
    before = json.loads(stored.read_text()) if stored.exists() else {}
    report = {}
    for panel, patterns in PANELS.items():
        if panel in arguments.panels:
            dnn = load_dnn(arguments.cards / f"{panel.partition(',')[0]}.card.toml")
            found = sorted({path for pattern in patterns for path in arguments.data.glob(pattern)})
            if "photographs" in panel:
                frames = stills(found, arguments.stills)
            else:
                frames = (frame for clip in found for frame in evenly_spaced(clip, arguments.frames))
            report[panel] = summarise(list(measure(dnn, frames)))
        elif panel in before:
            report[panel] = before[panel]
        else:
            continue
        print_table(panel, report[panel])
    stored.parent.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "images").mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(report, indent=1) + "\n")
    draw(report, arguments.docs / "images" / "accgrad-meaning.png")


def measure(dnn: ServerDnn, frames: Iterable[VideoFrame]) -> Iterator[dict[str, float]]:
    """Accuracies frame by frame; frames without anything to find are passed over."""
    differentiable = dnn.differentiable()
    for frame in frames:
        pristine = dnn.infer(frame)
        boxes = dnn.task.object_boxes(pristine)
        if boxes is not None and len(boxes) == 0:
            continue
        (high, _), (low, _) = encode_still(frame, QP_HIGH), encode_still(frame, QP_LOW)
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
                offsets = np.where(top(ranking, share), QP_HIGH - QP_LOW, 0).astype(np.float32)
                decoded, _ = encode_still(frame, QP_LOW, offsets)
                row[f"{order} {share}"] = dnn.task.frame_accuracy(dnn.infer(decoded), pristine)
        yield row


def stills(paths: list[Path], count: int) -> Iterator[VideoFrame]:
    """Evenly spaced pictures of a sorted list."""
    for index in range(min(count, len(paths))):
        frame = read_still(paths[int((index + 0.5) * len(paths) / count)])
        frame.pts = index  # seeds the random choice of macroblocks
        yield frame


def evenly_spaced(clip: Path, frames: int) -> Iterator[VideoFrame]:
    with open_source(clip) as source:
        count = source.info.frame_count or 100
        wanted = {int((i + 0.5) * count / frames) for i in range(frames)}
        yield from (frame for index, frame in enumerate(source) if index in wanted)


def top(ranking: NDArray[np.floating[Any]], share: float) -> NDArray[np.bool_]:
    chosen = np.zeros(ranking.size, np.bool_)
    chosen[np.argsort(-ranking, axis=None, kind="stable")[: round(share * ranking.size)]] = True
    return chosen.reshape(ranking.shape)


def summarise(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means over frames with bootstrap 95 % intervals."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(rows), (RESAMPLES, len(rows)))
    summary: dict[str, Any] = {"frames": len(rows)}
    for key in rows[0]:
        values = np.asarray([row[key] for row in rows])
        low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
        summary[key] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
    return summary


def print_table(name: str, summary: dict[str, Any]) -> None:
    print(f"\n{name}: {summary['frames']} frames, accuracy against the pristine frame, mean [95 % interval]")
    print(f"  nothing at high quality {text(summary['all low'])}, everything {text(summary['all high'])}")
    for order in ORDERS:
        cells = (f"{share:.0%} {text(summary[f'{order} {share}'])}" for share in SHARES)
        print(f"  {order:<24}" + "  ".join(cells), flush=True)


def text(cell: dict[str, float]) -> str:
    return f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def draw(report: dict[str, Any], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(report), figsize=(4.2 * len(report), 3.6), constrained_layout=True
    )
    styles = dict(zip(ORDERS, ("o-", "s--", "^:", "v-."), strict=True))
    for panel, (name, summary) in zip(panels[0], report.items(), strict=True):
        for order, style in styles.items():
            cells = [summary["all low"], *(summary[f"{order} {share}"] for share in SHARES)]
            means, lows, highs = (
                np.asarray([cell[key] for cell in cells]) for key in ("mean", "low", "high")
            )
            shares = [0, *(100 * share for share in SHARES)]
            panel.errorbar(shares, means, [means - lows, highs - means], fmt=style, label=order, capsize=2)
        panel.axhline(summary["all high"]["mean"], color="grey", lw=0.8)
        panel.set(title=f"{name} ({summary['frames']})", xlabel=f"macroblocks at QP {QP_HIGH} [%]")
    panels[0, 0].set_ylabel("accuracy against the pristine frame")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
