"""What a method does with a frame can't depend on frames that come later: every method is held to it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest

from accmpeg.accmodel.runtime import AccModel
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.flow import Step
from accmpeg.evaluation.methods import METHODS, Method, MethodContext, OperatingPoint
from accmpeg.evaluation.methods.awstream import Configuration, Profile, Profiled, profile_key
from accmpeg.media.frames import plane_view
from accmpeg.tasks.arrays import result_arrays
from tests.evaluation.methods.method_clips import COSTS, context, make_clip, moving_clip, still_clip

COMMON, AFTER = 16, 4


def run(method: Method, clip: Clip, shared: MethodContext) -> Session:
    # Not profiled here: that alone takes longer than all the rest.
    front = [Profiled(Configuration(320, 180, 2, 30), 1.0, 0.5)]
    shared.shared[profile_key(clip)] = Profile(front, {32: 2.0})
    everything = frozenset(range(len(clip.frames)))
    point = OperatingPoint(quality=32)
    return run_method(clip, method, point, shared, wanted=everything, costs=COSTS, keep=everything)


def told(session: Session) -> list[list[Any]]:
    """All that was done in each frame's turn, and every result that was delivered in it."""

    def all_of(steps: Sequence[Step]) -> list[Any]:
        done: list[Any] = []
        for step in steps:
            work = step.work_ms, step.after_ms
            done.append((step.place, work, step.size_bytes, step.pictures, step.message, step.delivers))
            for delivery in step.delivers:
                arrays = result_arrays(session.results[delivery.index])
                done += [(key, np.asarray(value).tolist()) for key, value in sorted(arrays.items())]
            done += all_of(step.beside)
        return done

    return [all_of(flow.steps) for flow in session.flows]


# Reducto leaves frames out only after its profile, and then in segments.
FRAMES = {"reducto": 38}


def check(method: Method, accmodel: AccModel) -> None:
    common = FRAMES.get(method.system, COMMON)
    pictures = [frame.to_ndarray() for frame in moving_clip(common + AFTER, 3).frames]
    upside_down = [frame.to_ndarray()[::-1] for frame in still_clip(AFTER).frames]
    done = []
    for later in (pictures[common:], upside_down):
        clip = make_clip([*pictures[:common], *(np.ascontiguousarray(picture) for picture in later)], "clip")
        session = run(method, clip, replace(context(), accmodel=accmodel, every=5))
        # Otherwise what arrives when would depend on this machine.
        assert session.stage_ms.keys() <= COSTS.stage_ms.keys()
        assert session.seen.keys() == set(range(len(clip.frames)))  # for pictures, of frames not sent too
        done.append(told(session))
    assert done[0][:common] == done[1][:common]
    assert done[0][common:] != done[1][common:]


@pytest.mark.parametrize("name", METHODS)
def test_other_later_frames_change_nothing_before(name: str, demo_accmodel: AccModel) -> None:
    check(METHODS[name], demo_accmodel)


def test_a_look_ahead_past_the_session_is_found(demo_accmodel: AccModel) -> None:
    class Peeking:
        def __init__(self, session: Session) -> None:
            self.session = session

        def push(self, index: int, frame: av.VideoFrame) -> None:
            last = self.session.clip.frames[-1]
            self.session.upload(1 + int(plane_view(last, 0)[0].sum()))
            self.session.deliver(index, frame)

        def finish(self) -> None:
            pass

    cheat = Method(
        name="cheat",
        family="plugin",
        source="this test",
        open=lambda stream, point, session: Peeking(session),
    )
    with pytest.raises(AssertionError):
        check(cheat, demo_accmodel)
