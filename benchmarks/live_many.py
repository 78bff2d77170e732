"""Ten cameras into one server: batches, throughput against the bare network, fairness.

    python benchmarks/live_many.py [--cameras 10] [--seconds 30] [--json F]

The cameras are one process that replays access units through the real camera client: their encoders would
leave a small machine nothing to infer with. They send at 10 frames/s, and then so fast that the DNN is
saturated (`--overload` times what the bare network does); the newest frame wins. The bare figure is ONNX
Runtime's `run` on a ready batch in a loop, with all cores and the server's largest batch, before and after:
no decoding, scaling, network or results. Decoding of all frames, also of those that the server leaves out,
and the replaying process take their share of the same cores.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from accmpeg.demo import assets_path
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.preprocess import Preprocessor
from accmpeg.options import parse_bitrate, parse_size
from live_options import Frames, JsonFile, ServerOptions, Work
from live_programs import Program, SceneFile, machine, scrape, start_server, total
from live_replay import Recording, encoded, replay

THROUGHPUT_SHARE = 0.85
FAIRNESS = 0.8
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Bare:
    """The detector without anything around it."""

    def __init__(self, scene: SceneFile, max_batch: int) -> None:
        self._dnn: ServerDnn = load_dnn(assets_path() / "detector.card.toml")
        preprocess = Preprocessor(self._dnn.card.input)
        self._frames = [frame for frame, _ in zip(scene.drawn_frames(), range(max_batch), strict=False)]
        self._batch = np.stack([preprocess(frame)[0] for frame in self._frames])

    def frames_per_s(self, seconds: float) -> tuple[float, float]:
        """Of `run` alone, on a batch that is ready."""
        return self._rate(lambda: self._dnn.network.run(self._batch), seconds)

    def with_scaling_per_s(self, seconds: float) -> tuple[float, float]:
        """Of all that one inference is: scaling, `run`, boxes."""
        return self._rate(lambda: self._dnn.infer_many(self._frames, sure_only=True), seconds)

    def _rate(self, once: Any, seconds: float) -> tuple[float, float]:
        """Frames per second of time, and of CPU time."""
        once()
        started_s, started_cpu_s, count = time.perf_counter(), time.process_time(), 0
        while (lasted_s := time.perf_counter() - started_s) < seconds:
            once()
            count += len(self._frames)
        return count / lasted_s, count / (time.process_time() - started_cpu_s)


def batch_counts(scraped: Any) -> list[float]:
    """Batches up to each bucket's size."""
    return [total(scraped, "accmpeg_batch_frames_bucket", le=f"{size:.1f}") for size in BATCH_BUCKETS]


async def load(
    server: Program,
    address: str,
    recording: Recording,
    cameras: int,
    rate: float,
    seconds: float,
    warm_up_s: float,
) -> dict[str, Any]:
    """Sends from all cameras; figures of the time after the warm-up, by the server's own metrics."""
    names = [f"camera{index}" for index in range(cameras)]
    sending = [
        asyncio.create_task(
            replay(
                recording,
                address,
                seconds=warm_up_s + seconds + 1,
                name=name,
                frame_rate=rate,
                first_after_s=index / (cameras * rate),  # spread, as the cameras of a real site are
            )
        )
        for index, name in enumerate(names)
    ]
    mine = psutil.Process()
    await asyncio.sleep(warm_up_s)
    before, started_s = await asyncio.to_thread(scrape, address), time.perf_counter()
    cpu = server.cpu_s(), sum(mine.cpu_times()[:2])
    await asyncio.sleep(seconds)
    after, lasted_s = await asyncio.to_thread(scrape, address), time.perf_counter() - started_s
    cpu = server.cpu_s() - cpu[0], sum(mine.cpu_times()[:2]) - cpu[1]
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)

    def grown(metric: str, **labels: str) -> float:
        return total(after, metric, **labels) - total(before, metric, **labels)

    results = [grown("accmpeg_camera_results_total", camera=name) for name in names]
    upto = np.subtract(batch_counts(after), batch_counts(before))
    return {
        "rate_per_camera": rate,
        "fed_per_s": grown("accmpeg_camera_frames_total") / lasted_s,
        "results_per_s": sum(results) / lasted_s,
        "results_by_camera": results,
        "fairness": min(results) / max(1e-9, sum(results) / cameras),
        "left_out": grown("accmpeg_camera_dropped_total", reason="behind"),
        "batches": dict(zip(map(str, BATCH_BUCKETS), np.diff(upto, prepend=0.0).tolist(), strict=True)),
        "mean_batch": grown("accmpeg_batch_frames_sum") / max(1.0, grown("accmpeg_batch_frames_count")),
        "server_core_share": cpu[0] / lasted_s,
        "replay_core_share": cpu[1] / lasted_s,
    }


