"""What plain x264 takes at one CRF over another, by clip: `python benchmarks/crf_cost.py FOLDER`.

The first 60 frames of each clip, both CRFs in turn in each of four rounds; the medians' ratio of CPU times.
"""

import argparse
import time
from itertools import islice
from pathlib import Path
from statistics import median

from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.source import open_source

FRAMES, ROUNDS = 60, 4


def ratio(clip: Path, crfs: tuple[int, int]) -> float:
    with open_source(clip) as source:
        info, frames = source.info, list(islice(source, FRAMES))
    taken_s: dict[int, list[float]] = {crf: [] for crf in crfs}
    for _ in range(ROUNDS):
        for crf in crfs:
            settings = EncoderSettings(
                width_px=info.width_px, height_px=info.height_px, frame_rate=info.frame_rate, crf=crf
            )
            with Encoder(settings) as encoder:
                start_s = time.process_time()
                for frame in frames:
                    encoder.encode(frame)
                taken_s[crf].append(time.process_time() - start_s)
    return median(taken_s[crfs[0]]) / median(taken_s[crfs[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crf", type=int, nargs=2, default=(32, 34))
    asked = parser.parse_args()
    found = {clip.stem: ratio(clip, tuple(asked.crf)) for clip in sorted(asked.folder.iterdir())}
    for name, value in found.items():
        print(f"{name:30} {value:.3f}")
    print(f"{'median':30} {median(found.values()):.3f}")


if __name__ == "__main__":
    main()
