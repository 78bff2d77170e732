"""`accmpeg models` as a user meets it: files, exit codes, one line for what is wrong."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.dnn.card import read_card

runner = CliRunner()


@pytest.fixture(scope="module")
def detector(shared_data, tmp_path_factory):
    """A folder with one real network and its description."""
    folder = tmp_path_factory.mktemp("models")
    for suffix in (".onnx", ".json"):
        shutil.copy(shared_data / "models" / f"leyolo_nano{suffix}", folder)
    return folder


@pytest.fixture
def card(detector, tmp_path):
    done = runner.invoke(app, ["models", "import", str(detector), "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    return tmp_path / "cards" / "leyolo_nano.card.toml"


def test_import_then_check(card, shared_data, tmp_path):
    picture = shared_data / "images" / "coco_000000000036.jpg"
    drawn = tmp_path / "drawn.png"
    done = runner.invoke(
        app, ["models", "check", str(card), "--image", str(picture), "-o", str(drawn), "--json"]
    )
    assert done.exit_code == 0, done.output
    findings = {finding["name"]: finding["ok"] for finding in json.loads(done.stdout)["findings"]}
    assert findings["PyTorch equals runtime"]
    assert findings["gradient non-zero"]
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_changed_weights_are_one_line_and_exit_code_1(card, detector, shared_data, tmp_path):
    text = card.read_text()
    card.write_text(text.replace(read_card(card).sha256, "0" * 64))
    picture = str(shared_data / "images" / "coco_000000000036.jpg")
    done = runner.invoke(app, ["models", "check", str(card), "--image", picture])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "is not the file that" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["import", "nowhere"], 2, "neither an ONNX file nor a folder"),
        (["import", "nowhere", "--set", "task"], 2, "give KEY=VALUE"),
        (["check", "nowhere.card.toml", "--image", "nowhere.jpg"], 1, "nowhere"),
        (["check", "nowhere.card.toml", "--image", "nowhere.jpg", "-o", "drawn.jpg"], 2, "is a PNG"),
    ],
)
def test_bad_use_is_one_line(arguments, exit_code, message):
    done = runner.invoke(app, ["models", *arguments])
    assert done.exit_code == exit_code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_bad_network_among_good_ones(detector, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(detector, folder)
    (folder / "broken.onnx").write_bytes(b"")
    done = runner.invoke(app, ["models", "import", str(folder)])
    assert done.exit_code == 1
    assert "failed broken.onnx" in done.stderr
    assert (folder / "leyolo_nano.card.toml").is_file()
