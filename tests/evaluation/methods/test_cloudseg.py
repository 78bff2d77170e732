"""CloudSeg: few pixels travel, and the server DNN sees them enlarged."""

from typing import Any

import av
import pytest

from accmpeg.evaluation.methods import METHODS
from tests.evaluation.methods.method_clips import (
    accuracy,
    detector,
    moving_clip,
    reference_results,
    run,
    uplink_bytes,
)


def test_the_server_dnn_sees_its_input_size(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, dnn, sizes = moving_clip(6), detector(), []
    infer = dnn.infer

    def looking(frame: av.VideoFrame, size_px: tuple[int, int] | None = None) -> Any:
        sizes.append((frame.width, frame.height))
        return infer(frame, size_px)

    monkeypatch.setattr(dnn, "infer", looking)
    session = run(METHODS["cloudseg"], clip, 24)
    assert sizes == [dnn.card.input.seen_size_px(clip.width_px, clip.height_px)] * 6
    assert session.stage_ms["server: enlarge"] > 0


def test_a_quarter_of_the_pixels_costs_far_fewer_bytes() -> None:
    small, full = run(METHODS["cloudseg"], moving_clip(6)), run(METHODS["constant-qp"], moving_clip(6))
    assert uplink_bytes(small) < 0.5 * uplink_bytes(full)


def test_results_are_in_source_pixels_and_good_at_a_fine_qp() -> None:
    clip = moving_clip(6)
    references = reference_results(clip)
    fine, coarse = (accuracy(run(METHODS["cloudseg"], clip, quality), references) for quality in (12, 45))
    assert fine > 0.3
    assert coarse < fine
