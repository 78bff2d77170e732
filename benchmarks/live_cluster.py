"""Small clusters with real servers and sockets: what a simulation of large ones must get right.

    python benchmarks/live_cluster.py [--only loads] [--json results/small-cluster.json]

One server with cameras below what it can do, and with so many frames that it is saturated. Two servers behind
a TCP balancer, of which one is killed (its connections are reset) or falls silent (SIGSTOP; the balancer's
health check is taken to have found it at once). And very many handshakes at once. Cameras
are replayed access units through the real client, with its own time-outs and backoff. The detector reads
pictures of 320x320, so that two shared cores can be kept below their limit.
"""

import asyncio
import json
import signal
import ssl
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from accmpeg.options import parse_bitrate, parse_size
from accmpeg.protocol import wire
from live_balancer import Balancer
from live_options import Frames, JsonFile, Work
from live_programs import Program, SceneFile, machine, start_server
from live_replay import Recording, encoded, replay
from server_cost import certificate, detector_card


class Part(StrEnum):
    LOADS = "loads"
    BURST = "burst"
    KILLED = "killed"
    SILENT = "silent"


SIDE_PX = 320
WARM_UP_S = 4.0
ON_ITS_WAY_US = 300_000
"""A result that comes so soon after the loss was sent before it: the first wait alone is half a second."""


async def running_threads(seconds: float = 2.0) -> float:
    """Threads of the whole machine that run or want to, this one left out; a mean over time."""
    found = []
    for _ in range(int(seconds / 0.02)):
        stat = Path("/proc/stat").read_text()
        found.append(int(stat.partition("procs_running ")[2].split()[0]) - 1)
        await asyncio.sleep(0.02)
    return float(np.mean(found))


async def load(
    server: Program, address: str, recording: Recording, cameras: int, rate: float, seconds: float
) -> dict[str, Any]:
    """Figures of one server under the frames of so many cameras, after a warm-up.

    `cores`: what the server used; `others`: threads that wanted the same cores meanwhile, the cameras' too.
    """
    others = [await running_threads()]
    sending = [
        asyncio.create_task(
            replay(
                recording,
                address,
                seconds=WARM_UP_S + seconds + 1,
                name=f"camera{index}-{rate:g}",
                frame_rate=rate,
                first_after_s=index / (cameras * rate),
            )
        )
        for index in range(cameras)
    ]
    await asyncio.sleep(WARM_UP_S)
    started_us, cpu_s, own_s = time.time_ns() // 1000, server.cpu_s(), time.process_time()
    await asyncio.sleep(seconds)
    ended_us, cpu_s = time.time_ns() // 1000, server.cpu_s() - cpu_s
    own_s = time.process_time() - own_s
    answers = [
        [each for each in results if started_us <= clock.utc_us(each.received_us) < ended_us]
        for results, _, clock in await asyncio.gather(*sending)
    ]
    others.append(await running_threads())
    lasted_s = (ended_us - started_us) / 1e6
    done = [each.server_ms["total"] for one in answers for each in one if each.dropped is None]
    by_camera = [sum(each.dropped is None for each in one) / lasted_s for one in answers]
    return {
        "cameras": cameras,
        "rate": rate,
        "results_per_s": len(done) / lasted_s,
        "left_out": 1 - len(done) / max(1, sum(map(len, answers))),
        "fairness": min(by_camera) / max(1e-9, float(np.mean(by_camera))),
        "server_ms_p50": float(np.percentile(done, 50)),
        "server_ms_p95": float(np.percentile(done, 95)),
        "cores": cpu_s / lasted_s,
        "others": float(np.mean(others)) + own_s / lasted_s,
    }


async def loss(
    servers: list[tuple[Program, str]],
    recording: Recording,
    cameras: int,
    rate: float,
    number: signal.Signals,
    lasting_s: float,
) -> dict[str, Any]:
    """The first of two servers gets a signal: when its cameras have results again."""
    (victim, lost_address), _ = servers
    others = await running_threads()
    async with Balancer([address for _, address in servers]) as balancer:
        sending = [
            asyncio.create_task(
                replay(
                    recording,
                    balancer.address,
                    seconds=WARM_UP_S + lasting_s,
                    name=f"camera{index}-{number.name}",
                    frame_rate=rate,
                    first_after_s=index / (cameras * rate),
                )
            )
            for index in range(cameras)
        ]
        await asyncio.sleep(WARM_UP_S)
        there = dict(balancer.connections)
        balancer.take_out(lost_address)
        lost_us = time.time_ns() // 1000
        victim.send(number)
        found = await asyncio.gather(*sending)
    gaps_s = []
    for results, counts, clock in found:
        if counts["connections"] > 1:
            times_us = [clock.utc_us(each.received_us) for each in results if each.dropped is None]
            gaps_s.append((min(each for each in times_us if each > lost_us + ON_ITS_WAY_US) - lost_us) / 1e6)
    gaps_s.sort()
    return {
        "signal": number.name,
        "cameras": cameras,
        "rate": rate,
        "lost": there[lost_address],
        "others": others,
        "back": len(gaps_s),
        "back_s": gaps_s,
    }


