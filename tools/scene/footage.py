"""Unlabelled footage of rendered streets, to make the demo's AccModel from.

python -m scene.footage --out DIR
accmpeg label DIR --dnn …/detector.card.toml -o LABELS --every 1 --qp-high 24
accmpeg train LABELS -o accmodel.onnx
"""

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink
from scene.training_frames import FIRST_TRAINING_SEED

__all__ = ["render_clip"]

_SPAN_FRAMES = 900
_CRF = 8


def render_clip(seed: int, frames: int, folder: Path) -> Path:
    """Writes some frames of one street, far apart in time, as a nearly lossless clip; keeps one that exists.

    Raises `SinkError` where the folder can't be written.
    """
    path = folder / f"street-{seed}.mp4"
    if path.exists():
        return path
    scene = SceneSource(SceneSpec(seed, frame_count=_SPAN_FRAMES))
    settings = EncoderSettings.for_source(
        scene.info, frame_rate=Fraction(1), time_base=Fraction(1), crf=_CRF, gop_frames=1, steerable=False
    )
    unfinished = path.with_stem(f"{path.stem}-unfinished")
    with Encoder(settings) as encoder, open_sink(unfinished, encoder) as sink:
        for pts, frame_index in enumerate(np.linspace(0, _SPAN_FRAMES - 1, frames).astype(int)):
            frame = scene.frame(int(frame_index))
            frame.pts, frame.time_base = pts, Fraction(1)
            for unit in encoder.encode(frame):
                sink.write(unit)
        for unit in encoder.flush():
            sink.write(unit)
    unfinished.replace(path)
    return path


def main(
    out: Annotated[Path, typer.Option(help="Folder for the clips.")],
    scenes: Annotated[int, typer.Option(help="Streets.")] = 80,
    frames: Annotated[int, typer.Option(help="Frames of each street.")] = 6,
) -> None:
    """Render the footage that the demo's AccModel was trained on."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in track(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + scenes), "streets"):
        render_clip(seed, frames, out)


if __name__ == "__main__":
    typer.run(main)
