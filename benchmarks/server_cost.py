"""What a camera costs its server: CPU of a connection and of a frame, memory, bytes both ways.

    python benchmarks/server_cost.py [--json results/server-cost.json]

Real servers and real sockets. Costs are CPU seconds of the server's process, which other work on the machine
hardly changes, where wall time would be that work's. Decoding and inference are also measured alone, in this
process; what the server needs beyond them (messages, scaling excepted, order, publishing) is the rest. For
that measurement it runs the detector on a picture of 64x64, so that the DNN hides nothing. `loop` is the part
of the event loop's one thread, which no further core makes quicker.

The guide's page on sizing and `benchmarks/fleet_simulation.py` read what this writes.
"""

import asyncio
import contextlib
import json
import ssl
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from av import VideoFrame
from rich.console import Console
from rich.table import Table
from websockets.sync.client import connect

from accmpeg.demo import assets_path
from accmpeg.dnn.base import load_dnn
from accmpeg.options import parse_bitrate, parse_size
from accmpeg.protocol import wire
from accmpeg.server.decoding import ReceivedUnit, StreamDecoder
from accmpeg.tasks.result_json import to_json
from live_balancer import Balancer
from live_options import Frames, JsonFile, Work
from live_programs import Program, SceneFile, machine, start_server
from live_replay import Recording, encoded, replay

STREAMS = (("640x360", "250k"), ("640x360", "500k"), ("1280x720", "500k"), ("1280x720", "1500k"))
"""Sizes and bitrates."""
SIDES_PX = (64, 320, 640)
"""The detector is priced on pictures of these sides: 640 is its own, 64 costs next to nothing."""
FRAME_RATE = 10
SETTLE_S = 2.0
TRIES = 5
FEW, MANY = 2, 10
"""Cameras: memory is the difference."""


