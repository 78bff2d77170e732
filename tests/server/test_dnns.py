"""Loading DNNs: how many copies of one run at once."""

import os
from pathlib import Path

import pytest

from accmpeg.server import ServerSettings, models
from accmpeg.server.dnns import load_all


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
