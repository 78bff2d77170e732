"""Emulated against real delays: the frames of an encoded clip over a real TCP connection through the proxy.

    python benchmarks/link_validation.py [--video F] [--bitrate 800k] [--frames 180] [--trace F] [--json F]

The frames' sizes are those of a real encode. Each is written at its capture time; the emulator is given the
times at which they were really written, since a busy machine writes late, which is no matter of the link.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from accmpeg.cli.sources import EMBEDDED_SCENE, open_any_source
from accmpeg.evaluation.bench.clip import read_clip
from accmpeg.evaluation.link.emulator import ServerMachine, emulate
from accmpeg.evaluation.link.flow import Delivery, Flow, Step
from accmpeg.evaluation.link.link import Link, read_trace
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.options import parse_bitrate

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from linklab.shaper import transfer
from live_options import JsonFile

PROPAGATION_MS = 20.0
OWN_TRACE = (*range(0, 2000, 8), *range(2000, 3000, 16), *range(3300, 4300, 4))
"""2 s at 1.5 Mbit/s, 1 s at 0.75, an outage of 0.3 s, 1 s at 3."""
TARGET_PERCENT = 10.0


def encoded_messages(video: str, bitrate_bps: int, limit: int) -> list[tuple[float, int]]:
    """Capture time in ms and bytes of each frame."""
    with open_any_source(video) as source:
        clip = read_clip(source, limit=limit)
    settings = EncoderSettings(
        width_px=clip.width_px,
        height_px=clip.height_px,
        frame_rate=clip.frame_rate,
        time_base=clip.time_base,
        bitrate_bps=bitrate_bps,
    )
    with Encoder(settings) as encoder:
        units = [unit for frame in clip.frames for unit in encoder.encode(frame)] + encoder.flush()
    return [(index * 1000 / float(clip.frame_rate), unit.size_bytes) for index, unit in enumerate(units)]


def compare(messages: list[tuple[float, int]], link: Link) -> dict[str, list[float]]:
    """p50 and p95 of the delays in ms, emulated and real, and of how late frames were written."""
    times = asyncio.run(transfer(messages, link))
    flows = [
        Flow(sent_ms, (Step("uplink", size_bytes=size_bytes, delivers=(Delivery(index, index),)),))
        for index, ((sent_ms, _), (_, size_bytes)) in enumerate(zip(times, messages, strict=True))
    ]
    delays_ms: dict[str, Sequence[float] | NDArray[np.float64]] = {
        "emulated": emulate(flows, link, ServerMachine()).delay_ms,
        "real": [arrived_ms - sent_ms for sent_ms, arrived_ms in times],
        "late": [sent_ms - due_ms for (sent_ms, _), (due_ms, _) in zip(times, messages, strict=True)],
    }
    return {name: [float(p) for p in np.percentile(ms, [50, 95])] for name, ms in delays_ms.items()}


def main(
    video: Annotated[str, typer.Option(help="Clip to encode.")] = EMBEDDED_SCENE,
    bitrate: Annotated[str, typer.Option(help="Bitrate of the stream.")] = "800k",
    frames: Annotated[int, typer.Option(help="Frames to send, in real time.")] = 180,
    trace: Annotated[Path | None, typer.Option(help="Mahimahi trace; one of our own if not given.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Print emulated and real p50 and p95 delay side by side; exit with 1 where they differ by over 10 %."""
    links = {
        "1 Mbit/s": Link(1e6, propagation_ms=PROPAGATION_MS),
        "2 Mbit/s": Link(2e6, propagation_ms=PROPAGATION_MS),
        "trace" if trace is None else trace.name: Link(
            trace=OWN_TRACE if trace is None else read_trace(trace), propagation_ms=PROPAGATION_MS
        ),
    }
    messages = encoded_messages(video, parse_bitrate(bitrate), frames)
    rows = {name: compare(messages, link) for name, link in links.items()}
    console = Console()
    total_bytes = sum(size_bytes for _, size_bytes in messages)
    console.print(f"{video}: {len(messages)} frames, {total_bytes:,} bytes, {bitrate}bit/s asked for")
    table = Table("link", "", "emulated ms", "real ms", "difference", "written late ms", box=None)
    worst_percent = 0.0
    for name, row in rows.items():
        for place, percentile in enumerate(("p50", "p95")):
            emulated_ms, real_ms, late_ms = (row[kind][place] for kind in ("emulated", "real", "late"))
            percent = 100 * (real_ms / emulated_ms - 1)
            worst_percent = max(worst_percent, abs(percent))
            table.add_row(
                name,
                percentile,
                f"{emulated_ms:.1f}",
                f"{real_ms:.1f}",
                f"{percent:+.1f} %",
                f"{late_ms:.1f}",
            )
    console.print(table)
    console.print(f"largest difference {worst_percent:.1f} %; target at most {TARGET_PERCENT:g} %")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n")
    if worst_percent > TARGET_PERCENT:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
