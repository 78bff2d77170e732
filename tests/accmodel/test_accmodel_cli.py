import json
from pathlib import Path

import pytest
from synthetic_labels import SMALL
from typer.testing import CliRunner

from accmpeg.accgrad.labels import read_labels
from accmpeg.accmodel.build import checkpoint_path
from accmpeg.accmodel.training import Progress, TrainingSettings, train_network
from accmpeg.cli import app


def test_train_writes_an_accmodel_and_its_card(labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    done = CliRunner().invoke(app, ["train", str(labels), "-o", str(output), "--epochs", "1", "--json"])
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert card["name"] == "m"
    assert card["dnn"]["name"] == "discs"
    assert card["quality"][0]["top_share"] > 0
    assert output.exists()


def test_train_says_what_is_wrong_in_one_line(labels: Path, tmp_path: Path) -> None:
    wrong_name = CliRunner().invoke(app, ["train", str(labels), "-o", str(tmp_path / "m.pt")])
    assert wrong_name.exit_code == 2
    assert ".onnx" in wrong_name.output
    no_labels = CliRunner().invoke(app, ["train", str(tmp_path), "-o", str(tmp_path / "m.onnx")])
    assert no_labels.exit_code == 1
    assert "accmpeg label" in no_labels.output
    assert "Traceback" not in wrong_name.output + no_labels.output


def test_train_names_the_checkpoint_of_other_settings(labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(
            [read_labels(labels)], checkpoint_path(output), TrainingSettings(**SMALL), progress=interrupt
        )
    refused = CliRunner().invoke(app, ["train", str(labels), "-o", str(output)])
    assert refused.exit_code == 1
    assert "--restart" in refused.output
