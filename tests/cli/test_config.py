"""Configuration of the long-running verbs, through a small verb of its own: precedence, errors, secrets."""

import json
import logging
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from accmpeg.accmodel.card import read_accmodel_card
from accmpeg.camera.uplink.address import read_token
from accmpeg.cli.common import TranslatingGroup
from accmpeg.cli.config import (
    ConfigFile,
    configured,
    effective_settings,
    log_effective_settings,
    warn_of_open_secrets,
)
from accmpeg.demo import assets_path
from accmpeg.dnn.card import read_card
from accmpeg.errors import UsageError
from accmpeg.server.tokens import read_tokens

app = typer.Typer(cls=TranslatingGroup)


@app.callback()
def _group() -> None: ...


@app.command(**configured("probe"))
def probe(
    context: typer.Context,
    port: Annotated[int, typer.Option()] = 1,
    max_cameras: Annotated[int, typer.Option()] = 64,
    inputs: Annotated[list[str], typer.Option("--input")] = [],  # noqa: B006 - Typer reads it only
    token: Annotated[str, typer.Option()] = "",
    config: ConfigFile = None,
) -> None:
    log_effective_settings(context, {"token"})
    print(json.dumps(effective_settings(context, secrets={"token"})))


def run(*arguments: str, environment: dict[str, str] | None = None) -> dict[str, list[object]]:
    result = CliRunner().invoke(app, ["probe", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    settings: dict[str, list[object]] = json.loads(result.stdout)
    return settings


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "probe.toml"
    file.write_text('port = 2\nmax-cameras = 5\ninput = ["a=rtsp://me:pw@host/x", "b=y"]\n')
    environment = {"ACCMPEG_PROBE_PORT": "3", "ACCMPEG_PROBE_CONFIG": str(file)}
    assert run()["port"] == [1, "default"]
    assert run("--config", str(file))["port"] == [2, "file"]
    assert run(environment=environment)["port"] == [3, "environment"]
    settings = run("--port", "4", environment=environment)
    assert settings["port"] == [4, "flag"]
    assert settings["max_cameras"] == [5, "file"]
    assert settings["inputs"] == [["a=rtsp://***@host/x", "b=y"], "file"]


def test_secrets_are_hidden() -> None:
    assert run("--token", "s3cret")["token"] == ["***", "flag"]
    assert "s3cret" not in json.dumps(run(environment={"ACCMPEG_PROBE_TOKEN": "s3cret"}))


def test_the_log_begins_with_what_was_set_and_keeps_defaults_for_who_looks_closer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        run("--port", "4")
    levels = {record.__dict__["setting"]: record.levelno for record in caplog.records}
    assert levels.pop("port") == logging.INFO
    assert {*levels.values()} == {logging.DEBUG}
    assert "max_cameras" in levels


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 2", "unknown key 'prot': did you mean 'port'?"),
        ("port = [2]", "port takes a single value"),
        ("port = 'x'", "Invalid value for '--port'"),
        ("port = true", "port takes a single value, and no true or false"),
        ("port = 2020-01-01", "port takes a single value, and no date"),
        ("max_cameras = 1\nmax-cameras = 2", "max-cameras is there twice"),
        ("port = ", "not valid TOML"),
        ("port = " + "9" * 5000, "not valid TOML"),
        ("port = " + "[" * 5000, "not valid TOML"),
        ("config = 'x'", "unknown key 'config'"),
    ],
)
def test_a_bad_file_is_bad_use(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "probe.toml"
    file.write_text(text)
    result = CliRunner().invoke(app, ["probe", "--config", str(file)], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


def test_a_secret_that_anybody_can_read_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    for file, mode in ((closed, 0o600), (opened, 0o644)):
        file.touch()
        file.chmod(mode)
    warn_of_open_secrets(closed, opened, None, tmp_path / "nowhere")
    assert [record.__dict__["file"] for record in caplog.records] == [str(opened)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["probe", "--config", str(tmp_path / "none.toml")], env={"COLUMNS": "300"}
    )
    assert result.exit_code == 2
    assert "none.toml" in result.output


@pytest.mark.parametrize(
    "text", ["first-0123456789abc\nsecond-0123456789ab", "t\u00f6ken-0123456789abcdef", "two words"]
)
def test_what_is_no_token_is_bad_use_wherever_it_stands(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(UsageError, match=r"--token-file .*token: it must hold one line"):
        read_token(tmp_path / "token")
    monkeypatch.setenv("ACCMPEG_STREAM_TOKEN", text)
    with pytest.raises(UsageError, match="ACCMPEG_STREAM_TOKEN: it must hold one line"):
        read_token(None)
    monkeypatch.setenv("ACCMPEG_STREAM_TOKEN", "token-0123456789abcdef\n")
    assert read_token(None) == "token-0123456789abcdef"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_files_are_read_as_editors_on_windows_save_them(tmp_path: Path, ending: str) -> None:
    def saved(name: str, text: str) -> Path:
        file = tmp_path / name
        file.write_bytes(("\N{ZERO WIDTH NO-BREAK SPACE}" + text.replace("\n", ending)).encode())
        return file

    assert run("--config", str(saved("probe.toml", "port = 2\n")))["port"] == [2, "file"]
    token = "0123456789abcdef"
    known = read_tokens(saved("tokens.toml", f'gate = "{token}"\n'))
    assert known.cameras_of(read_token(saved("token", f"{token}\n"))) == {"gate"}
    detector = assets_path() / "detector.card.toml"
    assert read_card(saved("net.card.toml", detector.read_text())) == read_card(detector)
    accmodel = assets_path() / "accmodel.card.toml"
    again = saved("again.card.toml", accmodel.read_text())
    assert read_accmodel_card(again) == read_accmodel_card(accmodel)
