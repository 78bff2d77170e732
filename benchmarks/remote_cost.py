"""What a server DNN on an inference server costs beside the same one here: milliseconds per frame.

    python benchmarks/remote_cost.py HERE.card.toml THERE.card.toml… [--frames 100 --batch 1 --json FILE]

Each card has its turn with the same frames of the embedded scene (1280x720), so that other work on the
machine meets all. A frame is everything: scaling, the way there and back, the network, the head.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from accmpeg.demo import demo_scene
from accmpeg.dnn.base import load_dnn
from accmpeg.errors import AccmpegError

WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of a remote DNN, beside a local one.")
    parser.add_argument("cards", nargs="+", type=Path, help="the first is what the others are compared with")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dnns = [load_dnn(card, threads=1) for card in options.cards]
    with demo_scene(frame_count=max(8, options.batch)) as scene:
        frames = list(scene)
    batches = [
        frames[i : i + options.batch] for i in range(0, len(frames) - options.batch + 1, options.batch)
    ]
    taken_ms: list[list[float]] = [[] for _ in dnns]
    for number in range(WARM_UP + -(-options.frames // options.batch)):
        for dnn, taken in zip(dnns, taken_ms, strict=True):
            start_s = time.perf_counter()
            dnn.infer_many(batches[number % len(batches)], sure_only=True)
            taken.append((time.perf_counter() - start_s) * 1000 / options.batch)
    found: list[dict[str, Any]] = []
    for card, dnn, taken in zip(options.cards, dnns, taken_ms, strict=True):
        median_ms = statistics.median(taken[WARM_UP:])
        extra_ms = median_ms - (found[0]["ms"] if found else median_ms)
        where = dnn.card.options.get("address", "here")
        found.append(
            {"card": str(card), "where": where, "ms": round(median_ms, 2), "extra_ms": round(extra_ms, 2)}
        )
        print(f"{where:32} median {median_ms:7.2f} ms a frame, {extra_ms:+7.2f} ms  ({card})")
    if options.json is not None:
        options.json.write_text(json.dumps({"batch": options.batch, "cards": found}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except AccmpegError as error:
        raise SystemExit(f"error: {error}") from None