async def burst(address: str, trust: Path, cameras: int) -> dict[str, Any]:
    """So many handshakes at once, each tried once: who is welcome, when, and who is cut off."""
    others = await running_threads()
    context = ssl.create_default_context(cafile=trust)
    begun_s = time.perf_counter()

    async def one(number: int) -> float | None:
        hello = wire.Hello(
            camera=f"burst{number}",
            stream_id=f"burst{number}",
            codec="h264",
            width_px=640,
            height_px=360,
            source_width_px=640,
            source_height_px=360,
            frame_rate=1,
            time_base=(1, 10),
        )
        try:
            async with connect(
                f"wss://{address}/v1/stream",
                ssl=context,
                compression=None,
                subprotocols=[wire.SUBPROTOCOL],  # type: ignore[list-item]
                open_timeout=60,
            ) as socket:
                await socket.send(wire.pack(hello))
                answer = wire.unpack(await socket.recv(decode=False)).message
                welcome_s = time.perf_counter() - begun_s
                await asyncio.sleep(WARM_UP_S)
                return welcome_s if isinstance(answer, wire.Welcome) else None
        except (OSError, WebSocketException):
            return None

    found = await asyncio.gather(*(one(number) for number in range(cameras)))
    welcomes_s = sorted(each for each in found if each is not None)
    return {
        "cameras": cameras,
        "cut": cameras - len(welcomes_s),
        "welcomes_s": welcomes_s,
        "others": others + 1,  # the other side of every handshake is this process
    }


def loss_of(
    number: signal.Signals, folder: Path, options: list[str], recording: Recording, lost: tuple[int, float]
) -> dict[str, Any]:
    """One of two new servers gets a signal."""
    parts = [folder / f"{number.name}-{index}" for index in range(2)]
    for part in parts:
        part.mkdir(exist_ok=True)
    servers = [start_server(part, *options, results=False) for part in parts]
    lasting_s = 8.0 if number == signal.SIGKILL else 24.0
    with servers[0][0], servers[1][0]:
        found = asyncio.run(loss(servers, recording, *lost, number, lasting_s))
        servers[0][0].send(signal.SIGKILL)
    return found


def show(found: dict[str, Any], console: Console) -> None:
    """All parts, as they were measured now or before."""
    console.print(f"detector on {SIDE_PX}x{SIDE_PX}, streams of {found['size']}; {found['machine']}")
    names = ("cameras", "frames/s each", "results/s", "left out", "slowest/mean", "server ms p50", "p95")
    table = Table(*names, "cores used", "others' threads", box=None)
    for each in found.get("loads", ()):
        table.add_row(
            str(each["cameras"]),
            f"{each['rate']:g}",
            f"{each['results_per_s']:.1f}",
            f"{each['left_out']:.0%}",
            f"{each['fairness']:.0%}",
            f"{each['server_ms_p50']:.1f}",
            f"{each['server_ms_p95']:.1f}",
            f"{each['cores']:.2f}",
            f"{each['others']:.1f}",
        )
    console.print(table)
    if "burst" in found:
        came = found["burst"]
        console.print(
            f"{came['cameras']} connections at once: {came['cut']} cut off, the others welcome within "
            f"{came['welcomes_s'][-1]:.2f} s"
        )
    for each in (found[part] for part in (Part.KILLED, Part.SILENT) if part in found):
        console.print(
            f"{each['signal']}: {each['back']} of {each['lost']} cameras had results again after "
            + ", ".join(f"{gap_s:.1f}" for gap_s in each["back_s"])
            + " s"
        )


def main(
    only: Annotated[list[Part] | None, typer.Option(help="What to measure; all if absent.")] = None,
    below: Annotated[tuple[int, float], typer.Option(help="Cameras, rate: below the limit.")] = (
        6,
        5,
    ),
    above: Annotated[tuple[int, float], typer.Option(help="Cameras, rate: above it.")] = (10, 12),
    lost: Annotated[tuple[int, float], typer.Option(help="Cameras, rate: of two servers.")] = (
        12,
        3,
    ),
    at_once: Annotated[int, typer.Option(help="Connections at once at one server.")] = 240,
    seconds: Annotated[float, typer.Option(help="Measured time of a load.")] = 15.0,
    size: Annotated[str, typer.Option(help="Size of every stream.")] = "640x360",
    bitrate: Annotated[str, typer.Option(help="Of every stream at 10 frames/s.")] = "500k",
    frames: Frames = 40,
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print what one server gave below and above its limit, and when cameras of a lost one were back."""
    asked = only or list(Part)
    found: dict[str, Any] = {"machine": {}}
    if json_file is not None and json_file.exists():
        found = json.loads(json_file.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        recording = encoded(
            SceneFile(folder, *parse_size(size), 10, frames), bitrate_bps=parse_bitrate(bitrate)
        )
        options = ["--dnn", str(detector_card(folder, SIDE_PX)), "--copies", "2", "--threads", "1"]
        if Part.LOADS in asked:
            server, address = start_server(folder, *options, results=False)
            with server:
                found["loads"] = [
                    asyncio.run(load(server, address, recording, *each, seconds)) for each in (below, above)
                ]
        if Part.BURST in asked:
            pem, key = certificate(folder)
            secured = ["--tls-certificate", str(pem), "--tls-key", str(key), "--max-cameras", "1000"]
            server, address = start_server(folder, *options, *secured, results=False)
            with server:
                found["burst"] = asyncio.run(burst(address, pem, at_once))
        for part, number in ((Part.KILLED, signal.SIGKILL), (Part.SILENT, signal.SIGSTOP)):
            if part in asked:
                found[part] = loss_of(number, folder, options, recording, lost)
    found["machine"] |= dict.fromkeys(asked, machine())
    found |= {"side_px": SIDE_PX, "size": size}
    show(found, Console(soft_wrap=True))
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
