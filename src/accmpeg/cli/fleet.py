"""`accmpeg fleet`: all cameras of several servers in one table."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from accmpeg.camera.uplink.address import ServerAddress, read_token
from accmpeg.camera.uplink.fetch import read
from accmpeg.cli.common import EXIT_FAILED, AsJson, CaFile, Insecure, out, print_json
from accmpeg.errors import LinkError, UsageError, WireError
from accmpeg.server.status import cameras_of

__all__ = ["fleet"]

TOKEN_VARIABLE = "ACCMPEG_FLEET_TOKEN"
ANSWER_S = 10.0
ANSWER_LIMIT_BYTES = 16 << 20
REFRESH_S = 2.0
_STYLES = {"live": "green", "silent": "yellow", "overloaded": "yellow", "failing": "red", "away": "dim"}


@dataclass(frozen=True)
class _Server:
    """What one server says of itself; `down` says why it says nothing."""

    url: str
    down: str = ""
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def cameras(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.status.get("cameras", [])
        return found


def fleet(
    servers: Annotated[list[str], typer.Argument(metavar="URL…", help="Servers, such as wss://host:8700.")],
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with a viewer's token for all servers; or set ACCMPEG_FLEET_TOKEN."
        ),
    ] = None,
    ca: CaFile = None,
    insecure: Insecure = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every 2 s, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the cameras of several servers in one table, and which servers are down.

    A camera that has moved to another server is shown where it is now. The exit code is 1 if a server does
    not answer.
    """
    if watch and as_json:
        raise UsageError("--json is one document, and --watch never ends: give one of them")
    token = read_token(token_file, TOKEN_VARIABLE)
    # Who has a dashboard open knows the address as http://.
    urls = [f"ws{each[4:]}" if each.startswith("http") else each for each in servers]
    parsed = [
        ServerAddress.parse(each, token=token, token_file=token_file, ca_file=ca, insecure=insecure)
        for each in urls
    ]
    addresses = list({each.url: each for each in parsed}.values())
    found = _ask_all(addresses)
    if as_json:
        print_json(
            {
                "servers": [{"url": each.url, "down": each.down, **each.status} for each in found],
                "cameras": [{"server": server, **camera} for server, camera in _merged(found)],
            }
        )
    elif watch:
        with Live(_shown(found), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_S)
                live.update(_shown(_ask_all(addresses)), refresh=True)
    else:
        out.print(_shown(found))
    if any(each.down for each in found):
        raise typer.Exit(EXIT_FAILED)


def _ask_all(addresses: Sequence[ServerAddress]) -> list[_Server]:
    with ThreadPoolExecutor(len(addresses)) as threads:
        return list(threads.map(_ask, addresses))


def _ask(address: ServerAddress) -> _Server:
    url = address.url.removesuffix("/v1/stream")
    try:
        data = read(address, "cameras", ANSWER_LIMIT_BYTES, within_s=ANSWER_S)
        status = json.loads(data)
        if not isinstance(status, dict) or not isinstance(status.get("cameras"), list):
            raise ValueError(status)
    except (LinkError, WireError) as error:
        return _Server(url, str(error))
    except ValueError:
        return _Server(url, "what answers there is no AccMPEG server")
    return _Server(url, status=status)


def _merged(servers: Sequence[_Server]) -> list[tuple[str, dict[str, Any]]]:
    return cameras_of({each.url: each.status for each in servers if not each.down})


def _shown(servers: Sequence[_Server]) -> Group:
    merged = list(_merged(servers))
    top = Table("server", "state", "live", "here", "workers", box=None)
    for server in servers:
        if server.down:
            top.add_row(server.url, f"down: {server.down}", style="red")
            continue
        health = [camera["health"] for camera in server.cameras if camera["connected"]]
        rows = server.status.get("workers", [])
        failing = sum(bool(row["problem"]) for row in rows)
        state = server.status.get("problem") or "up"
        workers = f"{len(rows)}" + (f", {failing} failing" if failing else "")
        top.add_row(server.url, state, str(health.count("live")), str(len(health)), workers)
    cameras = Table(
        "camera", "server", "state", "frames/s", "kbit/s", "answered", "delay p95", "why", box=None
    )
    for place, camera in merged:
        delay = camera["stages_ms"].get("total", {}).get("p95")
        cameras.add_row(
            camera["name"],
            place,
            camera["health"],
            f"{camera['frames_per_s']:.1f}",
            f"{camera['bitrate_bps'] / 1000:.0f}",
            str(camera["results"]),
            f"{delay:.0f} ms" if delay is not None else "–",
            camera["health_reason"],
            style=_STYLES.get(camera["health"], ""),
        )
    live = sum(camera["health"] == "live" for _, camera in merged)
    up = sum(not server.down for server in servers)
    cameras.caption = f"{live} of {len(merged)} cameras live on {up} of {len(servers)} servers"
    return Group(top, "", cameras)
