"""`accmpeg cluster train`: the training of one machine by several nodes, to float tolerance."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from accmpeg.training.build import checkpoint_path
from tests.cluster.conftest import accmpeg_command
from tests.helpers import until
from tests.training.synthetic_labels import write_synthetic_labels

pytest.importorskip("ray.train.torch", exc_type=ImportError)
pytestmark = pytest.mark.slow

TOLERANCE = 0.01
"""Of all weights together, relative to their norm. In double precision a step's gradients agree to 1e-13 (see
`tests/training/test_team.py`); in single precision rounding flips rectifiers, and 11 steps came to 0.0014."""


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_labels(tmp_path_factory.mktemp("labels") / "set", frames=60)


def difference(one: Path, other: Path) -> float:
    ours, theirs = load_file(one.with_suffix(".safetensors")), load_file(other.with_suffix(".safetensors"))
    assert ours.keys() == theirs.keys()
    whole, apart = (
        torch.cat([each.double().ravel() for each in values])
        for values in (ours.values(), [ours[name] - theirs[name] for name in ours])
    )
    return float(apart.norm() / whole.norm())


def asked(labels: Path, out: Path, epochs: int) -> list[object]:
    return [labels, "-o", out, "--epochs", epochs, "--device", "cpu", "--json"]


def test_the_weights_are_those_of_one_machine(cluster: Any, labels: Path, tmp_path: Path) -> None:
    # After one epoch there is nothing to choose from: of two that judge alike, rounding would choose.
    local, together = tmp_path / "local.onnx", tmp_path / "together.onnx"
    subprocess.run(accmpeg_command("train", *asked(labels, local, 1)), check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        accmpeg_command("cluster", "train", *asked(labels, together, 1), "--address", cluster.address),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["training"]["epochs"] == 1
    assert difference(local, together) < TOLERANCE
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{name}.{suffix}"
        for name in ("local", "together")
        for suffix in ("onnx", "safetensors", "card.toml")
    }


@pytest.mark.timeout(600)
def test_neither_a_killed_node_nor_ctrl_c_costs_more_than_time(
    cluster: Any, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long Ray Train hopes for the lost node before it goes on with what is left.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    out = tmp_path / "together.onnx"
    command = accmpeg_command("cluster", "train", *asked(labels, out, 6), "--address", cluster.address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: process.poll() is not None or checkpoint_path(out).exists())
        assert process.poll() is None, process.stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip().endswith("interrupted: what was finished is kept")
    kept = checkpoint_path(out).stat().st_mtime_ns
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: process.poll() is not None or checkpoint_path(out).stat().st_mtime_ns > kept)
        assert process.poll() is None, process.stderr
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        said, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert "going on from" in errors
    assert json.loads(said)["training"]["epochs"] == 6
