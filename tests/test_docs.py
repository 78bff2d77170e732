"""What README and docs say runs: their Python examples, their commands, and the links of the README.

Every fenced `python` block of a page runs, in order and in one namespace per page, in a folder with
`street.mp4`, `clip.npy`, `cheap.card.toml`, `street.card.toml` and a finished sweep in `results/`, while a
server listens. A comment `<!-- not run: why -->` on the line before a block leaves it out.
"""

import lzma
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import accmpeg.cli
from accmpeg.demo import assets_path, demo_scene
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink
from accmpeg.media.source import open_source
from accmpeg.protocol.wire import SUBPROTOCOL
from accmpeg.server import ServerSettings, ServerThread
from structure import LAYERS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SCRIPTS = [ROOT / "Makefile", ROOT / "tools/release.sh", *sorted((ROOT / "deploy/systemd").glob("*.service"))]
PAGES = [README, *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_generated" not in page.parts)]
BLOCK = re.compile(
    r"(?P<left_out><!-- not run: .+? -->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
FRAMES = 6


def examples(page: Path) -> list[str]:
    return [
        found["code"] for found in BLOCK.finditer(page.read_text(encoding="utf-8")) if not found["left_out"]
    ]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples name."""
    folder = tmp_path_factory.mktemp("workshop")
    with demo_scene(frame_count=FRAMES) as scene:
        settings = EncoderSettings.for_source(scene.info, crf=20, steerable=False)
        with Encoder(settings) as encoder, open_sink(folder / "street.mp4", encoder) as sink:
            for frame in scene:
                for unit in encoder.encode(frame):
                    sink.write(unit)
            for unit in encoder.flush():
                sink.write(unit)
    np.save(folder / "clip.npy", np.full((FRAMES, 96, 128, 3), 90, np.uint8))
    for old, new in (("accmodel", "cheap"), ("detector", "street")):
        (folder / f"{new}.onnx").write_bytes((assets_path() / f"{old}.onnx").read_bytes())
        card = (assets_path() / f"{old}.card.toml").read_text(encoding="utf-8")
        (folder / f"{new}.card.toml").write_text(card.replace(f"{old}.onnx", f"{new}.onnx"), encoding="utf-8")
    cells = lzma.decompress((ROOT / "results" / "yolo11n" / "cells.jsonl.xz").read_bytes())
    (folder / "results").mkdir()
    (folder / "results" / "cells.jsonl").write_bytes(b"".join(cells.splitlines(keepends=True)[:40]))
    return folder


@pytest.fixture(scope="module")
def server_address() -> Iterator[str]:
    with ServerThread(ServerSettings(dnns=(assets_path() / "detector.card.toml",), port=0)) as server:
        yield server.websocket_url


@pytest.mark.parametrize(
    "page", [page for page in PAGES if examples(page)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_the_python_examples_run(
    page: Path, workshop: Path, server_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workshop)
    namespace: dict[str, object] = {"__name__": "example"}
    for code in examples(page):
        code = code.replace("ws://127.0.0.1:8700", server_address)
        exec(compile(code, str(page), "exec"), namespace)


def test_the_quickstart_makes_a_steered_stream(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = examples(ROOT / "docs" / "quickstart.md")
    monkeypatch.chdir(workshop)
    exec(compile(example, "quickstart.md", "exec"), {})
    with open_source(workshop / "steered.mp4") as steered:
        assert len(list(steered)) == FRAMES


def test_the_commands_and_their_options_exist() -> None:
    group: Any = typer.main.get_command(accmpeg.cli.app)
    seen = 0
    for page in (*PAGES, *SCRIPTS):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        place = r"/accmpeg (\w[^&;)\n]*)" if page in SCRIPTS else r"^ +(?:\S*/)?accmpeg (\w.*)"
        for line in re.findall(place, text, re.MULTILINE):
            words, command = line.partition("#")[0].split(), group
            while hasattr(command, "commands"):
                assert words[0] in command.commands, f"{page.name}: accmpeg {line}"
                command = command.commands[words.pop(0)]
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            given = {word.strip("[]").partition("=")[0] for word in words if word.strip("[").startswith("-")}
            assert given <= known | {"--help"}, f"{page.name}: accmpeg {line}: {given - known}"
            seen += 1
    assert seen


def test_the_links_of_the_readme_and_beside_it_lead_somewhere() -> None:
    for page in sorted(ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_files_that_pages_name_exist() -> None:
    named = re.compile(r"`((?:src|tests|tools|benchmarks|deploy|fuzz)/[\w./-]*)`")
    for page in [*PAGES, *sorted(ROOT.glob("*.md"))]:
        for path in named.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "concepts" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The rooms")[2].partition("\n\nWhat a camera imports")[0]
    named = {
        room
        for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
        for room in re.findall(r"`(\w+)`", row)
    }
    assert named == set().union(*LAYERS)


def test_the_wire_page_has_the_wires_version() -> None:
    assert f"`{SUBPROTOCOL}`" in (ROOT / "docs" / "concepts" / "wire.md").read_text(encoding="utf-8")


def test_the_quickstart_names_every_extra_of_users() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    table = page.partition("| extra |")[2].partition("\n\n")[0]
    named = {extra for row in table.splitlines() for extra in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(project["project"]["optional-dependencies"]) - {"dev", "docs", "fuzz"}


def test_the_repository_has_one_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    repository = project["project"]["urls"]["Repository"]
    readme = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    assert all(repository + "/" in each["replacement"] for each in readme["substitutions"])
