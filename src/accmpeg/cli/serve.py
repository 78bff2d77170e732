"""`accmpeg serve`: cameras stream here, a server DNN answers them."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accmpeg.cli.common import parse_bytes
from accmpeg.cli.config import ConfigFile, log_effective_settings, reread
from accmpeg.cli.logs import LogFormat, LogLevel, set_up_logs

if TYPE_CHECKING:
    from accmpeg.server import ServerSettings

__all__ = ["serve"]

PATHS = ("dnn_folder", "results", "tls_certificate", "tls_key", "tokens")
SECRETS = frozenset({"token", "viewer_token", "admin_token"})


def serve(
    context: typer.Context,
    dnn: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CARD", help="Card of a server DNN; may be repeated. [default: the demo's detector]"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8700,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help='TOML file of tokens: gate = "…".')
    ] = None,
    token: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TOKEN", help="A camera's token; '*' is any camera.")
    ] = None,
    viewer_token: Annotated[
        str | None, typer.Option(help="Token for dashboard, results and metrics.")
    ] = None,
    admin_token: Annotated[str | None, typer.Option(help="Token that may also change server DNNs.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file with the certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let tokens cross the network unencrypted.")
    ] = False,
    input: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ADDRESS", help="Fetch this stream too: rtsp, http, udp, or a file."),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append every result as a JSON line.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="URL", help="Publish results to mqtt://host/prefix.")
    ] = None,
    dnn_folder: Annotated[
        Path | None, typer.Option(help="Cards in here may be loaded while running (PUT /v1/dnns/NAME).")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:N for the GPU of number N.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each copy of a DNN; found out if absent.")
    ] = None,
    copies: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Copies of each DNN: so many batches of it run at once; found out if absent."
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="Most frames in one batch.")] = 8,
    batch_window_ms: Annotated[
        float, typer.Option(min=0, max=1000, help="Longest that a frame waits for others to batch with.")
    ] = 5.0,
    infer_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which an inference counts as hanging.")
    ] = 10.0,
    max_cameras: Annotated[int, typer.Option(min=1, help="Most cameras at once.")] = 64,
    max_connections: Annotated[int, typer.Option(min=8, help="Most connections at once.")] = 512,
    max_connections_per_address: Annotated[
        int, typer.Option(min=1, help="Most connections from one address, such as a proxy's.")
    ] = 256,
    max_viewers: Annotated[int, typer.Option(min=1, help="Most subscribers and dashboards at once.")] = 64,
    max_frame_pixels: Annotated[int, typer.Option(min=256, help="Largest frame, in pixels.")] = 3840 * 2160,
    max_pixels_per_s: Annotated[
        float,
        typer.Option(min=256, help="Most pixels per second of one camera; a faster one is slowed down."),
    ] = 3840 * 2160 * 60.0,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="What decoded pictures may take, such as 2G. [default: half of what there is]",
        ),
    ] = None,
    idle_s: Annotated[float, typer.Option(min=1, help="Cut off a camera that is silent for so long.")] = 60.0,
    drain_s: Annotated[float, typer.Option(min=0, help="Longest wait for answers at the end.")] = 10.0,
    forget_hours: Annotated[
        float, typer.Option(min=0, help="Forget cameras that have been away for so long.")
    ] = 24.0,
    snapshots_per_s: Annotated[
        float, typer.Option(min=0.1, max=30, help="Pictures per second of a watched camera.")
    ] = 5.0,
    log_format: Annotated[LogFormat, typer.Option(help="Log lines on stderr.")] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option(help="Least severe log lines.")] = LogLevel.INFO,
    config: ConfigFile = None,
) -> None:
    """Serve cameras: decode their streams, run server DNNs on them, answer with results.

    SIGTERM and Ctrl-C answer what has come, say goodbye to the cameras, and end with exit code 0.
    SIGHUP reads tokens, certificate and inputs anew, and reopens the results file.
    """
    from accmpeg.server import serve as run_server

    settings = _settings(context.params)
    settings.check()
    set_up_logs(log_format, log_level)
    log_effective_settings(context, SECRETS)
    run_server(settings, lambda: _settings(reread(context)))


def _settings(options: dict[str, Any]) -> "ServerSettings":
    """What the options mean, as the command line's context holds them. Raises `UsageError`."""
    from accmpeg.demo import assets_path
    from accmpeg.server import Limits, ServerSettings
    from accmpeg.server.settings import parse_input
    from accmpeg.server.tokens import read_tokens

    # Typer makes paths of them only on the way to the verb.
    given = options | {name: Path(options[name]) for name in PATHS if options[name] is not None}
    limits = {each.name for each in fields(Limits)}
    same = {each.name for each in fields(ServerSettings)} & set(given)
    changed = {
        "dnns": tuple(map(Path, given["dnn"] or [assets_path() / "detector.card.toml"])),
        "tokens": read_tokens(
            given["tokens"], given["token"] or [], given["viewer_token"], given["admin_token"]
        ),
        "inputs": tuple(parse_input(text) for text in given["input"] or []),
        "infer_timeout_s": given["infer_timeout"],
        "forget_s": 3600 * given["forget_hours"],
        "memory_bytes": parse_bytes(given["memory"], "--memory") if given["memory"] else None,
        "limits": Limits(**{name: value for name, value in given.items() if name in limits}),
    }
    return ServerSettings(**{**{name: given[name] for name in same}, **changed})
