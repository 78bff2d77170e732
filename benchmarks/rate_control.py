"""Rate control compared on simulated links: ours, the textbook's, and fixed bitrates.

    python benchmarks/rate_control.py [--budget-ms 300] [--seeds 5] [--trace FILE …] [--json F]

`--trace` adds recorded links, in Mahimahi's format: a line per packet of 1500 bytes, the millisecond at which
it can be delivered.

All controllers meet the same links, encoder model and acknowledgements (`tools/linklab/bottleneck.py`).
"newest wins" is our camera's queue around them: frames are left out before the encoder when the link is
behind; without it every frame is sent. Figures are medians over seeds, the stall is the worst of them.
"""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from accmpeg.camera.uplink.ratecontrol import DelayRate, FixedRate, RateController
from accmpeg.evaluation.link.link import PACKET_BYTES, read_trace

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from linklab.bottleneck import STEPS, LinkTrace, simulate
from linklab.textbook import AimdRate
from live_options import JsonFile

OUTAGE = LinkTrace("5 s outage at 1 Mbit/s", [(0, 1e6), (8_000, 1000.0), (13_000, 1e6)], 25_000)


def mobile(seed: int) -> LinkTrace:
    """Bandwidth that moves every 500 ms by a factor of up to 1.5, between 0.4 and 3 Mbit/s."""
    random = np.random.default_rng(seed)
    steps, bps = [], 1.2e6
    for start_ms in range(0, 60_000, 500):
        steps.append((float(start_ms), bps))
        bps = float(np.clip(bps * 1.5 ** random.uniform(-1, 1), 0.4e6, 3e6))
    return LinkTrace("mobile, 0.4 to 3 Mbit/s", steps, 60_000)


def recorded(path: Path) -> LinkTrace:
    """A Mahimahi trace, as the bandwidth of every 50 ms of it."""
    deliveries_ms = np.array(read_trace(path))
    bins = np.bincount(deliveries_ms // 50)
    steps = [(50.0 * index, float(count) * PACKET_BYTES * 8 * 20) for index, count in enumerate(bins)]
    return LinkTrace(path.name, steps, 50.0 * len(steps))


def controllers(budget_ms: float) -> dict[str, Callable[[], RateController]]:
    """A row of the table each."""
    rows: dict[str, Callable[[], RateController]] = {
        "AccMPEG": lambda: DelayRate(800_000, budget_ms=budget_ms)
    }
    for newest_wins, suffix in ((False, ""), (True, ", newest wins")):
        shared: dict[str, Any] = {"budget_ms": budget_ms, "newest_wins": newest_wins}
        rows[f"AIMD{suffix}"] = functools.partial(AimdRate, 800_000, **shared)
        for bitrate_bps in (400_000, 1_000_000):
            rows[f"fixed {bitrate_bps / 1e6:g} Mbit/s{suffix}"] = functools.partial(
                FixedRate, bitrate_bps, **shared
            )
    return rows


def main(
    budget_ms: Annotated[float, typer.Option(help="Delay budget, capture to arrival.")] = 300.0,
    seeds: Annotated[int, typer.Option(help="Runs of each, with other frame sizes.")] = 5,
    trace: Annotated[list[Path] | None, typer.Option(help="A recorded link too; may repeat.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Print p95 delay, longest stall, use of the link and frames left out, for each link and controller."""
    console = Console()
    figures = []
    fixed_links = [STEPS, OUTAGE, *map(recorded, trace or [])]
    links = [mobile, *(lambda _seed, link=link: link for link in fixed_links)]
    for trace_of in links:
        table = Table(
            "controller", "p95 ms, settled", "p95 ms", "longest stall ms", "link used", "left out", box=None
        )
        for name, make in controllers(budget_ms).items():
            runs = [simulate(make(), trace_of(seed), seed=seed) for seed in range(seeds)]
            row = {
                "link": runs[0].trace.name,
                "controller": name,
                "settled_p95_ms": float(np.median([run.settled_p95_ms() for run in runs])),
                "p95_ms": float(np.median([run.p95_ms() for run in runs])),
                "longest_stall_ms": max(run.longest_stall_ms() for run in runs),
                "used_share": float(np.median([run.used_share() for run in runs])),
                "left_out_share": float(
                    np.median([(run.skipped + run.flushed) / run.frames for run in runs])
                ),
            }
            figures.append(row)
            table.add_row(
                name,
                f"{row['settled_p95_ms']:.0f}" if len(runs[0].trace.steps) < 20 else "–",
                f"{row['p95_ms']:.0f}",
                f"{row['longest_stall_ms']:.0f}",
                f"{row['used_share']:.0%}",
                f"{row['left_out_share']:.1%}",
            )
        console.print(f"\n{figures[-1]['link']} (budget {budget_ms:g} ms)")
        console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
