from pathlib import Path

import pytest
import torch
from synthetic_labels import SMALL, write_synthetic_labels

from accmpeg.accmodel.build import train_accmodel
from accmpeg.accmodel.training import TrainingSettings


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_labels(tmp_path_factory.mktemp("labels") / "discs")


@pytest.fixture(scope="session")
def unseen_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_labels(tmp_path_factory.mktemp("labels") / "unseen", frames=6, seed=1)


@pytest.fixture(scope="session")
def trained(labels: Path, unseen_labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AccModel trained for a few seconds on discs."""
    output = tmp_path_factory.mktemp("accmodel") / "discs.onnx"
    train_accmodel([labels], output, TrainingSettings(epochs=8, **SMALL), validation=[unseen_labels])
    return output
