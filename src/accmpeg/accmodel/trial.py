"""Tries an AccModel from elsewhere, beside the camera: `python -m accmpeg.accmodel.trial WIDTH HEIGHT`.

Some kilobytes of allowed operators can ask for all memory or for hours: twenty concatenations of a tensor
with itself make a million of it, and ONNX Runtime computes constants while it loads. Nothing within the
camera's own process could end that. Standard input brings the card as JSON, on a line, then the ONNX file.
"""

import os
import subprocess
import sys
from contextlib import suppress
from typing import BinaryIO

import av
import numpy as np
from pydantic import ValidationError

from accmpeg.accmodel.card import AccModelCard
from accmpeg.accmodel.runtime import AccModel, first_line
from accmpeg.errors import AccModelError, AccmpegError

__all__ = ["grey_frame", "try_apart"]

MEMORY_BYTES = 512 << 20
"""It may take so much more than a process has that has loaded nothing yet: the demo's takes a tenth."""
TRIAL_S = 60.0
"""Of an old camera's CPU too: the demo's takes less than a second of a new one's, Python a few."""


def grey_frame(width_px: int, height_px: int) -> av.VideoFrame:
    """One that any AccModel must be able to read."""
    width_px, height_px = width_px & ~1, height_px & ~1
    grey = np.full((height_px * 3 // 2, width_px), 128, np.uint8)
    return av.VideoFrame.from_ndarray(grey, format="yuv420p")


def try_apart(card: AccModelCard, weights: bytes, size_px: tuple[int, int], where: str) -> None:
    """Loads the ONNX file and runs it on a frame of that size, in a process of its own.

    Raises `AccModelError` where it fails, takes too much memory or does not end.
    """
    command = [sys.executable, "-m", __name__, *map(str, size_px)]
    given = card.model_dump_json().encode() + b"\n" + weights
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=TRIAL_S, start_new_session=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise AccModelError(f"{where} takes longer than {TRIAL_S:.0f} s for a map") from None
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise AccModelError(said or f"{where} takes more than {MEMORY_BYTES >> 20} MiB of memory, or crashes")


def _run(given: BinaryIO, width_px: int, height_px: int) -> int:
    try:
        card = AccModelCard.model_validate_json(given.readline())
        weights = given.read()
        _bound()
        AccModel.of_weights(card, weights, card.name).predict(grey_frame(width_px, height_px))
    except MemoryError:
        return 1
    except (AccmpegError, ValidationError) as error:
        out_of_memory = "bad_alloc" in str(error) or "allocate memory" in str(error)
        print("" if out_of_memory else first_line(error))
        return 1
    return 0


def _bound() -> None:
    """Where the system can: elsewhere only the time is bounded, by who started this."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as file:  # noqa: PTH123  # short-lived, and nothing else runs here
            taken_bytes = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = taken_bytes + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        # A camera that ends meanwhile waits for nobody.
        resource.setrlimit(resource.RLIMIT_CPU, (int(TRIAL_S), int(TRIAL_S)))


if __name__ == "__main__":
    sys.exit(_run(sys.stdin.buffer, int(sys.argv[1]), int(sys.argv[2])))
