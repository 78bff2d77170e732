"""How the long-running verbs are configured: flag, then environment, then TOML file, then default.

A verb takes part by two lines: it is registered with `app.command(**configured("serve"))(serve)`, and it
has the parameters `context: typer.Context` and `config: ConfigFile = None`. Every option `--max-cameras` is
then also the variable `ACCMPEG_SERVE_MAX_CAMERAS` and the key `max-cameras` (or `max_cameras`) of the file.
Options that may be given several times are lists in the file, and separated by blanks in the environment.
"""

import contextlib
import logging
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from accmpeg.errors import UsageError, did_you_mean
from accmpeg.media.addresses import describe, is_url
from accmpeg.options import read_toml

__all__ = [
    "ConfigFile",
    "configured",
    "effective_settings",
    "log_effective_settings",
    "reread",
    "warn_of_open_secrets",
]

_HIDDEN = "***"
_NOT_IN_FILE = {"config", "help", "context"}

log = logging.getLogger(__name__)


def configured(verb: str) -> dict[str, Any]:
    """Keyword arguments for `app.command`, so that the verb's options read `ACCMPEG_VERB_*`.

    >>> configured("serve")
    {'context_settings': {'auto_envvar_prefix': 'ACCMPEG_SERVE'}}
    """
    return {"context_settings": {"auto_envvar_prefix": f"ACCMPEG_{verb.upper().replace('-', '_')}"}}


def _load(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_read(context, path)}
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,  # before the options whose defaults it brings
        callback=_load,
        metavar="FILE",
        help="TOML file with any of these options; flags and environment win over it.",
    ),
]


def effective_settings(context: typer.Context, secrets: Collection[str] = ()) -> dict[str, tuple[Any, str]]:
    """Every option's value and where it came from: `flag`, `environment`, `file` or `default`.

    The values of `secrets` are hidden, and so are users, passwords and queries in addresses.
    """
    sources = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file"}
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        shown = _HIDDEN if name in secrets and value else _shown(value)
        found[name] = (shown, sources.get(getattr(source, "name", ""), "default"))
    return found


def log_effective_settings(context: typer.Context, secrets: Collection[str] = ()) -> None:
    """Writes the effective configuration to the log, one record per option; defaults at the level debug."""
    for name, (value, source) in effective_settings(context, secrets).items():
        level = logging.DEBUG if source == "default" else logging.INFO
        log.log(level, "setting", extra={"setting": name, "value": value, "source": source})


def warn_of_open_secrets(*files: Path | None) -> None:
    """Warns of a file with a secret that every user of this machine may read."""
    for file in files:
        with contextlib.suppress(OSError):  # who opens it says why it can't be read
            if file is not None and file.is_file() and file.stat().st_mode & stat.S_IROTH:
                log.warning("any user can read this secret: chmod o-rwx", extra={"file": str(file)})


def reread(context: typer.Context) -> dict[str, Any]:
    """All options again, with the `--config` file as it is now; flags and environment still win over it.

    Raises `UsageError` for a file that can't be read or has a wrong key or value.
    """
    path = context.params.get("config")
    fresh = type(context)(
        context.command, parent=context.parent, info_name=context.info_name,
        default_map=_read(context, path) if path is not None else None,
        auto_envvar_prefix=context.auto_envvar_prefix,
    )  # fmt: skip
    found = dict(context.params)
    for option in context.command.params:
        name = str(option.name)
        source = context.get_parameter_source(name)
        if name in _NOT_IN_FILE or getattr(source, "name", "") == "COMMANDLINE":
            continue
        try:
            value, _ = option.consume_value(fresh, {})
            found[name] = option.process_value(fresh, value)
        # Click's own error, wherever Typer keeps Click.
        except Exception as error:
            said = getattr(error, "message", error)
            raise UsageError(f"--config {path}: {name.replace('_', '-')}: {said}") from error
    return found


def _read(context: typer.Context, path: Path) -> dict[str, Any]:
    return dict(_settings(context, path, read_toml(path, "--config")))


def _settings(context: typer.Context, path: Path, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    options = {option.name: option for option in context.command.params if option.name not in _NOT_IN_FILE}
    valid = {str(name).replace("_", "-"): option for name, option in options.items()}
    for option in options.values():
        # The flag's own spelling too, where the function's parameter has another name.
        valid |= {flag.removeprefix("--"): option for flag in option.opts if flag.startswith("--")}
    seen: set[str] = set()
    for key, value in values.items():
        found = valid.get(key.replace("_", "-"))
        if found is None:
            hint = did_you_mean(key.replace("_", "-"), sorted(valid), "valid keys are")
            raise UsageError(f"--config {path}: unknown key '{key}': {hint}")
        several = found.nargs != 1 or getattr(found, "multiple", False)
        given = value if several and isinstance(value, list) else [value]
        switch = getattr(found, "is_flag", False)
        for each in given:
            # Python counts with true as with 1, and makes text of anything.
            if not isinstance(each, str | int | float) or (isinstance(each, bool) and not switch):
                what = {dict: "table", bool: "true or false"}.get(type(each), type(each).__name__)
                raise UsageError(f"--config {path}: {key} takes a single value, and no {what}")
        if str(found.name) in seen:
            raise UsageError(f"--config {path}: {key} is there twice, with _ and with -: keep one")
        seen.add(str(found.name))
        yield str(found.name), given if several else value


def _shown(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    # `NAME=ADDRESS` hides what the address alone would.
    name, equals, address = str(value).partition("=")
    if equals and "://" not in name and is_url(address):
        return f"{name}={describe(address)}"
    return describe(str(value))
