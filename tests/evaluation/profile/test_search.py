"""The search on simulated sites whose truth is known: what is measured, in what time, and what is chosen."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.rows import CELLS_NAME, read_rows
from accmpeg.evaluation.methods.whole_stream import StreamSetting
from accmpeg.evaluation.profile.parts import Parts
from accmpeg.evaluation.profile.render import sentences, table
from accmpeg.evaluation.profile.search import Outcome, search
from accmpeg.evaluation.settings import ProfileSettings
from accmpeg.media.codecs import LIVE_GOP_FRAMES
from tests.evaluation.simulated import clip_rows

SIZE_PX = (640, 360)
SMALLER = {"480x270": 1.2}
RARE = partial(StreamSetting, gop_frames=LIVE_GOP_FRAMES)
"""A stream as a camera sends it, whatever else is chosen."""
HALVES = ("a@0", "a@40", "a@80"), ("a@120", "a@160", "a@200")


@dataclass
class Site:
    """A camera's truth: parts of a stream's name multiply its bytes and its CPU; a cell takes its time."""

    bits: Mapping[str, float]
    cpu: Mapping[str, float] = field(default_factory=dict)
    judged_bits: Mapping[str, float] | None = None
    """Of the half that judges, where it is unlike the other one."""
    judged_coarse: str = "nothing"
    """Streams with this part have only coarse points there, as below a low bitrate of the footage itself."""
    cell_s: float = 0.0
    source_px: tuple[int, int] = SIZE_PX
    plain_cpu: float = 0.9
    now_s: float = 0.0
    stop_after: float = math.inf
    """Cells; then the search is interrupted."""
    cells: int = 0
    sweeps: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Parts and streams."""

    def run_sweep(
        self,
        parts: Any,
        dnns: Any,
        methods: Any,
        folder: Path,
        settings: Any,
        *,
        workers: int,
        progress: Callable[[str, int, int], None],
    ) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / CELLS_NAME
        known = {row.key for row in read_rows(file)}
        self.sweeps.append((len(parts), tuple(method.name for method in methods)))
        progress("costs", 0, len(parts))
        for part in parts:
            progress("cells", len(known), 0)
            for method in methods:
                coarse = self.judged_coarse in method.name and part.name in HALVES[1]
                points = (51, 50, 49, 48, 47) if coarse else (40, 34, 28, 31, 37)
                made = clip_rows(
                    part.name,
                    {method.name: _product(method.name, self._bits_of(part.name))},
                    qualities={method.name: points[: settings.points]},
                    camera_ratio=self.plain_cpu * _product(method.name, self.cpu),
                )
                for row in made:
                    if row.key in known:
                        continue
                    self.cells += 1
                    if self.cells > self.stop_after:
                        raise KeyboardInterrupt
                    self.now_s += self.cell_s
                    known.add(row.key)
                    with file.open("a", encoding="utf-8") as lines:
                        lines.write(row.to_line())
                    progress("cells", len(known), 0)

    def _bits_of(self, part: str) -> Mapping[str, float]:
        return self.bits if self.judged_bits is None or part in HALVES[0] else self.judged_bits

    def search(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Outcome:
        monkeypatch.setattr("accmpeg.evaluation.profile.measuring.run_sweep", self.run_sweep)
        choice, judging = (tuple(SimpleNamespace(name=name, sha256=name) for name in half) for half in HALVES)
        parts: Any = Parts(choice, judging, self.source_px, Fraction(30))  # type: ignore[arg-type]
        shape = SimpleNamespace(stream_size_px=lambda w, h: SIZE_PX)
        card = SimpleNamespace(name="tiny", sha256="0", task="detection", input=shape)
        dnn: Any = SimpleNamespace(card=card, accmodel=None, stronger=None)
        settings = ProfileSettings(**{"workers": 1, **asked})
        return search(parts, dnn, folder, settings, clock=lambda: self.now_s)


def _product(name: str, factors: Mapping[str, float]) -> float:
    return math.prod(factors.get(part, 1.0) for part in name.removeprefix("stream:").split("+"))


def measured_in(folder: Path) -> set[str]:
    return {row.method for row in read_rows(folder / CELLS_NAME)}


def test_the_map_of_the_best_stream_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site({"b2": 0.85, "feedback": 0.7, "margin1": 0.85, "medium": 1.3, **SMALLER})
    found = site.search(tmp_path, monkeypatch)
    assert found.choice == RARE(b_frames=2, map="feedback", map_margin=1)
    tuned = {name for name in measured_in(tmp_path) if "strength" in name or "margin" in name}
    assert len(tuned) == 4, "only of the best stream"
    assert found.verdict is not None
    assert found.verdict.gain < -0.5
    assert not found.left_out_minutes


@pytest.mark.parametrize(
    "judged",
    [
        pytest.param({"b2": 1.8, "feedback": 0.95}, id="no worse than what it replaced"),
        pytest.param({"b2": 1.01, "feedback": 1.0}, id="by less than that half can tell"),
    ],
)
def test_what_loses_to_plain_x264_on_the_other_half_is_taken_back(
    judged: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site({"b2": 0.8, "feedback": 0.75, **SMALLER}, judged_bits={**judged, **SMALLER})
    found = site.search(tmp_path, monkeypatch)
    assert found.choice == StreamSetting()
    assert found.verdict is not None
    assert found.verdict.gain == 0


def test_what_loses_on_the_other_half_leaves_at_least_the_bytes_of_rare_keyframes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits, judged = {"b2": 0.8, "gop1500": 0.93, **SMALLER}, {"b2": 1.4, "gop1500": 0.93, **SMALLER}
    found = Site(bits, judged_bits=judged).search(tmp_path, monkeypatch)
    assert found.choice == RARE()
    assert found.verdict is not None
    assert found.verdict.gain == pytest.approx(math.log(0.93), abs=0.01)


def test_what_does_not_keep_the_share_on_the_other_half_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = {"b2": 0.8, "feedback": 0.6, **SMALLER}
    found = Site(bits, judged_coarse="feedback").search(tmp_path, monkeypatch)
    assert found.chosen_by.of(RARE(b_frames=2, map="feedback")) is not None
    assert found.choice == RARE(b_frames=2)
    (row,) = (row for row in table(found) if row["stream"] == "source+b2+feedback+gop1500")
    assert row["other half, 90%"] == "never reached"


def test_a_half_that_can_not_judge_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Site({"b2": 0.8, **SMALLER}, judged_coarse="stream").search(tmp_path, monkeypatch)
    assert found.choice == StreamSetting()
    assert any("The other half can't judge anything else" in each for each in sentences(found))


def test_a_rate_beyond_what_was_measured_has_no_exact_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Site({**SMALLER}).search(tmp_path, monkeypatch, minutes=0.1)
    assert found.curve is not None
    last_bps, last = found.curve.bitrate_bps[-1], found.curve.share[-1]
    for times, least in ((0.99, ""), (20, "at least ")):
        curve = replace(found.curve, source_bitrate_bps=times * last_bps)
        said = " ".join(sentences(replace(found, curve=curve)))
        assert f"({least}{last:.0%} of the ceiling)" in said


def test_a_delay_that_no_stream_has_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match=r"no stream has a delay of 50 ms.*give --delay-budget-ms"):
        Site({**SMALLER}).search(tmp_path, monkeypatch, delay_budget_ms=50)


def test_no_map_is_tuned_where_none_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site({"b2": 0.85, "feedback": 1.2, "medium": 1.1, **SMALLER})
    found = site.search(tmp_path, monkeypatch)
    assert found.choice == RARE(b_frames=2)
    assert not any("strength" in name or "margin" in name for name in measured_in(tmp_path))


GOOD = {"b2": 0.8, "feedback": 0.75, "strength1.5": 0.85, "medium": 1.3, **SMALLER}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Cells of a search that nothing cuts short."""
    site = Site(GOOD)
    with pytest.MonkeyPatch.context() as patch:
        found = site.search(tmp_path_factory.mktemp("whole"), patch, camera_budget=1.5)
    assert not found.left_out_minutes
    return site.cells


@pytest.mark.parametrize(("cell_s", "minutes"), [(1.0, 5.0), (2.0, 5.0), (8.0, 5.0), (4.0, 10.0)])
def test_a_search_keeps_to_its_time(
    cell_s: float, minutes: float, whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(GOOD, cell_s=cell_s)
    found = site.search(tmp_path, monkeypatch, minutes=minutes, camera_budget=1.5)
    least_s = cell_s * (2 * (3 * 4 + 1) + 4 * 5 + 1)
    """The plain stream and two others, and three or four judged on one part."""
    assert site.now_s <= max(60 * minutes, least_s)
    assert "b2" in found.choice.name
    assert (found.left_out_minutes > 0) == (site.cells < whole)
    if site.cells < whole:
        assert site.now_s > 0.5 * 60 * minutes, "the time that there is gets used"


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        return Site(GOOD, cell_s=2.0).search(tmp_path_factory.mktemp("unstopped"), patch, minutes=8)


@pytest.mark.parametrize("stop_after", [20, 90, 150])
def test_a_search_that_was_stopped_ends_as_it_would_have(
    stop_after: int, unstopped: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Site(GOOD, cell_s=2.0, stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        stopped.search(tmp_path, monkeypatch, minutes=8)
    again = Site(GOOD, cell_s=2.0, now_s=1e6)
    found = again.search(tmp_path, monkeypatch, minutes=8)
    assert found.choice == unstopped.choice
    assert stopped.now_s + again.now_s - 1e6 <= 8 * 60, "the time before counts"
    rerun = Site(GOOD, cell_s=2.0, now_s=2e6)
    same = rerun.search(tmp_path, monkeypatch, minutes=8)
    assert not rerun.cells, "nothing is measured again, and nothing new"
    assert same.chain == found.chain
    assert same.judged[0].seen == found.judged[0].seen
    assert same.left_out_minutes == found.left_out_minutes


def test_a_damaged_record_of_the_time_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Site(GOOD).search(tmp_path, monkeypatch)
    (record,) = tmp_path.glob("search-*.json")
    record.write_text("{")
    with pytest.raises(EvaluationError, match="delete it"):
        Site(GOOD).search(tmp_path, monkeypatch)


CPU = {"b1": 0.9, "b2": 0.85, "superfast": 0.7, "faster": 1.55, "medium": 2.5}
CPU |= {"640x360": 0.45, "800x450": 0.65, "480x270": 0.3}


def test_what_will_not_fit_the_camera_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = {"640x360": 0.9, "medium": 0.7, "faster": 0.85, "b2": 0.9, "feedback": 0.95, "800x450": 0.85}
    site = Site(bits, CPU, source_px=(1280, 720), plain_cpu=1.0)
    found = site.search(tmp_path, monkeypatch)
    dear = {name for name in measured_in(tmp_path) if _product(name, CPU) > 1.3}
    assert dear <= {"stream:source+b2+gop1500", "stream:640x360+b2+medium+gop1500"}, (
        "tried once, to know the levers"
    )
    measured = {name for name in measured_in(tmp_path) if name.startswith("stream:")}
    assert len(measured) >= 14, "the rounds go to others"
    chosen = found.chosen_by.of(found.choice)
    assert chosen is not None
    assert chosen.camera_ratio <= ProfileSettings().most_camera_ratio
    assert "faster" in found.choice.name or "medium" in found.choice.name


def test_a_plain_x264_fits_the_budget_of_a_plain_x264_however_it_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(
        {"640x360": 1.5, "b1": 1.2, "b2": 1.2, "feedback": 1.1}, CPU, source_px=(1280, 720), plain_cpu=1.13
    )
    found = site.search(tmp_path, monkeypatch)
    assert found.choice == StreamSetting()
    plain = found.chosen_by.of(found.choice)
    assert plain is not None
    assert plain.camera_ratio == 1.0


def test_rare_keyframes_cost_what_a_plain_x264_does_however_they_were_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = {"gop1500": 0.93, "b1": 1.2, "b2": 1.2, "feedback": 1.1, **SMALLER}
    found = Site(bits, {"gop1500": 1.2}, plain_cpu=1.0).search(tmp_path, monkeypatch)
    assert found.choice == RARE()
    assert found.chosen_by.of(RARE()).camera_ratio == 1.0  # type: ignore[union-attr]


def test_what_timing_can_not_tell_from_the_budget_fits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site({"feedback": 0.7, "b1": 1.1, "b2": 1.1, **SMALLER}, {"feedback": 1.03}, plain_cpu=1.0)
    assert site.search(tmp_path, monkeypatch).choice == RARE(map="feedback")


def test_a_camera_that_nothing_fits_is_told_the_cheapest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site({}, CPU, source_px=(1280, 720), plain_cpu=1.0)
    with pytest.raises(
        EvaluationError, match=r"The cheapest, stream:480x270\+b2\+superfast\+gop1500, takes 0\.18 times"
    ):
        site.search(tmp_path, monkeypatch, camera_budget=0.1)


def test_what_fits_but_sends_more_than_plain_x264_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that nothing fits, with the CPU of one that does."""
    bits = {"640x360": 1.5, "800x450": 1.6, "480x270": 2.0, "b1": 0.95, "b2": 0.95}
    site = Site(bits, CPU, source_px=(1280, 720), plain_cpu=1.0)
    with pytest.raises(
        EvaluationError, match=r"sends more than an untouched x264, stream:\S+ \d+% more: allow"
    ):
        site.search(tmp_path, monkeypatch, camera_budget=0.5)
