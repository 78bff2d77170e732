"""Loading DNNs: how many copies of one run at once."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from accmpeg.dnn import torch_network
from accmpeg.errors import DnnError
from accmpeg.server import ServerSettings, models
from accmpeg.server.dnns import load_all
from accmpeg.server.server import Server
from tests.dnn.adapter_checks import write_adapter_card
from tests.dnn.exported import SIZE_PX, fixed
from tests.dnn.tiny_networks import write_tiny_card
from tests.server.stubborn import Stubborn, write_card


def copies(card: Path, **settings: int) -> int:
    """Over all workers."""
    (found,) = load_all(ServerSettings(dnns=(card,), **settings)).values()
    return sum(len(each.copies) for each in found.values())


def test_a_quick_dnn_runs_on_every_core_and_a_slow_one_once(
    card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "QUICK_MS", 1e6)
    assert copies(card) == min(len(os.sched_getaffinity(0)), models.MOST_COPIES)
    monkeypatch.setattr(models, "QUICK_MS", 0.0)
    assert copies(card) == 1


def test_what_the_settings_say_counts(card: Path) -> None:
    assert copies(card, copies=3) == 3
    assert copies(card, threads=2) == 1


def test_a_slow_pytorch_dnn_has_the_threads_that_trying_it_on_one_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch_network, "USUAL_THREADS", before + 1)
    monkeypatch.setattr(models, "QUICK_MS", 0.0)
    try:
        slow = write_adapter_card(tmp_path, "callable", "tests.dnn.user_networks:detector")
        assert copies(slow) == 1
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_two_dnns_that_are_put_under_one_name_at_once_come_one_after_the_other(
    card: Path, tmp_path: Path
) -> None:
    """The later one has as many copies as the name has threads by then."""
    for name, frame_s in (("quick", 0.0), ("slow", 0.1)):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, frame_s=frame_s)
    settings = ServerSettings(dnns=(card,), dnn_folder=tmp_path)

    async def work() -> dict[str, int]:
        server = Server(settings, load_all(settings))
        puts = (server.exchange("new", f"{name}/stubborn.card.toml") for name in ("quick", "slow"))
        await asyncio.gather(*puts)
        await server.close()
        return server.core.dnns["new"].copies

    assert asyncio.run(work()) == {"cpu": copies(tmp_path / "quick" / "stubborn.card.toml")}


@pytest.mark.parametrize("settings", [{}, {"copies": 2}, {"threads": 1}])
def test_a_dnn_that_does_not_fit_its_card_is_told_at_the_start(
    settings: dict[str, int], tmp_path: Path
) -> None:
    network = fixed(tmp_path / "net.onnx", boxes=np.zeros((1, 100, 4)), scores=np.zeros((1, 99, 2)))
    size = {"input__width_px": SIZE_PX, "input__height_px": SIZE_PX, "input__size_multiple": None}
    with pytest.raises(DnnError, match=r"^net: .* \(N, 4\), \(N, 2\) .* gave \(100, 4\), \(99, 2\): correct"):
        copies(write_tiny_card(network, head="boxes", **size), **settings)


def test_a_dnn_that_is_put_in_place_has_inferred_before_frames_come(card: Path) -> None:
    """Its first frame also sets up the runtime, which cameras that stream would wait for."""
    settings = ServerSettings(dnns=(card,))
    (first,) = models.load(settings, card).values()
    (later,) = models.load(settings, card, {"cpu": 2}).values()
    assert (first.frame_s, len(later.copies)) == (0.0, 2)
    assert 0 < later.frame_s < 10


def test_a_dnn_that_fails_is_not_put_in_place(tmp_path: Path) -> None:
    failing = write_card(tmp_path)
    Stubborn.fails.set()
    try:
        with pytest.raises(DnnError, match=r"stubborn failed on .*: device-side assert"):
            models.load(ServerSettings(dnns=(failing,)), failing, {"cpu": 1})
    finally:
        Stubborn.fails.clear()
