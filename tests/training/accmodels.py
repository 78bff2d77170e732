"""AccModels that are trained in seconds, for the tests of the rooms that make and run them."""

from pathlib import Path

import pytest

from accmpeg.training.build import train_accmodel
from accmpeg.training.settings import TrainingSettings
from tests.training.synthetic_labels import SMALL, write_synthetic_labels

__all__ = ["labels", "trained", "unseen_labels"]


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
    train_accmodel(
        [labels], out=output, settings=TrainingSettings(epochs=8, **SMALL), validation=[unseen_labels]
    )
    return output
