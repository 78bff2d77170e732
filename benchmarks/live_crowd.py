"""Ten real cameras and a server that can answer 65 frames a second: how many frames go there for nothing.

    python benchmarks/live_crowd.py [--cameras 10] [--answers-per-second 65] [--seconds 60] [--json F]

The server is a process of its own. Its DNN finds nothing and takes a stated time for each frame, asleep, so
that a small machine has the rest of its time for the cameras. Those are real ones (capture, encoder, uplink),
threads of this process, each at `--frame-rate`. Counted are frames from the cameras' own statistics, after
the warm-up, in which the server finds out what it can do.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import accmpeg
from accmpeg.options import parse_size
from live_options import Frames, JsonFile, Work
from live_programs import Program, SceneFile, machine, percentiles, start_server

MOST_SENT = 1.05

CARD = """
name = "asleep"
task = "detection"
adapter = "callable"
model = "live_crowd:Asleep"
classes = ["thing"]
nms_iou = 0.5
[input]
name = "pictures"
width_px = 64
height_px = 64
[head]
name = "boxes"
outputs = ["boxes", "scores"]
[options]
frame_s = {frame_s}
"""


class Asleep:
    """Takes `frame_s` for each frame of a batch, and finds nothing."""

    max_batch = None

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._done_s = 0.0

    def run(self, batch: Any) -> list[Any]:
        """By the clock, because a busy machine sleeps longer than it was told."""
        import numpy as np

        begun_s = max(time.perf_counter() - 2 * self._frame_s, self._done_s)
        self._done_s = begun_s + self._frame_s * len(batch)
        time.sleep(max(0.0, self._done_s - time.perf_counter()))
        return [np.zeros((len(batch), 0, 4), np.float32), np.zeros((len(batch), 0, 1), np.float32)]


def counted(cameras: list[accmpeg.Camera]) -> list[dict[str, int]]:
    """What each has sent so far, and what of it came back with a result."""
    found = []
    for each in cameras:
        counts = each.snapshot()
        answered = counts.get("results", 0) - counts.get("dropped_server", 0)
        found.append(
            {"sent": counts.get("sent", 0), "answered": answered, "captured": counts.get("captured", 0)}
        )
    return found


def main(
    cameras: Annotated[int, typer.Option(help="How many.")] = 10,
    answers_per_second: Annotated[float, typer.Option(help="What the DNN can do.")] = 65.0,
    seconds: Annotated[float, typer.Option(help="Measured time.")] = 60.0,
    warm_up_s: Annotated[float, typer.Option(help="Time before it, not measured.")] = 15.0,
    size: Annotated[str, typer.Option(help="Size of every stream.")] = "320x180",
    frame_rate: Annotated[int, typer.Option(help="Frames per second of every camera.")] = 10,
    frames: Frames = 60,
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print frames sent for each that was answered, by camera and in all, and delays."""
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = SceneFile(folder, *parse_size(size), frame_rate, frames)
        card = folder / "asleep.card.toml"
        card.write_text(CARD.format(frame_s=1 / answers_per_second))
        # The server's process finds the DNN in this file.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        server: Program
        server, address = start_server(folder, "--dnn", str(card), "--copies", "1", results=False)
        stack.enter_context(server)
        running = []
        for number in range(cameras):
            # Apart, as the cameras of a real site are.
            time.sleep(1 / (cameras * frame_rate))
            camera = accmpeg.stream(
                scene.path, f"ws://{address}", name=f"camera{number}", policy="none", loop=True
            )
            running.append(stack.enter_context(camera))
        time.sleep(warm_up_s)
        before, begun_s = counted(running), time.perf_counter()
        time.sleep(seconds)
        after, lasted_s = counted(running), time.perf_counter() - begun_s
        delays = [
            snapshot["delay_p95_ms"] for each in running if "delay_p95_ms" in (snapshot := each.snapshot())
        ]
    each = [
        {key: (later[key] - earlier[key]) / lasted_s for key in earlier}
        for earlier, later in zip(before, after, strict=True)
    ]
    figures = {key: sum(one[key] for one in each) for key in ("captured", "sent", "answered")}
    answered = [one["answered"] for one in each]
    ratio = figures["sent"] / max(1e-9, figures["answered"])
    console.print(f"{cameras} cameras, {answers_per_second:g} answers/s at most; {machine()}")
    console.print(
        f"captured {figures['captured']:.1f}/s, sent {figures['sent']:.1f}/s, answered "
        f"{figures['answered']:.1f}/s: {ratio - 1:+.1%} sent beyond what is answered (target: at most "
        f"{MOST_SENT - 1:+.0%})"
    )
    console.print(
        f"answered by camera: {min(answered):.1f} to {max(answered):.1f}/s; p95 of the delay, median over "
        f"cameras: {percentiles(delays)[0]:.0f} ms"
    )
    if json_file is not None:
        json_file.write_text(json.dumps({**figures, "by_camera": each, "p95_ms": delays}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
