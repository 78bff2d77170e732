"""What scaling a camera's frames to a smaller stream costs: `python benchmarks/scaler.py VIDEO...`.

Question: is a scaler of the frame's own, which PyAV makes for every `VideoFrame.reformat`, as cheap as one
that is kept? Frames of each video are halved in either way, in turns of one run; printed are medians over
rounds, in ms of CPU time a frame, and whether the pixels are the same.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from accmpeg.media.source import open_source

FRAMES, ROUNDS = 60, 7
WAYS = {
    "the frame's own": (False, 0),
    "the frame's own, one thread": (False, 1),
    "kept, one thread": (True, 1),
}
"""Whether the scaler is kept, and its threads; 0 is one for each core."""


def halved(frames: Sequence[av.VideoFrame], *, is_kept: bool, threads: int) -> tuple[float, av.VideoFrame]:
    """CPU ms a frame, and the first of them."""
    width_px, height_px = frames[0].width // 4 * 2, frames[0].height // 4 * 2
    scaler = VideoReformatter()
    small = []
    start_s = time.process_time()
    for frame in frames:
        scaler = scaler if is_kept else VideoReformatter()
        small.append(
            scaler.reformat(frame, width_px, height_px, interpolation=Interpolation.AREA, threads=threads)
        )
    return (time.process_time() - start_s) / len(frames) * 1e3, small[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    for video in parser.parse_args().videos:
        with open_source(video) as source:
            frames = list(islice(source, FRAMES))
        cpu_ms: dict[str, list[float]] = {way: [] for way in WAYS}
        pictures = set()
        for _ in range(ROUNDS):
            for way, (is_kept, threads) in WAYS.items():
                took_ms, small = halved(frames, is_kept=is_kept, threads=threads)
                cpu_ms[way].append(took_ms)
                pictures.add(np.asarray(small.to_ndarray()).tobytes())
        print(
            f"{video.stem}, {frames[0].width}x{frames[0].height}:",
            ", ".join(f"{way} {median(taken):.2f}" for way, taken in cpu_ms.items()),
            f"ms, {'the same' if len(pictures) == 1 else 'OTHER'} pixels",
        )


if __name__ == "__main__":
    main()
