"""A server DNN that takes memory without end for white pictures, while a file is there."""

import mmap
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from accmpeg.demo import assets_path

__all__ = ["Greedy", "take_memory", "write_card"]

BLOCK_BYTES, MOST_BYTES = 256 << 20, 8 << 30


def take_memory() -> None:
    """More and more; Ray kills the process that does so."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    taken = [mmap.mmap(-1, BLOCK_BYTES, flags=flags) for _ in range(MOST_BYTES // BLOCK_BYTES)]
    time.sleep(60)
    del taken


class Greedy:
    """The demo's detector otherwise; a worker of a cluster makes it by its card."""

    max_batch = None

    def __init__(self, greedy_file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(assets_path() / "detector.onnx", options)
        self._greedy_file = Path(greedy_file)

    def run(self, batch: Any) -> list[Any]:
        if batch.mean() > 0.9 and self._greedy_file.exists():
            take_memory()
        made = [self._session.run(None, {"images": picture[None]})[0] for picture in batch]
        return [np.concatenate(made)]


def write_card(folder: Path, small_card: Path, greedy_file: Path) -> Path:
    kept = [line for line in small_card.read_text().splitlines() if not line.startswith("sha256")]
    text = "\n".join(kept).replace('adapter = "onnx"', 'adapter = "callable"')
    text = text.replace(f'"{assets_path() / "detector.onnx"}"', '"tests.cluster.greedy:Greedy"')
    card = folder / "greedy.card.toml"
    card.write_text(text.replace("[options]", f'[options]\ngreedy_file = "{greedy_file}"\n'))
    return card
