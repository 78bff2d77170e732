"""What a sweep refuses before it measures: names, models that can't be meant, another run."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accmpeg.demo import assets_path
from accmpeg.errors import EvaluationError, UsageError
from accmpeg.evaluation import ClipSpec, evaluate
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.measure import Bench
from accmpeg.evaluation.bench.plan import DnnSpec, Group
from accmpeg.evaluation.bench.sweep import run_sweep
from accmpeg.evaluation.methods import METHODS
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.workers import LocalWorkers

CARD = assets_path() / "detector.card.toml"
MODEL = assets_path() / "accmodel.card.toml"


def test_a_network_does_not_confirm_itself(small_card: Path, tmp_path: Path) -> None:
    """Else every answer would be called confirmed."""
    other = tmp_path / "other.card.toml"
    other.write_text(small_card.read_text().replace('name = "accmpeg-demo', 'name = "small', 1))
    small, whole = DnnSpec.read_all([other, CARD], [], CARD)
    assert small.stronger is not None
    assert whole.stronger is None
    with pytest.raises(UsageError, match="confirms nothing: it takes a stronger DNN"):
        DnnSpec.read_all([CARD], [], CARD)


def test_two_accmodels_of_one_dnn_are_refused(tmp_path: Path) -> None:
    for file in ("accmodel.card.toml", "accmodel.onnx"):
        shutil.copy(assets_path() / file, tmp_path)
    with pytest.raises(UsageError, match="were both made for"):
        DnnSpec.read_all([CARD], [MODEL, tmp_path / MODEL.name])


def test_two_clips_of_one_name_are_refused(clip: Clip, tmp_path: Path) -> None:
    """Such as the embedded scene and a file scene.mp4: their cells would be taken for one another's."""
    clips = [ClipSpec("scene", content, lambda limit: clip) for content in ("one", "other")]
    with pytest.raises(UsageError, match="two clips are called scene"):
        evaluate(clips, dnns=[CARD], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_frame_is_no_stream(clip: Clip, small_card: Path, tmp_path: Path) -> None:
    """A keyframe's share of a GOP would be called its bitrate: a hundredth of what crosses the network."""
    still = ClipSpec("still", "as rendered", lambda limit: replace(clip, frames=clip.frames[:1]))
    group = Group(still, DnnSpec.read_all([small_card], [])[0], ("constant-qp",))
    rows = list(Bench(group, tmp_path, SweepSettings()).cells({}))
    assert len(rows) == 2
    assert all("give a longer clip" in (row.reason or "") for row in rows)


def test_a_second_run_in_the_folder_of_one_that_measures_is_refused(small_card: Path, tmp_path: Path) -> None:
    """Both would time their stages on one machine, and have half the cells of a curve each."""
    clips = [ClipSpec("street", "never opened", lambda limit: pytest.fail("measured"))]
    sweep = clips, DnnSpec.read_all([small_card], []), [METHODS["aq-1"]], tmp_path, SweepSettings()
    tries: list[str] = []

    class Trying(LocalWorkers):
        def as_finished(self, *arguments: Any, **options: Any) -> None:
            with pytest.raises(EvaluationError, match="another run is measuring in") as refused:
                run_sweep(*sweep)
            tries.append(str(refused.value))

    for _ in range(2):
        assert run_sweep(*sweep, workers=Trying(1)) == []
    assert len(tries) == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"primary": ["graded@dn:aq-1"]}, "is called graded@dn:aq-1: did you mean 'graded@dnn'"),
        ({"primary": ["aq-1@dnn:aq1"]}, "is called aq-1@dnn:aq1"),
        ({"baselines": ["aq-7"]}, "is called aq-7: did you mean"),
    ],
)
def test_a_misspelt_comparison_is_told_before_anything_is_measured(
    asked: Any, said: str, clip: Clip, small_card: Path, tmp_path: Path
) -> None:
    """Afterwards it can't be named any more."""
    clips = [ClipSpec("street", "never opened", lambda limit: clip)]
    with pytest.raises(UsageError, match=said):
        evaluate(clips, dnns=[small_card], out=tmp_path / "out", methods="aq-1,aq-1@dnn", **asked)
    assert not (tmp_path / "out").exists()
