"""Settings as options of a verb: names, defaults, units, and what can't be meant."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import av
import pytest
import typer
from typer.testing import CliRunner, Result

from accmpeg.cli import VERBS
from accmpeg.cli import app as accmpeg
from accmpeg.cli.common import Baselines, TranslatingGroup
from accmpeg.cli.options import settings_from, with_options
from accmpeg.evaluation.methods import BASELINES
from accmpeg.options import Option


@dataclass(frozen=True)
class Probe:
    every: Annotated[int, Option("Renew so often.", min=1)] = 10
    start_bps: Annotated[int, Option("Begin here.", name="start_bitrate")] = 1_500_000
    spool_limit_bytes: Annotated[int, Option("Most bytes.", name="spool_limit")] = 256 << 20
    size_px: Annotated[tuple[int, int] | None, Option("Of the stream.", name="size")] = None
    drop: Annotated[Literal["latest", "none"], Option("What goes.")] = "latest"
    publish: Annotated[tuple[str, ...], Option("Also there.")] = ()
    cards: Annotated[tuple[Path, ...], Option("Of DNNs.", name="card")] = ()
    ca: Annotated[Path | None, Option("Certificates.", default="those of the system")] = None
    loop: Annotated[bool, Option("Again.")] = False
    realtime: Annotated[bool, Option("In time.")] = True
    patience: float = 0.5


app = typer.Typer(cls=TranslatingGroup)


@app.callback()
def _group() -> None: ...


@app.command()
@with_options
def probe(probe: Probe, limit: Annotated[int | None, Option("Stop there.", min=1)] = None) -> None:
    print(json.dumps({**asdict(probe), "limit": limit}, default=str))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["probe", *arguments], env={"COLUMNS": "200"})


def test_without_options_the_defaults_are_the_settings_own() -> None:
    assert json.loads(invoke().stdout) == {**json.loads(json.dumps(asdict(Probe()))), "limit": None}


def test_every_option_reaches_its_field() -> None:
    given = ["--every", "3", "--start-bitrate", "800k", "--spool-limit", "4G", "--size", "640x360"]
    given += ["--drop", "none", "--publish", "a.mp4", "--publish", "b.ts", "--card", "x.toml", "--loop"]
    given += ["--no-realtime", "--limit", "7"]
    assert json.loads(invoke(*given).stdout) == {
        "every": 3,
        "start_bps": 800_000,
        "spool_limit_bytes": 4 << 30,
        "size_px": [640, 360],
        "drop": "none",
        "publish": ["a.mp4", "b.ts"],
        "cards": ["x.toml"],
        "ca": None,
        "loop": True,
        "realtime": False,
        "patience": 0.5,
        "limit": 7,
    }


def test_the_help_shows_defaults_as_they_are_written() -> None:
    said = invoke("--help").stdout
    for part in ("Renew so often.", "[default: 1.5M]", "[default: 256M]", "latest|none", "--no-realtime"):
        assert part in said
    assert "[default: (those of the system)]" in said
    assert "--no-loop" not in said
    assert "--patience" not in said


def test_what_cannot_be_meant_names_the_option() -> None:
    for option, value, complaint in (
        ("--every", "0", "Invalid value for '--every'"),
        ("--start-bitrate", "fast", "--start-bitrate fast: give bits per second"),
        ("--spool-limit", "9", "--spool-limit 9: give bytes"),
        ("--size", "wide", "--size wide: give width x height"),
        ("--drop", "all", "--drop all: give latest or none"),
    ):
        result = invoke(option, value)
        assert result.exit_code == 2
        assert complaint in result.output


def test_paths_in_a_context_are_text_and_become_paths() -> None:
    options = dict.fromkeys(("size", "ca"), None) | {"every": 1, "start_bitrate": "1M", "spool_limit": "1M"}
    options |= {"drop": "none", "publish": [], "card": ["a.toml"], "loop": False, "realtime": True}
    assert settings_from(Probe, options | {"ca": "ca.pem"}).ca == Path("ca.pem")
    assert settings_from(Probe, options).cards == (Path("a.toml"),)


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def test_every_verb_has_its_place_in_the_list() -> None:
    assert sorted(VERBS) == sorted(typer.main.get_command(accmpeg).commands)


@pytest.mark.parametrize(
    ("verb", "first"),
    [
        ("stream", ["to", "token_file", "ca", "insecure", "accmodel", "profile"]),
        ("encode", ["output", "accmodel", "policy", "profile", "codec", "bitrate"]),
        ("profile", ["dnn", "output", "accmodel", "reference", "labels"]),
        ("evaluate", ["videos", "dnn", "output", "accmodel", "methods", "quick"]),
        ("cluster label", ["address", "dnn", "output"]),
        ("cluster serve", ["address", "min_replicas"]),
    ],
)
def test_the_help_begins_with_what_one_needs_first(verb: str, first: list[str]) -> None:
    command: Any = typer.main.get_command(accmpeg)
    for name in verb.split():
        command = command.commands[name]
    options = [each.name for each in command.params if each.param_type_name == "option"]
    assert options[: len(first)] == first


@pytest.mark.parametrize("verb", ["serve", "stream"])
def test_the_variable_of_an_option_is_called_as_its_flag(verb: str) -> None:
    command: Any = typer.main.get_command(accmpeg)
    for option in command.commands[verb].params:
        if option.param_type_name == "option":
            assert option.opts[0] == f"--{option.name.replace('_', '-')}"


def test_the_help_names_the_baselines_that_there_are() -> None:
    assert get_args(Baselines)[1].show_default == ", ".join(BASELINES)


def test_no_help_has_brackets_which_would_be_taken_for_markup_and_vanish() -> None:
    for command in commands(typer.main.get_command(accmpeg)):
        for parameter in command.params:
            assert "[" not in (parameter.help or ""), f"{command.name} {parameter.name}"


def test_the_older_spelling_of_output_goes_on_working(tmp_path: Path) -> None:
    for spelling in ("--out", "--output", "-o"):
        given = ["evaluate", "--videos", "missing", "--dnn", "missing", spelling, str(tmp_path)]
        done = CliRunner().invoke(accmpeg, given)
        assert done.stderr == "error: no such file or folder: missing\n"


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("footage") / "grey.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height = 320, 180
        container.mux(stream.encode(av.VideoFrame(320, 180)))
        container.mux(stream.encode(None))
    return file


@pytest.mark.parametrize(
    ("verb", "option", "said"),
    [
        ("serve", "--device=tpu", "there is no device 'tpu'"),
        ("serve", "--device=cpu,", "there is no device ''"),
        ("serve", "--device=cuda:-1", "there is no device 'cuda:-1'"),
        ("serve", "--threads=99999999999999999999", "--threads"),
        ("serve", "--workers=0", "--workers 0"),
        ("serve", "--publish-per-second=-1", "--publish-per-second"),
        ("serve", "--dnn-folder=nowhere", "--dnn-folder nowhere is no folder"),
        ("serve", "--tokens=.", "Is a directory"),
        ("stream", "--codec=x", "no codec named 'x'"),
        ("stream", "--preset=x", "no preset 'x'"),
        ("stream", "--bitrate=99999999999999999999", "Numerical result out of range"),
        ("stream", "--results=tcp:127.0.0.1:99999", "give tcp:127.0.0.1:PORT"),
        ("stream", "--results-per-second=nan", "--results-per-second"),
        ("stream", "--size=²x²", "--size ²x²"),
        ("stream", "--to=ws://h:abc", "port"),
        ("stream", "--token-file=.", "Is a directory"),
        ("stream", "--profile=.", "Is a directory"),
        ("encode", "--codec=x", "no codec named 'x'"),
        ("fleet", "--token-file=.", "Is a directory"),
    ],
)
def test_what_can_not_be_meant_is_bad_use_in_one_line(
    footage: Path, tmp_path: Path, verb: str, option: str, said: str
) -> None:
    arguments = {
        "serve": ["--port=0", "--dnn=nowhere.card.toml"],
        "stream": [str(footage), "--policy=none", "--to=ws://127.0.0.1:1"],
        "encode": [str(footage), "--policy=none", f"--output={tmp_path / 'out.mp4'}"],
        "fleet": ["http://127.0.0.1:1"],
    }[verb]
    done = CliRunner().invoke(accmpeg, [verb, *arguments, option], env={"COLUMNS": "400"})
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_an_empty_accmodel_is_a_failure_like_one_that_is_not_there(footage: Path) -> None:
    command = ["stream", str(footage), "--to=ws://127.0.0.1:1", "--accmodel="]
    done = CliRunner().invoke(accmpeg, command)
    assert done.exit_code == 1, done.output
    assert "can't be read as a card" in done.output


def test_a_stream_without_a_server_is_asked_for_one_first(footage: Path) -> None:
    done = CliRunner().invoke(accmpeg, ["stream", str(footage)], env={"COLUMNS": "400"})
    assert done.exit_code == 2, done.output
    assert "error: nowhere to stream to: give a server (--to) or an address (--publish)\n" in done.output


def test_an_accmodel_that_was_copied_without_its_card_says_so(footage: Path, tmp_path: Path) -> None:
    (tmp_path / "cheap.onnx").write_bytes(b"weights")
    command = ["encode", str(footage), f"-o={tmp_path / 'out.mp4'}", f"--accmodel={tmp_path / 'cheap.onnx'}"]
    done = CliRunner().invoke(accmpeg, command, env={"COLUMNS": "400"})
    assert done.exit_code == 1, done.output
    assert (
        "cheap.onnx has no cheap.card.toml beside it: accmpeg train writes both, so copy both" in done.output
    )
