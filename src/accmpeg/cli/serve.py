"""`accmpeg serve`: cameras stream here, a server DNN answers them."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from accmpeg.cli.config import ConfigFile, log_effective_settings, reread, warn_of_open_secrets
from accmpeg.cli.logs import LogFormat, LogLevel, set_up_logs
from accmpeg.cli.options import settings_from
from accmpeg.options import Option
from accmpeg.server.settings import Limits, ServerSettings, parse_input
from accmpeg.server.tokens import read_tokens

__all__ = ["SECRETS", "Access", "serve", "settings_of"]

SECRETS = frozenset({"token", "viewer_token", "admin_token"})


@dataclass(frozen=True)
class Access:
    """Who may use a server, what it fetches by itself, and how it logs."""

    tokens: Annotated[Path | None, Option('TOML file of tokens: gate = "…".', metavar="FILE")] = None
    token: Annotated[
        tuple[str, ...], Option("A camera's token; '*' is any camera; may repeat.", metavar="NAME=TOKEN")
    ] = ()
    viewer_token: Annotated[str | None, Option("Token for dashboard, results and metrics.")] = None
    admin_token: Annotated[str | None, Option("Token that may also change server DNNs.")] = None
    input: Annotated[
        tuple[str, ...],
        Option("Fetch this stream too: rtsp, http, udp, or a file; may repeat.", metavar="NAME=ADDRESS"),
    ] = ()
    forget_hours: Annotated[float, Option("Forget cameras that have been away for so long.", min=0)] = 24.0
    log_format: Annotated[LogFormat, Option("Log lines on stderr.")] = LogFormat.TEXT
    log_level: Annotated[LogLevel, Option("Least severe log lines.")] = LogLevel.INFO


def serve(
    context: typer.Context,
    settings: ServerSettings,
    access: Access,
    limits: Limits,
    config: ConfigFile = None,
) -> None:
    """Serve cameras: decode their streams, run server DNNs on them, answer with results.

    SIGTERM and Ctrl-C answer what has come, say goodbye to the cameras, and end with exit code 0.
    SIGHUP reads tokens, certificate, inputs and log level anew, and reopens the results file.
    """
    # Until the server listens to it, it would end the program, and importing takes a second.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from accmpeg.server import serve as run_server

    settings = settings_of(context.params)
    settings.check()
    set_up_logs(access.log_format, access.log_level)
    log_effective_settings(context, SECRETS)
    warn_of_open_secrets(access.tokens, settings.tls_key)

    def anew() -> ServerSettings:
        options = reread(context)
        found, logs = settings_of(options), settings_from(Access, options)
        found.check()  # first: a log level beside wrong settings is not in force either
        set_up_logs(logs.log_format, logs.log_level)
        return found

    run_server(settings, anew)


def settings_of(options: Mapping[str, Any]) -> ServerSettings:
    """What the options mean, as the command line's context holds them, also when they are read again.

    Raises `UsageError`.
    """
    from accmpeg.demo import assets_path

    settings, access = settings_from(ServerSettings, options), settings_from(Access, options)
    return replace(
        settings,
        dnns=settings.dnns or (assets_path() / "detector.card.toml",),
        tokens=read_tokens(access.tokens, access.token, access.viewer_token, access.admin_token),
        inputs=tuple(parse_input(text) for text in access.input),
        forget_s=3600 * access.forget_hours,
        limits=settings_from(Limits, options),
    )
