import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from accmpeg.accmodel import read_accmodel_card
from accmpeg.cli import app
from accmpeg.training.build import checkpoint_path
from accmpeg.training.fitting import Progress, train_network
from accmpeg.training.labels import read_labels
from accmpeg.training.settings import TrainingSettings
from tests.training.synthetic_labels import SMALL


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


def test_train_says_what_it_takes_and_what_was_done(labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    done = CliRunner().invoke(app, ["train", str(labels), "-o", str(output), "--epochs", "6"])
    assert done.exit_code == 0, done.output
    assert re.search(r"^6 epochs take about \d+ (s|min) on this machine", done.stderr, re.M)
    # The runner is no terminal: what was done last is said as a line.
    assert re.search(r"^epoch 6\.0 of 6\.0 .* 100/100", done.stderr, re.M)
    assert "schedule completed: 6 of 6 epochs" in done.stdout
    assert "warning" not in done.output
    record = read_accmodel_card(output).training
    assert record is not None
    assert (record.epochs, record.epochs_asked, record.ended) == (6, 6, "epochs")


def test_train_says_that_time_was_short_and_so_do_those_who_use_it(labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    options = ["--epochs", "1000", "--minutes", "0.05"]
    done = CliRunner().invoke(app, ["train", str(labels), "-o", str(output), *options])
    assert done.exit_code == 0, done.output
    assert re.search(r"schedule shortened: [\d.]+ of 1000 epochs, because --minutes 0.05 was up", done.stdout)
    assert "warning: the AccModel m may steer badly" in done.stderr
    card = read_accmodel_card(output)
    assert card.training is not None
    assert card.training.ended == "minutes"
    assert card.shortcomings() is not None
    video = str(tmp_path / "o.mp4")
    encoded = CliRunner().invoke(
        app, ["encode", "scene", "-o", video, "--accmodel", str(output), "--limit", "1"]
    )
    assert encoded.exit_code == 0, encoded.output
    assert "of 1000 epochs" in encoded.stderr
    streamed = CliRunner().invoke(
        app, ["stream", "scene", "--accmodel", str(output), "--limit", "1", "--publish", video]
    )
    assert "may steer badly" in streamed.stderr


@pytest.mark.parametrize(
    ("share", "epochs", "said"),
    [
        (0.9, 40.0, None),
        (0.615, 40.0, "0.615, below 0.65"),
        (0.9, 5.0, "5 of 40 epochs"),
        (0.5, 5.0, "0.500, below 0.65 and its training"),
    ],
)
def test_a_card_says_what_it_lacks(trained: Path, share: float, epochs: float, said: str | None) -> None:
    card = read_accmodel_card(trained)
    assert card.training is not None
    assert card.shortcomings() is None
    training = card.training.model_copy(update={"epochs": epochs, "epochs_asked": 40, "ended": "minutes"})
    quality = [card.quality[0].model_copy(update={"top_share": share}), *card.quality[1:]]
    changed = card.model_copy(update={"training": training, "quality": quality}).shortcomings()
    assert (changed is None) == (said is None)
    assert said is None or said in (changed or "")
