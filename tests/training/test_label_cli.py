"""`accmpeg label` as a user meets it: what it prints, exit codes, Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.training.labelling import label_footage
from accmpeg.training.labels import read_labels
from tests.dnn.inference_servers import HttpServer, Model, remote_card

runner = CliRunner()


@pytest.fixture
def stills(tmp_path, write_picture):
    for seed in range(3):
        write_picture(tmp_path / "stills" / f"{seed}-picture.png", seed)
    return tmp_path / "stills"


def arguments(stills, card, tmp_path, *more):
    return ["label", str(stills), "--dnn", str(card), "-o", str(tmp_path / "labels"), "--workers", "1", *more]


def test_counts_and_speed_are_printed(segmenter_card, stills, tmp_path):
    (stills / "empty.png").write_bytes(b"")
    done = runner.invoke(app, arguments(stills, segmenter_card, tmp_path))
    assert done.exit_code == 0, done.output
    assert "3 labels in" in done.stdout
    assert "(3 new), 1 skipped (named in" in done.stdout
    assert "ms per new label" in done.stdout


def test_json_is_one_document(segmenter_card, stills, tmp_path):
    done = runner.invoke(app, arguments(stills, segmenter_card, tmp_path, "--json"))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["labels"], report["new"], report["skipped"]) == (3, 3, 0)
    again = json.loads(runner.invoke(app, arguments(stills, segmenter_card, tmp_path, "--json")).stdout)
    assert (again["labels"], again["new"], again["ms_per_frame"]) == (3, 0, None)


@pytest.mark.parametrize(
    ("more", "exit_code", "message"),
    [
        (["--at", "middle"], 2, "give low or high"),
        (["--qp-high", "41"], 2, "give 0 <= high < low <= 51"),
        (["--every", "0"], 2, "--every 0"),
        (["--workers", "0"], 2, "--workers 0"),
    ],
)
def test_bad_use_is_one_line(segmenter_card, stills, tmp_path, more, exit_code, message):
    done = runner.invoke(app, arguments(stills, segmenter_card, tmp_path, *more))
    assert done.exit_code == exit_code, done.output
    assert f"error: {more[0]}" in done.stderr
    assert message in done.stderr


def test_missing_footage_and_missing_card_are_one_line(segmenter_card, stills, tmp_path):
    for footage, card in ((tmp_path / "nowhere", segmenter_card), (stills, tmp_path / "nowhere.card.toml")):
        done = runner.invoke(app, arguments(footage, card, tmp_path))
        assert done.exit_code == 1
        assert "nowhere" in done.stderr


def test_nothing_but_bad_footage_fails(segmenter_card, tmp_path):
    (tmp_path / "stills").mkdir()
    (tmp_path / "stills" / "empty.png").write_bytes(b"")
    done = runner.invoke(app, arguments(tmp_path / "stills", segmenter_card, tmp_path))
    assert done.exit_code == 1
    assert "nothing could be labelled" in done.stderr
    assert "0 bytes" in done.stderr


def test_labels_that_say_nothing_are_a_failure(constant_card, stills, tmp_path):
    done = runner.invoke(app, arguments(stills, constant_card, tmp_path))
    assert done.exit_code == 1, done.output
    assert "the result of constant does not depend on these frames" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_finished_class_maps_are_labelled_as_a_black_box(class_map_card, stills, tmp_path):
    refused = runner.invoke(app, arguments(stills, class_map_card, tmp_path))
    assert refused.exit_code == 1
    assert "finished classes" in refused.stderr
    assert "black-box" in refused.stderr
    done = runner.invoke(app, arguments(stills, class_map_card, tmp_path, "--black-box", "12", "--restart"))
    assert done.exit_code == 0, done.output
    label = next(iter(read_labels(tmp_path / "labels"))).load()
    assert set(np.unique(label.result["classes"])) == {0, 1}
    assert np.ptp(label.accgrad_log2) > 0


def test_a_dnn_on_an_inference_server_is_labelled_as_a_black_box(tmp_path):
    with HttpServer(Model()) as there:
        card = remote_card(tmp_path, there.address)
        (tmp_path / "stills").mkdir()
        for number, frame in enumerate(SceneSource(SceneSpec(87, 320, 180, frame_count=2))):
            frame.to_image().save(tmp_path / "stills" / f"{number}.png")
        refused = runner.invoke(app, arguments(tmp_path / "stills", card, tmp_path))
        assert refused.exit_code == 1
        assert f"runs on {there.address}, which gives no gradient" in refused.stderr
        assert "--black-box" in refused.stderr
        more = ("--black-box", "12", "--restart")
        done = runner.invoke(app, arguments(tmp_path / "stills", card, tmp_path, *more))
        assert done.exit_code == 0, done.output
    for label in read_labels(tmp_path / "labels"):
        assert np.ptp(label.load().accgrad_log2) > 0
    away = runner.invoke(app, arguments(tmp_path / "stills", card, tmp_path, *more))
    assert away.exit_code == 1
    assert away.stderr.startswith(f"error: nothing listens at 127.0.0.1:{there.port}")


@pytest.mark.slow
def test_an_interrupt_between_two_labels_keeps_those_in_work(segmenter_card, stills, tmp_path):
    def interrupt(done, expected):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_footage(
            [str(stills)],
            dnn=segmenter_card,
            out=tmp_path / "labels",
            workers=2,
            progress=interrupt,
        )
    files = list((tmp_path / "labels").glob("*/*.npz"))
    assert len(read_labels(tmp_path / "labels")) == len(files) > 0


@pytest.mark.slow
def test_ctrl_c_with_several_processes_keeps_what_was_finished(segmenter_card, write_picture, tmp_path):
    stills = tmp_path / "stills"
    for seed in range(200):
        write_picture(stills / f"{seed}-picture.png", seed % 5)
    command = [sys.executable, "-m", "accmpeg", *arguments(stills, segmenter_card, tmp_path)]
    command[command.index("--workers") + 1] = "2"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / "labels" / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and journal.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stdout + stderr
    kept = len(read_labels(tmp_path / "labels"))
    assert 0 < kept < 200
    assert len(list((tmp_path / "labels").glob("*/*.npz"))) == kept
    assert not list((tmp_path / "labels").glob("*/*.part"))
