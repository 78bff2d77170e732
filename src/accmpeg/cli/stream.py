"""`accmpeg stream`: a camera that streams for ever, to our server, to other addresses, or both."""

import logging
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accmpeg.cli.common import err, parse_bitrate, parse_bytes, parse_size, print_json
from accmpeg.cli.config import ConfigFile, log_effective_settings
from accmpeg.cli.encode import PolicyName
from accmpeg.cli.logs import LogFormat, LogLevel, set_up_logs
from accmpeg.cli.sources import (
    InputFormat,
    InputRate,
    InputSize,
    RtspTransport,
    RtspTransportOption,
    input_options,
)
from accmpeg.errors import UsageError

if TYPE_CHECKING:
    from accmpeg.camera import Camera
    from accmpeg.camera.outputs import ResultSocket

__all__ = ["stream"]

log = logging.getLogger(__name__)

AUTO = "auto"


class Drop(StrEnum):
    """What happens when machine, link or server fall behind."""

    LATEST = "latest"
    NONE = "none"


def stream(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Device, address, video, folder of images, or 'scene'.")
    ],
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Server: wss://host:8700, or ws:// on this machine.")
    ] = None,
    accmodel: Annotated[
        Path | None, typer.Option(help="AccModel card or ONNX file. [default: of 'scene', its own]")
    ] = None,
    policy: Annotated[
        PolicyName, typer.Option(help="How scores become QP offsets; none streams plainly.")
    ] = PolicyName.GRADED,
    name: Annotated[
        str | None,
        typer.Option(help="The camera's name at the server. [default: this machine's name and a mark]"),
    ] = None,
    dnn: Annotated[str | None, typer.Option(help="Server DNN wanted. [default: the server's first]")] = None,
    bitrate: Annotated[
        str, typer.Option(help="'auto' adapts to the link; or a fixed rate such as 800k or 1.5M.")
    ] = AUTO,
    start_bitrate: Annotated[str, typer.Option(help="Where 'auto' begins.")] = "1M",
    min_bitrate: Annotated[str, typer.Option(help="'auto' never goes below.")] = "100k",
    max_bitrate: Annotated[str, typer.Option(help="'auto' never goes above.")] = "8M",
    delay_budget_ms: Annotated[
        float, typer.Option(min=50, max=10_000, help="Capture to arrival at the server, held by 'auto'.")
    ] = 300.0,
    size: Annotated[
        str | None, typer.Option(help="Stream size, such as 640x360, if not the source's.")
    ] = None,
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="'auto' keeps size and frame rate, whatever the bitrate.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Renew the quality map every so many frames.")] = 10,
    codec: Annotated[str, typer.Option(help="libx264, libx265 or libvpx-vp9.")] = "libx264",
    preset: Annotated[str, typer.Option(help="Encoder preset.")] = "veryfast",
    gop: Annotated[int, typer.Option(min=1, help="Frames from one keyframe to the next.")] = 300,
    drop: Annotated[
        Drop, typer.Option(help="When something falls behind: the newest frame wins, or none is left out.")
    ] = Drop.LATEST,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token; or set ACCMPEG_STREAM_TOKEN.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Certificates to trust, for a server with one of its own.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let the token cross the network unencrypted.")
    ] = False,
    spool: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep frames here while the server is away.")
    ] = None,
    spool_limit: Annotated[str, typer.Option(help="Most bytes in the spool, such as 256M or 4G.")] = "256M",
    publish: Annotated[
        list[str], typer.Option(metavar="ADDRESS", help="Also to a file, rtsp://, rtmp:// or udp://.")
    ] = [],  # noqa: B006 - Typer reads it only
    results: Annotated[
        list[str],
        typer.Option(
            metavar="WHERE",
            help="Results as JSON lines: - (stdout), unix:PATH, tcp:127.0.0.1:PORT, none. [default: -]",
        ),
    ] = [],  # noqa: B006 - Typer reads it only
    rtsp_transport: RtspTransportOption = RtspTransport.AUTO,
    input_format: InputFormat = None,
    input_size: InputSize = None,
    input_rate: InputRate = None,
    realtime: Annotated[
        bool, typer.Option("--realtime/--no-realtime", help="Read footage at its frame rate.")
    ] = True,
    loop: Annotated[bool, typer.Option("--loop", help="Begin footage again when it ends.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    statistics_s: Annotated[float, typer.Option(min=0.1, help="Seconds between two statistics.")] = 10.0,
    log_format: Annotated[LogFormat, typer.Option(help="Logs, on stderr.")] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option(help="The least severe records.")] = LogLevel.INFO,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON summary on stdout at the end, instead of results.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Stream a camera or footage, steered by an AccModel, and get the server DNN's results back."""
    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.camera import Camera, CameraOptions
    from accmpeg.camera.uplink.address import ServerAddress, read_token
    from accmpeg.cli.sources import EMBEDDED_SCENE, open_any_source

    del config
    set_up_logs(log_format, log_level)
    log_effective_settings(context)
    if accmodel is None and source == EMBEDDED_SCENE:
        from accmpeg.demo import assets_path

        accmodel = assets_path() / "accmodel.card.toml"
    if policy is not PolicyName.NONE and accmodel is None:
        raise UsageError("--accmodel is missing: name an AccModel, or ask for plain video with --policy none")
    address = None
    if to is not None:
        address = ServerAddress.parse(to, token=read_token(token_file), ca_file=ca, insecure=insecure)
    options = CameraOptions(
        name=name,
        dnn=dnn,
        policy=policy.value if policy is not PolicyName.NONE else "graded",
        every=every,
        codec=codec,
        preset=preset,
        gop_frames=gop,
        size_px=parse_size(size) if size else None,
        bitrate_bps=None if bitrate == AUTO else parse_bitrate(bitrate),
        start_bps=parse_bitrate(start_bitrate),
        lowest_bps=parse_bitrate(min_bitrate),
        highest_bps=parse_bitrate(max_bitrate),
        delay_budget_ms=delay_budget_ms,
        adapt_size=not fixed_size,
        drop=drop.value,
        realtime=realtime,
        loop=loop,
        limit=limit,
        spool=spool,
        spool_limit_bytes=parse_bytes(spool_limit, "--spool-limit"),
        publish=tuple(publish),
        statistics_every_s=statistics_s,
    )
    asked = input_options(rtsp_transport, input_format, input_size, input_rate)
    model = AccModel.load(accmodel) if accmodel is not None and policy is not PolicyName.NONE else None
    if model is not None and (shortcomings := model.card.shortcomings()):
        log.warning(shortcomings)
    to_stdout, sockets = _outputs(results or ([] if as_json else ["-"]), as_json)
    camera = Camera(
        lambda: open_any_source(source, asked),
        address,
        model,
        options,
        on_result=to_stdout,
        sockets=sockets,
    )
    started_s = time.monotonic()
    _run(camera)
    if as_json:
        print_json({"source": source, "seconds": round(time.monotonic() - started_s, 3), **camera.snapshot()})


def _outputs(results: list[str], as_json: bool) -> "tuple[Any, list[ResultSocket]]":
    from accmpeg.camera.outputs import ResultSocket, write_lines

    if "-" in results and as_json:
        raise UsageError("--results - and --json both want stdout: give one of them")
    sockets = [ResultSocket(where) for where in results if where not in ("-", "none")]
    return (write_lines if "-" in results else None), sockets


def _run(camera: "Camera") -> None:
    """Streams until the end; the first SIGTERM or Ctrl-C drains, the second one does not wait."""
    stops = 0

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stops
        stops += 1
        if stops > 1:
            raise KeyboardInterrupt
        camera.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        camera.start()
        # In short waits, because a lock that is waited for holds signals up on some systems.
        while not camera.wait(0.2):
            pass
    except KeyboardInterrupt:
        err.print("stopped at once: what was not sent is lost, unless there is a spool")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
