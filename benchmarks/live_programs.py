"""What the live benchmarks share: the scene as a file, both programs as processes, delays by stage.

Drawing the embedded scene would cost the camera a core that a real camera does not spend. So it is drawn
once, into an uncompressed file, and streamed from there; reading that costs about a millisecond per frame.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import psutil
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from accmpeg.demo import DEMO_SEED
from accmpeg.demo.scene import SceneSource, SceneSpec

__all__ = [
    "CAMERA_STAGES",
    "STAGES",
    "Program",
    "SceneFile",
    "accmodel",
    "busy_s",
    "by_stage",
    "camera_arguments",
    "lines",
    "lost_frames",
    "machine",
    "percentiles",
    "scrape",
    "stage_table",
    "start_camera",
    "start_server",
    "total",
]

CAMERA_STAGES = ("capture wait", "encode")
STAGES = (*CAMERA_STAGES, "wire", "server wait", "decode", "queue", "infer", "server rest", "back")
"""In this order they make up the time from capture to result."""

_START_TIMEOUT_S = 120.0


class SceneFile:
    """The embedded scene, drawn into `folder` as uncompressed video (y4m) unless it is there already.

    The file plays `frames` drawn frames forwards and then backwards, so that it can be looped without a cut.
    """

    def __init__(self, folder: Path, width_px: int, height_px: int, frame_rate: int, frames: int) -> None:
        self.width_px, self.height_px, self.frame_rate, self.frames = width_px, height_px, frame_rate, frames
        self.path = folder / f"scene-{width_px}x{height_px}-{frame_rate}-{frames}.y4m"
        if not self.path.exists():
            self._draw()

    @property
    def period(self) -> int:
        """Frames of the file."""
        return max(1, 2 * self.frames - 2)

    def drawn_index(self, count: int) -> int:
        """Which drawn frame the `count`-th frame of the looped file shows."""
        place = count % self.period
        return place if place < self.frames else self.period - place

    def _planes(self) -> NDArray[np.uint8]:
        shape = (self.frames, self.height_px * 3 // 2, self.width_px)
        spec = SceneSpec(DEMO_SEED, self.width_px, self.height_px, Fraction(self.frame_rate), self.frames)
        source = SceneSource(spec)
        planes = np.empty(shape, np.uint8)
        for index in track(range(self.frames), "drawing the scene", transient=True):
            planes[index] = source.yuv420p(index)
        return planes

    def _draw(self) -> None:
        planes = self._planes()
        part = self.path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(
                f"YUV4MPEG2 W{self.width_px} H{self.height_px} F{self.frame_rate}:1 Ip A1:1 C420\n".encode()
            )
            for count in range(self.period):
                file.write(b"FRAME\n")
                file.write(planes[self.drawn_index(count)].tobytes())
        part.rename(self.path)

    def drawn_frames(self) -> Iterator[av.VideoFrame]:
        """The drawn frames, once each."""
        with av.open(str(self.path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index == self.frames:
                    return
                yield frame


class Program:
    """One `accmpeg` command as a process; its output and its log (JSON lines) are files in `folder`."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str]) -> None:
        self.name = name
        # Who is told to end must not leave the programs behind: this unwinds the `with` around them.
        signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))
        self.output, self.log = folder / f"{name}.out", folder / f"{name}.log"
        self.started_us = time.time_ns() // 1000
        with self.output.open("w") as output, self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "accmpeg", *arguments, "--log-format", "json"],
                stdout=output,
                stderr=log,
            )
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raises RuntimeError, with the end of its log, where the program has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal: SIGKILL is what a crash is to it, SIGSTOP what a node is that falls silent."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, which both programs answer by ending in good order."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_s(self) -> float:
        """CPU time that it has used."""
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    def main_cpu_s(self) -> float:
        """CPU time of its main thread, which is a server's event loop."""
        (main,) = (each for each in self._seen.threads() if each.id == self._seen.pid)
        return float(main.user_time + main.system_time)

    def rss_bytes(self) -> int:
        """Memory that it holds."""
        return int(self._seen.memory_info().rss)

    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def last(self, *events: str) -> dict[str, Any]:
        """The last record of one of these kinds; empty if there is none."""
        return next((each for each in reversed(self.events()) if each["event"] in events), {})


