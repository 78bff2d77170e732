import pytest
import torch

from tests.training.accmodels import labels, trained, unseen_labels

__all__ = ["labels", "trained", "unseen_labels"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
