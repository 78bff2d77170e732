"""A server DNN that a test can make slow, failing or hanging: `model = "tests.server.stubborn:make"`."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CARD", "Stubborn", "make", "write_card"]

CARD = """
name = "stubborn"
task = "detection"
adapter = "callable"
model = "tests.server.stubborn:make"
classes = ["thing"]
nms_iou = 0.5
[input]
name = "pictures"
width_px = 64
height_px = 64
[head]
name = "boxes"
outputs = ["boxes", "scores"]
[options]
frame_s = {frame_s}
hang_file = "{hang_file}"
"""


class Stubborn:
    """Finds one box; `fails` and `hangs` work within a process, the file also from outside."""

    max_batch = None
    fails = threading.Event()
    hangs = threading.Event()
    goes_on = threading.Event()

    def __init__(self, frame_s: float, hang_file: str) -> None:
        self._frame_s = frame_s
        self._hang_file = hang_file

    def run(self, batch: Any) -> list[Any]:
        time.sleep(self._frame_s * len(batch))
        while self._hang_file and os.path.exists(self._hang_file):  # noqa: PTH110
            time.sleep(0.05)
        if self.hangs.is_set():
            self.goes_on.wait()
        if self.fails.is_set():
            raise RuntimeError("device-side assert")
        boxes = np.tile(np.array([[[10, 10, 50, 50]]], np.float32), (len(batch), 1, 1))
        return [boxes, np.full((len(batch), 1, 1), 0.9, np.float32)]


def make(frame_s: float, hang_file: str) -> Stubborn:
    return Stubborn(frame_s, hang_file)


def write_card(folder: Path, *, frame_s: float = 0.0, hang_file: Path | None = None) -> Path:
    card = folder / "stubborn.card.toml"
    card.write_text(CARD.format(frame_s=frame_s, hang_file=hang_file or ""))
    return card