def shown(batches: dict[str, float]) -> str:
    """`8: 91 %, 6: 9 %`, the largest first."""
    whole = sum(batches.values()) or 1.0
    sizes: Iterable[tuple[str, float]] = reversed(batches.items())
    return ", ".join(f"≤{size}: {count / whole:.0%}" for size, count in sizes if count)


def main(
    cameras: Annotated[int, typer.Option(help="How many.")] = 10,
    seconds: Annotated[float, typer.Option(help="Measured time of each load.")] = 30.0,
    warm_up_s: Annotated[float, typer.Option(help="Time before it, not measured.")] = 5.0,
    size: Annotated[str, typer.Option(help="Size of every stream.")] = "640x360",
    frame_rate: Annotated[int, typer.Option(help="Frames per second of every camera.")] = 10,
    bitrate: Annotated[str, typer.Option(help="Of every stream.")] = "500k",
    overload: Annotated[float, typer.Option(help="Frames fed for each that the bare network does.")] = 1.5,
    max_batch: Annotated[int, typer.Option(help="Largest batch, here and there.")] = 8,
    frames: Frames = 100,
    server_option: ServerOptions = None,
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print batch sizes, throughput against the bare network, and fairness."""
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = SceneFile(folder, *parse_size(size), frame_rate, frames)
        recording = encoded(scene, bitrate_bps=parse_bitrate(bitrate))
        bare = Bare(scene, max_batch)
        bare_s = max(2.0, seconds / 3)
        rates = [bare.frames_per_s(bare_s)]
        saturating = overload * rates[0][0] / cameras
        loads = [float(frame_rate)] + ([saturating] if saturating > frame_rate else [])
        server, address = start_server(
            folder, "--max-batch", str(max_batch), *(server_option or []), results=False
        )
        with server:
            found = [
                asyncio.run(load(server, address, recording, cameras, rate, seconds, warm_up_s))
                for rate in loads
            ]
        rates.append(bare.frames_per_s(bare_s))
        complete = bare.with_scaling_per_s(bare_s)
    bare_per_s, bare_per_cpu_s = (sum(each) / len(rates) for each in zip(*rates, strict=True))
    console.print(f"{cameras} cameras of {size}; {machine()}")
    console.print(
        f"bare ONNX Runtime, batches of {max_batch}: {rates[0][0]:.1f} frames/s before, {rates[1][0]:.1f} "
        f"after, {bare_per_cpu_s:.1f} per CPU second; with scaling and boxes {complete[0]:.1f} and "
        f"{complete[1]:.1f}"
    )
    columns = ("frames/s each", "fed/s", "results/s", "of bare", "per CPU s", "slowest/mean", "mean batch")
    table = Table(*columns, "batches", box=None)
    for each in found:
        table.add_row(
            f"{each['rate_per_camera']:.1f}",
            f"{each['fed_per_s']:.1f}",
            f"{each['results_per_s']:.1f}",
            f"{each['results_per_s'] / bare_per_s:.0%}",
            f"{each['results_per_s'] / max(1e-9, each['server_core_share']):.1f}",
            f"{each['fairness']:.0%}",
            f"{each['mean_batch']:.1f}",
            shown(each["batches"]),
        )
    console.print(table)
    last = found[-1]
    console.print(
        f"CPU of one core, at the last load: server {last['server_core_share']:.0%}, replaying cameras "
        f"{last['replay_core_share']:.0%}; targets when saturated: {THROUGHPUT_SHARE:.0%} of bare, "
        f"slowest ≥ {FAIRNESS:.0%} of the mean"
    )
    if json_file is not None:
        document = {
            "bare_per_s": rates,
            "complete_per_s": complete,
            "loads": found,
            "machine": machine(),
        }
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
