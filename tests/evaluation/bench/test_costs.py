"""Compute times that are fixed before anything is compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import pytest

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.cache import StreamCache
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.costs import ROUNDS, Costs, read_costs, settle, write_costs
from accmpeg.evaluation.bench.run import rehearse, run_method
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods import METHODS, Method, MethodContext, OperatingPoint

COSTS = Costs(
    stage_ms={"camera: encode": 7.0, "server: decode": 2.0},
    camera_ms=7.0,
    plain_camera_ms=5.0,
    infer_ms=30.0,
)
POINT = OperatingPoint(quality=32)


def test_a_slow_round_changes_nothing() -> None:
    quiet: dict[str, Sequence[float]] = {"camera: encode": [4.0, 6.0], "server: decode": [1.0]}
    slow: dict[str, Sequence[float]] = {"camera: encode": [40.0, 60.0], "server: decode": [10.0]}
    assert settle([quiet, slow, quiet]) == {"camera: encode": 5.0, "server: decode": 1.0}
    # A stage that a round did not come to is settled by the others.
    assert settle([{"camera: encode": []}, {"camera: encode": [3.0]}, {}]) == {"camera: encode": 3.0}


def test_costs_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "costs" / "clip.json"
    assert read_costs(path) == {}
    write_costs(path, {"aq-1": COSTS, "graded": COSTS.model_copy(update={"camera_ms": 9.5})})
    kept = read_costs(path)
    assert list(kept) == ["aq-1", "graded"]
    assert kept["aq-1"] == COSTS
    assert kept["graded"].camera_ms == 9.5
    assert [file.name for file in path.parent.iterdir()] == ["clip.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"aq-1": 3}', '{"aq-1": {"camera_ms": 1}}'])
def test_damaged_costs_are_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=r"costs\.json holds no costs: delete it"):
        read_costs(path)


def test_fixed_costs_stand_in_for_timings(clip: Clip, context: MethodContext) -> None:
    session = run_method(clip, METHODS["aq-1"], POINT, context, costs=COSTS)
    frames = len(clip.frames)
    # Once per frame, and once to flush, for the encoder and for the decoder.
    assert session.stage_ms == {"camera: encode": 7.0 * (frames + 1), "server: decode": 2.0 * (frames + 1)}
    for flow in session.flows[:-1]:
        assert [(step.place, step.work_ms) for step in flow.steps if step.work_ms] == [
            ("camera", 7.0),
            ("server", 2.0),
        ]
    assert session.timings_ms == {}


def test_a_stage_that_no_rehearsal_met_costs_what_it_takes(clip: Clip, context: MethodContext) -> None:
    unknown = COSTS.model_copy(update={"stage_ms": {"server: decode": 2.0}})
    session = run_method(clip, METHODS["aq-1"], POINT, context, costs=unknown)
    assert session.stage_ms["camera: encode"] > 0
    assert session.stage_ms["server: decode"] == 2.0 * (len(clip.frames) + 1)


def test_every_method_is_rehearsed_beside_plain_x264(
    clip: Clip, context: MethodContext, tmp_path: Path
) -> None:
    # What is kept of earlier streams must not make them free.
    kept = replace(context, streams=StreamCache(tmp_path, "clip"))
    run_method(clip, METHODS["constant-qp"], POINT, kept)
    opened: list[str] = []

    def counting(method: Method) -> Method:
        def open_counted(stream: object, point: object, session: object) -> object:
            opened.append(method.name)
            return method.open(stream, point, session)  # type: ignore[arg-type]

        return replace(method, open=open_counted)

    methods = [(counting(METHODS[name]), POINT) for name in ("constant-qp", "graded")]
    costs = rehearse(clip, methods, POINT, kept)
    # In turn, so that whatever slows the machine down slows all of them.
    assert opened == ["constant-qp", "graded"] * ROUNDS
    assert set(costs) == {"aq-1", "constant-qp", "graded"}
    assert costs["aq-1"].camera_ratio == 1
    assert {each.plain_camera_ms for each in costs.values()} == {costs["aq-1"].camera_ms}
    assert {each.infer_ms for each in costs.values()} == {costs["aq-1"].infer_ms}
    assert costs["constant-qp"].stage_ms["camera: encode"] > 0
    assert costs["graded"].stage_ms["camera: accmodel"] > 0
    # Per frame, the AccModel only on the frames whose map is made: every fifth.
    assert costs["graded"].camera_ms < sum(
        ms for stage, ms in costs["graded"].stage_ms.items() if stage.startswith("camera")
    )


def test_a_plug_in_that_breaks_leaves_the_costs_of_the_others(clip: Clip, context: MethodContext) -> None:
    class Broken:
        def __init__(self, session: Session) -> None:
            self.session = session

        def push(self, index: int, frame: av.VideoFrame) -> None:
            self.session.deliver(index, frame)
            raise TypeError("a mistake in somebody else's code")

        def finish(self) -> None:
            pass

    broken = Method("broken", "plugin", "this test", lambda stream, point, session: Broken(session))
    costs = rehearse(clip, [(broken, POINT), (METHODS["constant-qp"], POINT)], POINT, context)
    assert set(costs) == {"aq-1", "constant-qp"}
