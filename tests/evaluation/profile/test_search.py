"""The search on simulated sites whose truth is known: what is measured next, and what is chosen."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accmpeg.evaluation.bench.rows import CELLS_NAME, read_rows
from accmpeg.evaluation.methods.whole_stream import StreamSetting
from accmpeg.evaluation.profile.parts import Parts
from accmpeg.evaluation.profile.search import Outcome, search
from accmpeg.evaluation.settings import ProfileSettings
from tests.evaluation.simulated import clip_rows

SIZE_PX = (640, 360)
SMALLER = {"480x270": 1.2}


def searched(folder: Path, monkeypatch: pytest.MonkeyPatch, **factors: float) -> tuple[Outcome, set[str]]:
    """The outcome where a part of a stream's name multiplies its bytes, and what was measured."""

    def bits(name: str) -> float:
        share = 1.0
        for part in name.removeprefix("stream:").split("+"):
            share *= factors.get(part, 1.0)
        return share

    def sweep(parts: Any, dnns: Any, methods: Any, folder: Path, settings: Any, **_: Any) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / CELLS_NAME
        known = {row.key for row in read_rows(file)} if file.exists() else set()
        shares = {method.name: bits(method.name) for method in methods}
        rows = [row for part in parts for row in clip_rows(part.name, shares, camera_ratio=0.9)]
        with file.open("a", encoding="utf-8") as lines:
            lines.writelines(row.to_line() for row in rows if row.key not in known)

    monkeypatch.setattr("accmpeg.evaluation.profile.search.run_sweep", sweep)
    names = ("a@0", "a@40"), ("a@80", "a@120")
    choice, judging = (tuple(SimpleNamespace(name=name) for name in half) for half in names)
    parts: Any = Parts(choice, judging, SIZE_PX, Fraction(30))  # type: ignore[arg-type]
    shape = SimpleNamespace(stream_size_px=lambda w, h: (w, h))
    card = SimpleNamespace(name="tiny", task="detection", input=shape)
    dnn: Any = SimpleNamespace(card=card, accmodel=None, stronger=None)
    found = search(parts, dnn, folder / "cells", ProfileSettings())
    return found, {row.method for row in read_rows(folder / "cells" / CELLS_NAME)}


def test_the_map_of_the_best_stream_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, measured = searched(
        tmp_path, monkeypatch, b2=0.85, feedback=0.7, margin1=0.85, medium=1.3, **SMALLER
    )
    assert found.choice == StreamSetting(b_frames=2, map="feedback", map_margin=1)
    tuned = {name for name in measured if "strength" in name or "margin" in name}
    assert len(tuned) == 4, "only of the best stream"
    assert found.verdict is not None
    assert found.verdict.gain < -0.5


def test_no_map_is_tuned_where_none_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, measured = searched(tmp_path, monkeypatch, b2=0.85, feedback=1.2, medium=1.1, **SMALLER)
    assert found.choice == StreamSetting(b_frames=2)
    assert not any("strength" in name or "margin" in name for name in measured)