def detector_card(folder: Path, side_px: int) -> Path:
    """The demo's detector on pictures of this side, in a folder of its own in `folder`."""
    folder = folder / f"detector-{side_px}"
    folder.mkdir(exist_ok=True)
    (folder / "detector.onnx").write_bytes((assets_path() / "detector.onnx").read_bytes())
    text = (assets_path() / "detector.card.toml").read_text()
    card = folder / "detector.card.toml"
    card.write_text(text.replace("_px = 640", f"_px = {side_px}"))
    return card


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key, of the kind that most authorities give (P-256)."""
    made = folder / "server.pem", folder / "server.key"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    options += f" -addext subjectAltName=IP:127.0.0.1 -out {made[0]} -keyout {made[1]}"
    subprocess.run(["openssl", *options.split()], check=True, capture_output=True)
    return made


def connect_once(url: str, recording: Recording, *, frame: bool, trust: Path | None) -> None:
    """A handshake up to the welcome and, with `frame`, a keyframe up to its result; then the goodbye."""
    name = uuid.uuid4().hex[:16]
    hello = wire.Hello(
        camera=name,
        stream_id=name,
        codec="h264",
        width_px=recording.width_px,
        height_px=recording.height_px,
        source_width_px=recording.width_px,
        source_height_px=recording.height_px,
        frame_rate=FRAME_RATE,
        time_base=(1, FRAME_RATE),
    )
    context = ssl.create_default_context(cafile=trust) if trust else None
    with connect(
        f"{url}/v1/stream",
        ssl=context,
        open_timeout=60,
        compression=None,
        subprotocols=[wire.SUBPROTOCOL],  # type: ignore[list-item]
    ) as socket:

        def wait_for(kind: type[wire.Message]) -> None:
            while not isinstance(message := wire.unpack(socket.recv(60, decode=False)).message, kind):
                if isinstance(message, wire.Refused):
                    raise RuntimeError(f"refused: {message.reason}")

        socket.send(wire.pack(hello, recording.parameter_sets))
        wait_for(wire.Welcome)
        if frame:
            now_us = time.time_ns() // 1000
            unit = wire.AccessUnitMessage(
                sequence=0, pts=0, is_keyframe=True, captured_us=now_us, encoded_us=now_us
            )
            socket.send(wire.pack(unit, recording.units[0].data))
            wait_for(wire.ResultMessage)
        socket.send(wire.pack(wire.Goodbye(reason="measured")))
        with contextlib.suppress(Exception):
            while True:
                socket.recv(timeout=5)


def connections_ms(
    server: Program, url: str, recording: Recording, count: int, *, frame: bool, trust: Path | None = None
) -> dict[str, float]:
    """CPU of the server for one of so many connections, idling taken off; `loop`: of the event loop."""
    connect_once(url, recording, frame=frame, trust=trust)
    before, started_s = (server.cpu_s(), server.main_cpu_s()), time.perf_counter()
    for _ in range(count):
        connect_once(url, recording, frame=frame, trust=trust)
    used = server.cpu_s() - before[0], server.main_cpu_s() - before[1]
    lasted_s = time.perf_counter() - started_s
    before = server.cpu_s(), server.main_cpu_s()
    time.sleep(SETTLE_S)
    idle = server.cpu_s() - before[0], server.main_cpu_s() - before[1]
    cpu, loop = (1000 * (u - i * lasted_s / SETTLE_S) / count for u, i in zip(used, idle, strict=True))
    return {"cpu_ms": cpu, "loop_ms": loop}


def cpu_ms(once: Callable[[], int], seconds: float) -> float:
    """CPU of this process for each thing that `once` says it has done; the middle one of five tries."""
    once()
    found = []
    for _ in range(TRIES):
        started_s, done = time.process_time(), 0
        while (used_s := time.process_time() - started_s) < seconds / TRIES:
            done += once()
        found.append(1000 * used_s / done)
    return statistics.median(found)


@dataclass(frozen=True)
class Footage:
    """One stream, coded, and its decoder in this process."""

    size: str
    recording: Recording

    def decode(self) -> list[VideoFrame]:
        """All of it, as the server decodes it."""
        size_px = self.recording.width_px, self.recording.height_px
        decoder = StreamDecoder("h264", self.recording.parameter_sets, size_px)
        frames = []
        for index, unit in enumerate(self.recording.units):
            frames += decoder.decode(ReceivedUnit(index, unit.data, unit.is_keyframe, size_px))
        frames += decoder.flush()
        decoder.close()
        return frames


def infer_ms(frames: list[VideoFrame], card: Path, batch: int, seconds: float) -> float:
    """CPU per frame of scaling, DNN, boxes and JSON, on one thread."""
    dnn = load_dnn(card, threads=1)
    described = dnn.card

    def once() -> int:
        for result in dnn.infer_many(frames[:batch], sure_only=True):
            told = to_json(
                result,
                task=described.task,
                classes=described.classes,
                score_threshold=described.score_threshold,
            )
            json.dumps(told)
        return batch

    return cpu_ms(once, seconds)


async def streaming(server: Program, address: str, footage: Footage, seconds: float) -> dict[str, float]:
    """Memory with few and with many cameras; CPU and bytes per frame of the many."""
    recording = footage.recording

    async def run(balancer: Balancer, names: list[str], lasting_s: float) -> Any:
        sending = [
            asyncio.create_task(
                replay(
                    recording,
                    balancer.address,
                    seconds=lasting_s,
                    name=name,
                    first_after_s=i / 10 / len(names),
                )
            )
            for i, name in enumerate(names)
        ]
        await asyncio.sleep(SETTLE_S)
        before = server.cpu_s(), server.main_cpu_s(), balancer.up_bytes, balancer.down_bytes
        started_s = time.perf_counter()
        await asyncio.sleep(lasting_s - SETTLE_S - 1)
        after = server.cpu_s(), server.main_cpu_s(), balancer.up_bytes, balancer.down_bytes
        taken_s = time.perf_counter() - started_s
        rss = server.rss_bytes()
        counts = [counts for _, counts, _ in await asyncio.gather(*sending)]
        frames = len(names) * FRAME_RATE * taken_s
        lost = sum(each["dropped_server"] for each in counts)
        return rss, [(b - a) / frames for a, b in zip(before, after, strict=True)], lost

    async with Balancer([address]) as balancer:
        few, _, _ = await run(balancer, [f"few{i}" for i in range(FEW)], SETTLE_S + 3)
        many, (cpu_s, loop_s, up, down), lost = await run(
            balancer, [f"many{i}" for i in range(MANY)], SETTLE_S + 1 + seconds
        )
    return {
        "coded_bps": recording.bitrate_bps,
        "up_bps": up * FRAME_RATE * 8,
        "down_bps": down * FRAME_RATE * 8,
        "keyframe_bytes": recording.units[0].size_bytes,
        "camera_mib": (many - few) / (MANY - FEW) / 2**20,
        "cpu_ms": 1000 * cpu_s,
        "loop_ms": 1000 * loop_s,
        "lost": lost,
    }


def measured(folder: Path, frames: int, seconds: float, count: int, console: Console) -> dict[str, Any]:
    """Everything, as the JSON document holds it."""
    cards = {side_px: detector_card(folder, side_px) for side_px in SIDES_PX}
    scenes = {
        size: SceneFile(folder, *parse_size(size), FRAME_RATE, frames) for size in {s for s, _ in STREAMS}
    }
    footage = [
        Footage(size, encoded(scenes[size], bitrate_bps=parse_bitrate(bitrate))) for size, bitrate in STREAMS
    ]
    document: dict[str, Any] = {"machine": machine(), "frame_rate": FRAME_RATE, "connection": {}}
    for tls in (False, True):
        pem, key = certificate(folder)
        options = ["--tls-certificate", str(pem), "--tls-key", str(key)] if tls else []
        server, address = start_server(folder, *options, results=False)
        url, trust = (f"wss://{address}", pem) if tls else (f"ws://{address}", None)
        with server:
            recording = footage[0].recording
            for frame in (False, True):
                name = f"{'tls' if tls else 'plain'}{', first result' if frame else ''}"
                found = connections_ms(server, url, recording, count, frame=frame, trust=trust)
                document["connection"][name] = found
                console.print(
                    f"connection, {name}: {found['cpu_ms']:.1f} ms, event loop {found['loop_ms']:.1f}"
                )
    streams = document["streams"] = []
    for each in footage:
        server, address = start_server(folder, "--dnn", str(cards[SIDES_PX[0]]), results=False)
        with server:
            found = asyncio.run(streaming(server, address, each, seconds))
        streams.append({"size": each.size, **found})
    infer = document["infer_ms"] = {}
    for each, stream in zip(footage, streams, strict=True):
        frames_of = each.decode()
        if each.size not in infer:
            infer[each.size] = {
                str(side_px): {str(batch): infer_ms(frames_of, card, batch, 1.0) for batch in (1, 8)}
                for side_px, card in cards.items()
            }
        stream["decode_ms"] = cpu_ms(lambda each=each: len(each.decode()), 1.0)  # type: ignore[misc]
        hidden_ms = stream["decode_ms"] + infer[each.size][str(SIDES_PX[0])]["1"]
        stream["rest_ms"] = stream["cpu_ms"] - hidden_ms
    return document


def show(document: dict[str, Any], console: Console) -> None:
    """The document as tables."""
    names = ("size", "kbit/s coded", "up", "down", "MiB per camera", "CPU ms per frame", "decode", "rest")
    table = Table(*names, "event loop", "left out", box=None)
    for each in document["streams"]:
        table.add_row(
            each["size"],
            *(f"{each[name] / 1000:.0f}" for name in ("coded_bps", "up_bps", "down_bps")),
            *(f"{each[name]:.2f}" for name in ("camera_mib", "cpu_ms", "decode_ms", "rest_ms", "loop_ms")),
            str(each["lost"]),
        )
    console.print(table)
    sides = [f"{side_px} px, batch {batch}" for side_px in SIDES_PX for batch in (1, 8)]
    alone = Table("detector, CPU ms per frame", *sides, box=None)
    for size, by_side in document["infer_ms"].items():
        alone.add_row(size, *(f"{ms:.2f}" for by_batch in by_side.values() for ms in by_batch.values()))
    console.print(alone)


def main(
    frames: Frames = 40,
    seconds: Annotated[float, typer.Option(help="Measured time of each stream.")] = 6.0,
    connections: Annotated[int, typer.Option(help="Connections of each kind.")] = 40,
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print what connections, frames and connected cameras cost a server."""
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        document = measured(folder, frames, seconds, connections, console)
    show(document, console)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
