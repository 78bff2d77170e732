"""Delay from capture to result on one machine: real server, real camera, the demo's detector.

    python benchmarks/live_delay.py [--seconds 60] [--size 1280x720] [--frame-rate 30] [--json F]

Where camera and server share two cores, `--server-option=--threads=1` leaves one of them to the camera.
Both programs run as processes and talk over loopback. The bound is that of the stages of the same run:
p95 of the delay ≤ p95 encode + p95 decode + p95 inference + 15 ms. Stricter, and also shown: what each frame
took beyond its own encoding, decoding and inference. Encoding includes the AccModel and its policy.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from accmpeg.options import parse_size
from live_options import CameraOptions, FrameRate, Frames, JsonFile, ServerOptions, Size, Work
from live_programs import (
    Program,
    SceneFile,
    busy_s,
    by_stage,
    camera_arguments,
    lines,
    lost_frames,
    machine,
    percentiles,
    stage_table,
    start_camera,
    start_server,
)

ALLOWANCE_MS = 15.0
FIRST_RESULT_S = 5.0


def first_result_s(camera: Program, timeout_s: float = 120.0) -> float:
    """Seconds from starting the camera's process until its first result, by the camera's clock."""
    deadline_s = time.monotonic() + timeout_s
    while not (results := lines(camera.output)):
        camera.check()
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"no result in {timeout_s:.0f} s: {camera.log.read_text()[-2000:]}")
        time.sleep(0.02)
    return float(results[0]["received_us"] - camera.started_us) / 1e6


def measure(
    folder: Path,
    scene: SceneFile,
    seconds: float,
    warm_up_s: float,
    camera_options: list[str],
    server_options: list[str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of one run, and its frames after the warm-up."""
    server, address = start_server(folder, *server_options)
    with server:
        with start_camera(folder, address, "scene", "--loop", name="scene-camera") as camera:
            from_scene_s = first_result_s(camera)
        camera = start_camera(folder, address, *camera_arguments(scene), "--b-frames=0", *camera_options)
        with camera:
            from_file_s = first_result_s(camera)
            time.sleep(warm_up_s)
            begun_us, begun_s = time.time_ns() // 1000, time.monotonic()
            before = camera.cpu_s(), server.cpu_s(), busy_s()
            time.sleep(seconds)
            camera.check()
            server.check()
            lasted_s = time.monotonic() - begun_s
            cpu = camera.cpu_s() - before[0], server.cpu_s() - before[1], busy_s() - before[2]
            ended_us = time.time_ns() // 1000
        counts = camera.last("camera ended")
    rows = [
        row
        for row in by_stage(camera.output, folder / "server-results.jsonl")
        if begun_us <= row["captured_us"] <= ended_us
    ]
    answered = [row for row in rows if row["result"] is not None]
    if not answered:
        raise RuntimeError(f"no results: {camera.log.read_text()[-2000:]}")
    figures = {
        "first_result_s": {"scene": from_scene_s, "file": from_file_s},
        "frames": len(rows),
        "results_per_s": len(answered) / lasted_s,
        "lost": lost_frames(counts),
        "captured": counts["captured"],
        "target_bps": counts["target_bps"],
        "camera_core_share": cpu[0] / lasted_s,
        "server_core_share": cpu[1] / lasted_s,
        "others_core_share": (cpu[2] - cpu[0] - cpu[1]) / lasted_s,
    }
    return figures, answered


def bounds(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The bound by p95s, the one by medians, and what frames took beyond their own three stages."""
    parts = ("encode", "decode", "infer")
    of = [percentiles(row["stages"][part] for row in rows) for part in parts]
    beyond = [row["delay"] - sum(row["stages"][part] for part in parts) for row in rows]
    return {
        "delay_p95_ms": percentiles(row["delay"] for row in rows)[1],
        "bound_p95_ms": sum(each[1] for each in of) + ALLOWANCE_MS,
        "bound_p50_ms": sum(each[0] for each in of) + ALLOWANCE_MS,
        "beyond_p95_ms": percentiles(beyond)[1],
    }


def main(
    seconds: Annotated[float, typer.Option(help="Measured time.")] = 60.0,
    warm_up_s: Annotated[float, typer.Option(help="Time before it, not measured.")] = 5.0,
    size: Size = "1280x720",
    frame_rate: FrameRate = 30,
    frames: Frames = 150,
    camera_option: CameraOptions = None,
    server_option: ServerOptions = None,
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print delays by stage, the bound, the time to the first result, lost frames and CPU."""
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = SceneFile(folder, *parse_size(size), frame_rate, frames)
        figures, rows = measure(folder, scene, seconds, warm_up_s, camera_option or [], server_option or [])
    table, stages = stage_table(rows)
    bound = bounds(rows)
    console.print(f"{size}, {frame_rate} frames/s, {figures['frames']} frames; {machine()}")
    console.print(table)
    verdict = "kept" if bound["delay_p95_ms"] <= bound["bound_p95_ms"] else "NOT kept"
    console.print(
        f"bound: p95 {bound['delay_p95_ms']:.1f} ms ≤ p95 of encode + decode + infer + {ALLOWANCE_MS:g} ms = "
        f"{bound['bound_p95_ms']:.1f} ms: {verdict} (the same with medians: {bound['bound_p50_ms']:.1f} ms)"
    )
    console.print(
        f"beyond its own encode, decode and infer a frame took {bound['beyond_p95_ms']:.1f} ms at p95"
    )
    first = figures["first_result_s"]
    console.print(
        f"first result {first['scene']:.1f} s after starting `accmpeg stream scene`, {first['file']:.1f} s "
        f"from the file (target {FIRST_RESULT_S:g} s)"
    )
    console.print(
        f"lost frames: {figures['lost'] or 0} of {figures['captured']}; "
        f"{figures['results_per_s']:.1f} results/s"
    )
    console.print(
        f"CPU of one core: camera {figures['camera_core_share']:.0%}, "
        f"server {figures['server_core_share']:.0%}, everything else on the machine "
        f"{figures['others_core_share']:.0%}; target bitrate {figures['target_bps'] / 1e6:.2f} Mbit/s"
    )
    if json_file is not None:
        document = {**figures, **bound, "stages_ms_p50_p95_p99": stages, "machine": machine()}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