def start_server(folder: Path, *arguments: str, results: bool = True) -> tuple[Program, str]:
    """`accmpeg serve` on a free port, ready, and its address without the scheme.

    `results`: whether it writes them to `server-results.jsonl`, which a long run would fill a disk with.
    """
    file = folder / "server-results.jsonl"
    file.unlink(missing_ok=True)
    kept = ["--results", str(file)] if results else []
    server = Program("server", folder, ["serve", "--port", "0", *kept, *arguments])
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    try:
        while (found := re.search(r'"url": "https?://([^"]+)"', server.log.read_text())) is None:
            server.check()
            if time.monotonic() > deadline_s:
                raise RuntimeError("the server did not start in time")
            time.sleep(0.02)
    except BaseException:
        server.stop()
        raise
    return server, found.group(1)


def accmodel() -> Path:
    """The AccModel of the scene."""
    from accmpeg.demo import assets_path

    return assets_path() / "accmodel.card.toml"


def camera_arguments(scene: SceneFile, *, steered: bool = True) -> list[str]:
    """What `accmpeg stream` is told to stream this file for ever."""
    steering = ["--accmodel", str(accmodel())] if steered else ["--policy", "none"]
    return [str(scene.path), "--loop", *steering]


def start_camera(folder: Path, address: str, *arguments: str, name: str = "camera") -> Program:
    """`accmpeg stream`; its results are its output, a JSON line each."""
    return Program(name, folder, ["stream", *arguments, "--to", f"ws://{address}"])


def lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def by_stage(camera_results: Path, server_results: Path) -> list[dict[str, Any]]:
    """Every frame that both sides saw: `captured_us`, `stages` and `delay` in ms, `arrival` (capture to the
    server) in ms, `pts`, `result`, `dropped`.

    Both processes run on one machine, whose monotonic clock carries the clock of each; what the system's
    clock was adjusted by between their starts goes into "wire" with one sign and into "back" with the other.
    """
    known = {(each["stream_id"], each["sequence"]): each for each in lines(server_results)}
    rows = []
    for got in lines(camera_results):
        event = known.get((got["stream_id"], got["sequence"]))
        if event is None:
            continue
        on_camera, on_server = got["camera_ms"], got["server_ms"]
        arrival_ms = (event["received_us"] - got["captured_us"]) / 1000
        inside = [on_server.get(stage, 0.0) for stage in ("wait", "decode", "queue", "infer")]
        capture_ms, encode_ms = on_camera.get("wait", 0.0), on_camera.get("encode_wall", 0.0)
        total_ms = on_server["total"]
        stages = (
            capture_ms,
            encode_ms,
            arrival_ms - capture_ms - encode_ms,
            *inside,
            total_ms - sum(inside),
            got["delay_ms"] - arrival_ms - total_ms,
        )
        rows.append(
            {
                **{key: got[key] for key in ("captured_us", "received_us", "pts", "result", "dropped")},
                "arrived_us": event["received_us"],
                "arrival": arrival_ms,
                "delay": got["delay_ms"],
                "stages": dict(zip(STAGES, stages, strict=True)),
            }
        )
    return rows


def percentiles(values: Iterable[float]) -> tuple[float, float, float]:
    """50th, 95th and 99th."""
    p50, p95, p99 = np.percentile(list(values), (50, 95, 99))
    return float(p50), float(p95), float(p99)


def stage_table(rows: list[dict[str, Any]]) -> tuple[Table, dict[str, tuple[float, float, float]]]:
    """Percentiles of each stage and of the whole, as a table and as numbers."""
    found = {stage: percentiles(row["stages"][stage] for row in rows) for stage in STAGES}
    found["capture to result"] = percentiles(row["delay"] for row in rows)
    table = Table("ms", "p50", "p95", "p99", box=None)
    for stage, values in found.items():
        table.add_row(stage, *(f"{value:.1f}" for value in values))
    return table, found


def lost_frames(counts: dict[str, Any]) -> dict[str, int]:
    """Frames left out, by reason, from a camera's statistics.

    Frames captured before the very first connection are not lost to anything: there was nobody to see them.
    """
    lost = {key.removeprefix("dropped_"): int(counts[key]) for key in counts if key.startswith("dropped_")}
    if counts.get("connections") == 1:
        lost.pop("offline", None)
    return {reason: count for reason, count in lost.items() if count}


def scrape(address: str) -> list[tuple[str, dict[str, str], float]]:
    """Names, labels and values of the server's `/metrics`."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), float(value))
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    ]


def total(scraped: list[tuple[str, dict[str, str], float]], name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels."""
    return sum(
        value
        for found, said, value in scraped
        if found == name and all(said.get(key) == wanted for key, wanted in labels.items())
    )


def busy_s() -> float:
    """CPU time that this machine has given to anybody, or that its host has taken from it."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def machine() -> str:
    """What else runs: figures of a loaded machine are no figures."""
    return f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
