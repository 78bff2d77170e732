"""What an AccModel costs on one core: MACs, parameters, milliseconds per map.

    python benchmarks/accmodel_cost.py [ACCMODEL.onnx] [--width 1280 --height 720 --runs 200]

Without a file, the architecture with random weights is measured: its cost is the same. A map is everything
that the camera does for it: scaling the planes, the network, resampling to macroblocks.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import onnx

from accmpeg.accmodel import AccModel, AccModelCard, read_accmodel_card
from accmpeg.accmodel.card import ServedDnn, card_path, sha256_of
from accmpeg.dnn.card import write_card
from accmpeg.errors import MissingExtraError
from accmpeg.media.planes import frame_planes
from accmpeg.training.export import count_macs, count_parameters, export_onnx
from accmpeg.training.network import AccModelNetwork


def noise_frames(width_px: int, height_px: int, count: int) -> list[av.VideoFrame]:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        frame = av.VideoFrame(width_px, height_px, "yuv420p")
        for plane in frame.planes:
            plane.update(rng.integers(16, 236, plane.buffer_size, np.uint8).tobytes())
        frames.append(frame)
    return frames


def summary(taken_ms: list[float]) -> str:
    low, high = np.percentile(taken_ms, [5, 95])
    median = statistics.median(taken_ms)
    return f"median {median:.2f} ms [5–95 %: {low:.2f}–{high:.2f}], fastest {min(taken_ms):.2f}"


def timed(work: object, inputs: list[av.VideoFrame], runs: int) -> list[float]:
    assert callable(work)
    taken = []
    for number in range(runs + 5):
        start = time.perf_counter()
        work(inputs[number % len(inputs)])
        taken.append((time.perf_counter() - start) * 1000)
    return taken[5:]


def random_accmodel(folder: Path) -> Path:
    weights = export_onnx(AccModelNetwork())
    path = folder / "random.onnx"
    path.write_bytes(weights)
    card = AccModelCard(
        name="random weights",
        model=path.name,
        sha256=sha256_of(weights),
        outputs=["accgrad", "objects"],
        dnn=ServedDnn(name="none", task="detection"),
    )
    write_card(card, card_path(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of an AccModel on one core.")
    parser.add_argument("accmodel", nargs="?", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    frames = noise_frames(options.width, options.height, 4)
    with tempfile.TemporaryDirectory() as folder:
        path = options.accmodel or random_accmodel(Path(folder))
        card = read_accmodel_card(path)
        model = onnx.load(card_path(path).parent / card.model)
        print(
            f"{card.name} at {options.width}x{options.height}: "
            f"{count_macs(model, options.width, options.height) / 1e6:.0f} MMAC, "
            f"{count_parameters(model) / 1e3:.0f} k parameters"
        )
        print(f"planes       {summary(timed(frame_planes, frames, options.runs))}")
        for runtime in ("onnxruntime", "openvino"):
            try:
                loaded = AccModel.load(path, runtime=runtime)
            except MissingExtraError as error:
                print(f"{runtime:12s} {error}")
                continue
            print(f"{runtime:12s} {summary(timed(loaded.predict, frames, options.runs))}")


if __name__ == "__main__":
    main()
