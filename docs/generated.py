"""The reference pages that the program writes itself: commands, keys of TOML files, messages on the wire."""

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.main

from accmpeg.cli import app
from accmpeg.protocol import wire

CONFIGURED = ("serve", "stream")
"""The verbs that read a TOML file and the environment."""


def write_pages(folder: Path) -> None:
    """Writes `commands.md`, `configuration.md` and `messages.md`, which pages of the site include."""
    folder.mkdir(exist_ok=True)
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
    (folder / "configuration.md").write_text("\n".join(configuration()), encoding="utf-8")
    (folder / "messages.md").write_text("\n".join(messages()), encoding="utf-8")


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
            shown = option.show_default if isinstance(option.show_default, str) else ""
            if not shown and option.default not in (None, "", (), []):
                shown = f"`{option.default}`"
            help_text = (option.help or "").replace("|", "\\|")
            yield f"| `{key}` | `{variable}` | {shown} | {help_text} |"
        yield ""


def messages() -> Iterator[str]:
    """A table for each message of the wire and each object in one: field, JSON type, default, meaning."""
    known = [kind for kind in vars(wire).values() if inspect.isclass(kind)]
    kinds = [kind for kind in known if kind.__base__ is wire.Message]
    parts = [kind for kind in known if kind.__base__ is wire.Message.__base__ and kind is not wire.Message]
    for kind in (*sorted(kinds, key=lambda kind: kind.kind), *parts):
        yield f"### {kind.__name__}\n"
        if kind in kinds:
            yield f"Kind {kind.kind}{', with a payload' if kind.has_payload else ''}."
        yield f"{inspect.getdoc(kind)}\n"
        yield "| field | JSON | default | meaning |\n|---|---|---|---|"
        meanings = dict(_meanings(kind))
        for name, schema in kind.model_json_schema()["properties"].items():
            default = f"`{json.dumps(schema['default'])}`" if "default" in schema else "required"
            yield f"| `{name}` | {_json_type(schema)} | {default} | {meanings.get(name, '')} |"
        yield ""


def _meanings(kind: type) -> Iterator[tuple[str, str]]:
    """The fields of a class that a docstring follows, and that docstring in one line."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            assert isinstance(field.target, ast.Name)
            yield field.target.id, " ".join(str(text.value.value).split())


def _json_type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_json_type, schema["anyOf"]))
    if "$ref" in schema:
        return f"object, see {schema['$ref'].rpartition('/')[2]}"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return f"array of {len(schema['prefixItems'])} {_json_type(schema['prefixItems'][0])}s"
    return str(schema["type"])
