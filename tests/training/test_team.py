"""Processes that train together take the steps of one alone."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from accmpeg.training import fitting
from accmpeg.training.labels import read_labels
from accmpeg.training.samples import Batch
from accmpeg.training.settings import TrainingSettings
from tests.helpers import free_port
from tests.training.synthetic_labels import write_synthetic_labels

SETTINGS = TrainingSettings(epochs=1, batch_size=13, view_height_px=96, view_width_px=128, device="cpu")


def in_double_precision() -> None:
    """For this process: in single precision, rounding flips rectifiers and hides what is wrong."""
    collate, network = fitting.collate, fitting.AccModelNetwork
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    fitting.AccModelNetwork = lambda *given, **named: network(*given, **named).double()  # type: ignore
    fitting.collate = lambda views: Batch(  # type: ignore[assignment]
        *(getattr(collate(views), name).double() for name in Batch.__slots__)
    )


def step(rank: int, size: int, port: int, folder: Path, out: Path) -> None:
    """Keeps the gradients of one step of training, and the statistics of its batch."""
    torch.set_num_threads(1)
    in_double_precision()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if size > 1:
        dist.init_process_group("gloo", rank=rank, world_size=size)
    kept = {}

    def keep(self: torch.optim.Optimizer) -> None:
        kept.update(
            {name: each.grad for name, each in run.network.named_parameters() if each.grad is not None}
        )

    items = list(read_labels(folder))
    run = fitting._Run(items[:13], items[13:], out / "no-checkpoint", SETTINGS, lambda _: None)
    torch.optim.AdamW.step = keep  # type: ignore
    run._train_step()
    kept.update({name: each for name, each in run.network.state_dict().items() if "running" in name})
    if rank == 0:
        torch.save(kept, out / f"{size}.pt")
    if size > 1:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"objects": True}, {"objects": False, "class_maps": True}])
def test_three_processes_take_the_step_of_one(tmp_path: Path, kind: dict[str, bool]) -> None:
    folder = write_synthetic_labels(tmp_path / "labels", frames=16, **kind)
    for size in (1, 3):
        multiprocessing.spawn(step, (size, free_port(), folder, tmp_path), nprocs=size)
    one, three = (torch.load(tmp_path / f"{size}.pt") for size in (1, 3))
    assert one.keys() == three.keys()
    for name, value in one.items():
        scale = float(value.norm()) or 1.0
        assert float((three[name] - value).norm()) < 1e-9 * scale, name


def test_alone_a_process_shares_and_averages_with_nobody() -> None:
    team = fitting.Team()
    assert team.leads
    assert list(team.share(range(5))) == [0, 1, 2, 3, 4]
    assert team.agreed([0.5, 3], torch.device("cpu")) == [0.5, 3]
    value: Tensor = torch.ones(2)
    assert team.mean(value) is value
