"""`accmpeg serve`: cameras stream here, a server DNN answers them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from accmpeg.cli.config import ConfigFile, log_effective_settings, reread
from accmpeg.cli.logs import LogFormat, LogLevel, set_up_logs
from accmpeg.cli.options import settings_from
from accmpeg.server.settings import Limits, ServerSettings, parse_input
from accmpeg.server.tokens import read_tokens

__all__ = [
    "SECRETS",
    "AdminToken",
    "CameraTokens",
    "ForgetHours",
    "Inputs",
    "Logs",
    "LogsFrom",
    "TokensFile",
    "ViewerToken",
    "serve",
    "settings_of",
]

SECRETS = frozenset({"token", "viewer_token", "admin_token"})


TokensFile = Annotated[Path | None, typer.Option(metavar="FILE", help='TOML file of tokens: gate = "…".')]
CameraTokens = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TOKEN", help="A camera's token; '*' is any camera.")
]
ViewerToken = Annotated[str | None, typer.Option(help="Token for dashboard, results and metrics.")]
AdminToken = Annotated[str | None, typer.Option(help="Token that may also change server DNNs.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=ADDRESS", help="Fetch this stream too: rtsp, http, udp, or a file."),
]
ForgetHours = Annotated[float, typer.Option(min=0, help="Forget cameras that have been away for so long.")]
Logs = Annotated[LogFormat, typer.Option(help="Log lines on stderr.")]
LogsFrom = Annotated[LogLevel, typer.Option(help="Least severe log lines.")]


def serve(
    context: typer.Context,
    settings: ServerSettings,
    limits: Limits,
    tokens: TokensFile = None,
    token: CameraTokens = None,
    viewer_token: ViewerToken = None,
    admin_token: AdminToken = None,
    input: Inputs = None,
    forget_hours: ForgetHours = 24.0,
    log_format: Logs = LogFormat.TEXT,
    log_level: LogsFrom = LogLevel.INFO,
    config: ConfigFile = None,
) -> None:
    """Serve cameras: decode their streams, run server DNNs on them, answer with results.

    SIGTERM and Ctrl-C answer what has come, say goodbye to the cameras, and end with exit code 0.
    SIGHUP reads tokens, certificate and inputs anew, and reopens the results file.
    """
    from accmpeg.server import serve as run_server

    settings = settings_of(context.params)
    settings.check()
    set_up_logs(log_format, log_level)
    log_effective_settings(context, SECRETS)
    run_server(settings, lambda: settings_of(reread(context)))


def settings_of(options: Mapping[str, Any]) -> ServerSettings:
    """What the options mean, as the command line's context holds them, also when they are read again.

    Raises `UsageError`.
    """
    from accmpeg.demo import assets_path

    settings = settings_from(ServerSettings, options)
    tokens = None if options["tokens"] is None else Path(options["tokens"])
    return replace(
        settings,
        dnns=settings.dnns or (assets_path() / "detector.card.toml",),
        tokens=read_tokens(tokens, options["token"] or [], options["viewer_token"], options["admin_token"]),
        inputs=tuple(parse_input(text) for text in options["input"] or []),
        forget_s=3600 * options["forget_hours"],
        limits=settings_from(Limits, options),
    )
