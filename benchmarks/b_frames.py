"""What B-frames cost the camera's CPU, by how x264 places them: `python benchmarks/b_frames.py FOLDER`.

Question: does x264's own choice of which frames become B-frames (`b-adapt=1`), and its search for scene
cuts, save enough bytes to pay for their CPU? Two B-frames each way and an untouched x264 code the first 75
frames of each clip, in turn, in each of five rounds at CRF 34: the ratio of median CPU times. Bytes are
compared at equal PSNR over CRF 28, 34 and 40, a keyframe counted once in 250 frames. Rule: what saves no
bytes in the mean and costs CPU on most clips goes.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import geometric_mean, median

import av
import numpy as np

from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.frames import plane_view
from accmpeg.media.source import open_source

FRAMES, ROUNDS, MIDDLE = 75, 5, 34
CRFS = (28, 34, 40)
GOP_FRAMES = 250
WAYS: Mapping[str, tuple[int, dict[str, str]]] = {
    "untouched x264": (0, {}),
    "x264 chooses": (2, {"x264-params": "b-adapt=1:scenecut=40", "rc-lookahead": "8"}),
    "always two, scene cuts": (2, {"x264-params": "scenecut=40"}),
    "always two": (2, {}),
    "always one": (1, {}),
    "always three": (3, {}),
    "always two, superfast": (2, {"preset": "superfast"}),
    "superfast": (0, {"preset": "superfast"}),
}


def coded(
    frames: Sequence[av.VideoFrame], frame_rate: Fraction, way: str, crf: float
) -> tuple[float, float, float]:
    """CPU seconds, bytes a frame, and PSNR in dB of the luma."""
    b_frames, extra = WAYS[way]
    settings = EncoderSettings(
        width_px=frames[0].width,
        height_px=frames[0].height,
        frame_rate=frame_rate,
        time_base=frames[0].time_base,
        crf=crf,
        b_frames=b_frames,
        steerable=False,
        extra=extra,
    )
    with Encoder(settings) as encoder, Decoder(encoder.decoder_name) as decoder:
        start_s = time.process_time()
        units = [unit for frame in frames for unit in encoder.encode(frame)] + encoder.flush()
        cpu_s = time.process_time() - start_s
        seen = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    errors = [
        np.square(plane_view(a, 0).astype(np.float32) - plane_view(b, 0)).mean()
        for a, b in zip(frames, seen, strict=True)
    ]
    sizes = [len(unit.data) for unit in units]
    rate = sizes[0] / GOP_FRAMES + float(np.mean(sizes[1:]))
    return cpu_s, rate, 10 * math.log10(255**2 / float(np.mean(errors)))


def log_gap(points: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]) -> float:
    """Mean log ratio of bytes over the PSNR that both reach; points are (bytes, dB), finest first."""
    shared = [(min(each), max(each)) for each in ([db for _, db in points], [db for _, db in plain])]
    grid = np.linspace(max(low for low, _ in shared), min(high for _, high in shared), 50)
    curves = [
        np.interp(grid, [db for _, db in each[::-1]], np.log([rate for rate, _ in each[::-1]]))
        for each in (points, plain)
    ]
    return float(np.mean(curves[0] - curves[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    gaps: dict[str, list[float]] = {way: [] for way in WAYS}
    for clip in sorted(asked.folder.iterdir()):
        with open_source(clip) as source:
            frame_rate, frames = source.info.frame_rate, list(islice(source, FRAMES))
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                taken[way].append(coded(frames, frame_rate, way, MIDDLE)[0])
        points = {way: [coded(frames, frame_rate, way, crf)[1:] for crf in CRFS] for way in WAYS}
        for way in WAYS:
            cpu[way].append(median(taken[way]) / median(taken["untouched x264"]))
            gaps[way].append(log_gap(points[way], points["untouched x264"]))
        print(clip.stem, {way: round(values[-1], 2) for way, values in cpu.items()}, flush=True)
    print("| two B-frames | camera CPU, median (range) | bytes at equal PSNR, mean (range) |\n|---|---|---|")
    for way in WAYS:
        percent = [100 * math.expm1(gap) for gap in gaps[way]]
        mean = 100 * (geometric_mean([math.exp(gap) for gap in gaps[way]]) - 1)
        print(
            f"| {way} | {median(cpu[way]):.2f} ({min(cpu[way]):.2f} to {max(cpu[way]):.2f}) "
            f"| {mean:+.0f} % ({min(percent):+.0f} to {max(percent):+.0f}) |"
        )


if __name__ == "__main__":
    main()
