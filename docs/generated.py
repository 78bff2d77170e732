"""The reference pages that the command line writes itself: its commands, and the keys of TOML files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer.main

from accmpeg.cli import app

CONFIGURED = ("serve", "stream")
"""The verbs that read a TOML file and the environment."""


def write_pages(folder: Path) -> None:
    """Writes `commands.md` and `configuration.md`, which pages of the reference include."""
    folder.mkdir(exist_ok=True)
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
    (folder / "configuration.md").write_text("\n".join(configuration()), encoding="utf-8")


def commands() -> str:
    """Every verb with its options, as Typer documents them."""
    made = subprocess.run(
        [sys.executable, "-m", "typer", "accmpeg.cli", "utils", "docs", "--name", "accmpeg"],
        check=True, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout  # fmt: skip
    return "## " + made.partition("\n## ")[2]  # without the list of verbs before them


def configuration() -> Iterator[str]:
    """A table for each configured verb: key, variable, default, meaning."""
    for verb in CONFIGURED:
        command = typer.main.get_command(app).commands[verb]
        yield f"## accmpeg {verb}\n"
        yield "| key | environment variable | default | meaning |\n|---|---|---|---|"
        for option in command.params:
            flags = [flag for flag in option.opts if flag.startswith("--") and flag != "--config"]
            if not flags:
                continue
            key = flags[0].removeprefix("--")
            variable = f"ACCMPEG_{verb}_{option.name}".upper()
            default = option.default if option.default not in (None, "", (), []) else ""
            help_text = (option.help or "").replace("|", "\\|")
            shown = f"`{default}`" if default != "" else ""
            yield f"| `{key}` | `{variable}` | {shown} | {help_text} |"
        yield ""
