"""`accmpeg stream`: a camera that streams for ever, to our server, to other addresses, or both."""

import logging
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accmpeg.camera.naming import address_name
from accmpeg.camera.options import ADOPTABLE, CameraOptions
from accmpeg.cli.common import CaFile, Insecure, err, print_json
from accmpeg.cli.config import ConfigFile, log_effective_settings, warn_of_open_secrets
from accmpeg.cli.logs import LogFormat, LogLevel, set_up_logs
from accmpeg.cli.site import SiteProfile, check_site
from accmpeg.cli.sources import EMBEDDED_SCENE, PolicyName, load_accmodel, open_any_source
from accmpeg.errors import EncoderError, UsageError
from accmpeg.media.inputs import InputOptions
from accmpeg.options import parse_bitrate

if TYPE_CHECKING:
    from collections.abc import Callable

    from accmpeg.accmodel.runtime import AccModel
    from accmpeg.camera import Camera
    from accmpeg.camera.outputs import ResultSocket
    from accmpeg.camera.uplink.address import ServerAddress
    from accmpeg.media.source import Source

__all__ = ["stream"]

log = logging.getLogger(__name__)

AUTO = "auto"


def stream(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Device, address, video, folder of images, or 'scene'.")
    ],
    *,
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Server: wss://host:8700, or ws:// on this machine.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token; or set ACCMPEG_STREAM_TOKEN.")
    ] = None,
    ca: CaFile = None,
    insecure: Insecure = False,
    accmodel: Annotated[
        Path | None, typer.Option(help="AccModel card or ONNX file.", show_default="of 'scene', its own")
    ] = None,
    profile: SiteProfile = None,
    policy: Annotated[
        PolicyName | None,
        typer.Option(
            help="What makes the quality map.", show_default="graded with an AccModel, else feedback"
        ),
    ] = None,
    bitrate: Annotated[
        str, typer.Option(help="'auto' adapts to the link; or a fixed rate such as 800k or 1.5M.")
    ] = AUTO,
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="'auto' keeps size and frame rate, whatever the bitrate.")
    ] = False,
    options: CameraOptions,
    asked: InputOptions,
    results: Annotated[
        list[str],
        typer.Option(
            metavar="WHERE",
            help="Results as JSON lines: - (stdout), unix:PATH, tcp:127.0.0.1:PORT, none.",
            show_default="-",
        ),
    ] = [],  # noqa: B006 - Typer reads it only
    log_format: Annotated[LogFormat, typer.Option(help="Logs, on stderr.")] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option(help="The least severe records.")] = LogLevel.INFO,
    json: Annotated[
        bool, typer.Option("--json", help="A JSON summary on stdout at the end, instead of results.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Stream a camera or footage, steered by an AccModel, and get the server DNN's results back."""
    from accmpeg.camera import Camera

    set_up_logs(log_format, log_level)
    log_effective_settings(context)
    warn_of_open_secrets(token_file)
    policy = policy or _policy(accmodel, source, only_publishes=to is None and bool(options.publish))
    model = load_accmodel(accmodel, policy, source)
    if model is not None and (shortcomings := model.card.shortcomings()):
        log.warning(shortcomings)
    address = None if to is None else _address(to, token_file, ca, insecure)
    options = replace(
        options,
        name=options.name or address_name(source),
        policy=policy.value,
        bitrate_bps=None if bitrate == AUTO else parse_bitrate(bitrate),
        adapt_size=not fixed_size,
        adopts=_adopts(context, source),
    )
    to_stdout, sockets = _outputs(results or ([] if json else ["-"]), json)
    camera = Camera(
        _opener(source, asked, profile, options.dnn, model),
        address,
        model,
        options,
        on_result=to_stdout,
        sockets=sockets,
    )
    seconds = _run(camera)
    if json:
        print_json({"source": source, "seconds": round(seconds, 3), **camera.snapshot()})


def _address(to: str, token_file: Path | None, ca: Path | None, insecure: bool) -> "ServerAddress":
    from accmpeg.camera.uplink.address import ServerAddress, read_token

    token = read_token(token_file)
    return ServerAddress.parse(to, token=token, token_file=token_file, ca_file=ca, insecure=insecure)


def _policy(accmodel: Path | None, source: str, *, only_publishes: bool) -> PolicyName:
    """Without an AccModel a server's answers steer: they need no training. Where there is nothing to stream
    to, the camera says so."""
    answers_alone = accmodel is None and not only_publishes and source != EMBEDDED_SCENE
    return PolicyName.FEEDBACK if answers_alone else PolicyName.GRADED


def _adopts(context: typer.Context, source: str) -> frozenset[str]:
    """What the server's offer may set: all that no flag, variable or file has set here.

    Nothing, where an AccModel, a policy or a profile is given, or the source brings its own AccModel.
    """
    given = {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"
    }
    if source == EMBEDDED_SCENE or given & {"accmodel", "policy", "profile"}:
        return frozenset()
    flags = {"size_px": "size", "highest_bps": "max_bitrate"}
    return frozenset(field for field in ADOPTABLE if flags.get(field, field) not in given)


def _opener(
    source: str, asked: InputOptions, site: Path | None, dnn: str | None, model: "AccModel | None"
) -> "Callable[[], Source]":
    unchecked = True

    def opened() -> "Source":
        nonlocal unchecked
        found = open_any_source(source, asked)
        if unchecked:  # a live source that comes back in another size is scaled to the stream's
            try:
                check_site(site, found.info, dnn=dnn, accmodel=None if model is None else model.card)
            except BaseException:
                found.close()
                raise
        unchecked = False
        return found

    return opened


def _outputs(results: list[str], as_json: bool) -> "tuple[Any, list[ResultSocket]]":
    from accmpeg.camera.outputs import ResultSocket, write_lines

    if "-" in results and as_json:
        raise UsageError("--results - and --json both want stdout: give one of them")
    sockets = [ResultSocket(where) for where in results if where not in ("-", "none")]
    return (write_lines if "-" in results else None), sockets


def _run(camera: "Camera") -> float:
    """Streams until the end, and says how many seconds that took.

    The first SIGTERM, Ctrl-C or closing of the terminal drains, the second one does not wait. What a parent
    has turned off, as nohup does with the last, stays off.
    """
    started_s, stops, is_open = time.monotonic(), 0, False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stops
        stops += 1
        if stops > 1 or not is_open:  # a source may take for ever to open
            raise KeyboardInterrupt
        camera.stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, stop)
    try:
        try:
            camera.start()
        except EncoderError as error:  # at open, what it refuses are the options
            raise UsageError(str(error)) from error
        is_open = True
        # In short waits, because a lock that is waited for holds signals up on some systems.
        while not camera.wait(0.2):
            pass
    except KeyboardInterrupt:
        if stops == 1:
            log.info("stopped before it was ready")
            return time.monotonic() - started_s
        err.print("stopped at once: what was not sent is lost, unless there is a spool")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return time.monotonic() - started_s
