"""What a method does with a frame can't depend on frames that come later."""

import pytest
from method_clips import context, make_clip, moving_clip, still_clip

from accmpeg.evaluation.methods import METHODS, OperatingPoint
from accmpeg.evaluation.methods.awstream import PROFILE_FRAMES, Configuration, Profile, Profiled
from accmpeg.evaluation.run import run_method

COMMON = PROFILE_FRAMES + 2


@pytest.mark.parametrize("name", ["awstream", "cloudseg", "glimpse", "reducto"])
def test_other_later_frames_change_nothing_before(name: str) -> None:
    pictures = [frame.to_ndarray() for frame in moving_clip(16).frames]
    other = [frame.to_ndarray() for frame in still_clip(2).frames]
    done = []
    for later in (pictures[COMMON:], other):
        clip = make_clip([*pictures[:COMMON], *later], "clip")
        shared = context()
        # Not profiled here: that alone takes longer than all the rest.
        front = [Profiled(Configuration(320, 180, 2, 30), 1.0, 0.5)]
        shared.shared["awstream clip"] = Profile(front, {32: 2.0})
        everything = frozenset(range(16))
        session = run_method(clip, METHODS[name], OperatingPoint(quality=32), shared, step=4, keep=everything)
        assert session.seen.keys() == everything  # for the report's pictures, also of frames not sent
        captured = [flow for flow in session.flows() if {"camera", "uplink"} & {s.place for s in flow.steps}]
        done.append([[(step.place, step.size_bytes, step.delivers) for step in f.steps] for f in captured])
    assert done[0][:COMMON] == done[1][:COMMON]
    assert done[0][COMMON:] != done[1][COMMON:] or name == "glimpse"
