"""Measures the demo's detector on streets it never saw: `python -m scene.measure_detector [CARD]`.

AP@0.5 against true labels on the frames as rendered, and after x264 at constant QP.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import av
import typer

from accmpeg.demo import assets_path
from accmpeg.demo.scene import CLASS_NAMES, SceneSource, SceneSpec, true_detections
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import Encoder, EncoderSettings

__all__ = ["decoded_at_qp", "measure_detector"]

CLEAN = "clean"


def decoded_at_qp(scene: SceneSource, frames: Sequence[av.VideoFrame], qp: int) -> list[av.VideoFrame]:
    """A scene's frames after x264 (veryfast, zero latency) at one QP."""
    info = scene.info
    settings = EncoderSettings(
        width_px=info.width_px, height_px=info.height_px, frame_rate=info.frame_rate, qp=qp
    )
    with Encoder(settings) as encoder:
        units = [unit for frame in frames for unit in encoder.encode(frame)] + encoder.flush()
        decoder = Decoder(encoder.decoder_name, encoder.parameter_sets)
    decoded = [frame for unit in units for frame in decoder.decode(unit)]
    return decoded + decoder.flush()


def measure_detector(
    dnn: ServerDnn, seeds: Sequence[int], qps: Sequence[int], frame_count: int = 12, step: int = 4
) -> dict[str, dict[str, float]]:
    """AP@0.5 by condition ("clean", "QP 30", …): per class, and "mean" over classes.

    All frames of all seeds are pooled; every `step`-th frame of each is measured.
    """
    found: dict[str, list[object]] = {}
    truth: list[object] = []
    for seed in seeds:
        scene = SceneSource(SceneSpec(seed, frame_count=frame_count))
        frames = list(scene)
        truth += list(true_detections(scene)[::step])
        for name, version in [(CLEAN, frames)] + [
            (f"QP {qp}", decoded_at_qp(scene, frames, qp)) for qp in qps
        ]:
            found.setdefault(name, []).extend(dnn.infer(frame) for frame in version[::step])
    table: dict[str, dict[str, float]] = {}
    for name, results in found.items():
        row = {"mean": dnn.task.clip_accuracy(results, truth).value}
        for class_id, class_name in enumerate(CLASS_NAMES):
            only = [[d[d.class_id == class_id] for d in side] for side in (results, truth)]  # type: ignore[attr-defined,index]
            row[class_name] = dnn.task.clip_accuracy(*only).value
        table[name] = row
    return table


def main(
    card: Annotated[
        Path | None, typer.Argument(help="Card of the detector; the shipped one if left out.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="First and last street, for example 1-24.")] = "1-24",
    qps: Annotated[str, typer.Option(help="Constant QPs, separated by commas.")] = "30,35,40",
) -> None:
    """Prints AP@0.5 per class for rendered frames and for each QP."""
    first, last = (int(part) for part in seeds.split("-"))
    dnn = load_dnn(card or assets_path() / "detector.card.toml", threads=1)
    table = measure_detector(dnn, range(first, last + 1), [int(qp) for qp in qps.split(",") if qp])
    for name, row in table.items():
        typer.echo(f"{name:8}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))


if __name__ == "__main__":
    typer.run(main)
