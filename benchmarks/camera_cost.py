"""What the camera's stages cost: plain libx264 against the steered stream, in turns in one run.

    python benchmarks/camera_cost.py [--video F] [--accmodel M] [--bitrate 1.5M] [--rounds 7] [--json F]

Both encode the same frames, held in memory, at the same preset and bitrate with one thread; the ratio is of
CPU time over all stages. Printed are medians over rounds with the range, and the ratio round by round.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from accmpeg.accmodel.runtime import AccModel
from accmpeg.camera import StageTimes, SteeredEncoder
from accmpeg.cli.sources import EMBEDDED_SCENE, open_any_source
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.media.encoder import EncoderSettings
from accmpeg.options import parse_bitrate
from live_options import JsonFile


def encode_ms_per_frame(
    clip: Clip, bitrate_bps: int, accmodel: AccModel | None, every: int
) -> tuple[float, dict[str, float], int]:
    """CPU ms per frame in all, by stage, and the bytes; opening the encoder is not counted."""
    settings = EncoderSettings(
        width_px=clip.width_px,
        height_px=clip.height_px,
        frame_rate=clip.frame_rate,
        time_base=clip.time_base,
        bitrate_bps=bitrate_bps,
        steerable=accmodel is not None,
    )
    times = StageTimes()
    with SteeredEncoder(settings, accmodel, "graded", every=every, times=times) as steered:
        start_ns = time.process_time_ns()
        size_bytes = sum(unit.size_bytes for frame in clip.frames for unit in steered.encode(frame))
        size_bytes += sum(unit.size_bytes for unit in steered.flush())
        total_ms = (time.process_time_ns() - start_ns) / 1e6
    times.total_ms.pop("open", None)
    return total_ms / len(clip.frames), times.per_frame_ms(len(clip.frames)), size_bytes


def main(
    video: Annotated[str, typer.Option(help="Clip to encode.")] = EMBEDDED_SCENE,
    accmodel: Annotated[Path | None, typer.Option(help="AccModel; the demo's if not given.")] = None,
    bitrate: Annotated[str, typer.Option(help="Bitrate of both streams.")] = "1.5M",
    every: Annotated[int, typer.Option(help="Frames per map.")] = 10,
    rounds: Annotated[int, typer.Option(help="Counted rounds, after one warm-up.")] = 7,
    frames: Annotated[int, typer.Option(help="Frames per round.")] = 120,
    json_file: JsonFile = None,
) -> None:
    """Print CPU ms per frame of plain and steered encoding, by stage, and their ratio."""
    from accmpeg.demo import assets_path

    model = AccModel.load(accmodel or assets_path() / "accmodel.card.toml")
    with open_any_source(video) as source:
        clip = read_clip(source, limit=frames)
    bitrate_bps = parse_bitrate(bitrate)
    plain, steered, ratios, stages = [], [], [], []
    for round_number in range(rounds + 1):
        plain_ms, _, plain_bytes = encode_ms_per_frame(clip, bitrate_bps, None, every)
        steered_ms, by_stage, steered_bytes = encode_ms_per_frame(clip, bitrate_bps, model, every)
        if round_number:
            plain.append(plain_ms)
            steered.append(steered_ms)
            ratios.append(steered_ms / plain_ms)
            stages.append(by_stage)
    console = Console()
    console.print(f"{clip.name}: {len(clip.frames)} frames {clip.width_px}x{clip.height_px}, {bitrate}bit/s")
    table = Table("CPU ms per frame", "median", "min to max", box=None)
    for name, values in (("plain libx264", plain), ("AccMPEG, all stages", steered)):
        table.add_row(name, f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}")
    for stage in stages[0]:
        values = [by_stage[stage] for by_stage in stages]
        table.add_row(
            f"  {stage}", f"{statistics.median(values):.3f}", f"{min(values):.3f} to {max(values):.3f}"
        )
    console.print(table)
    ratio = statistics.median(ratios)
    console.print(f"ratio {ratio:.3f} (rounds {min(ratios):.3f} to {max(ratios):.3f}); target at most 1.15")
    console.print(f"bytes: plain {plain_bytes:,}, AccMPEG {steered_bytes:,}")
    if json_file is not None:
        document = {"plain_ms": plain, "steered_ms": steered, "ratios": ratios, "stages_ms": stages}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
