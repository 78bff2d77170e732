"""An emulated clip in a few figures: what is summed up, and when there is nothing to sum up."""

import numpy as np
import pytest

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.link.delay import paper_delay_s, summarise
from accmpeg.evaluation.link.emulator import Emulated, ServerMachine, emulate
from accmpeg.evaluation.link.flow import Delivery, Flow, Step
from accmpeg.evaluation.link.link import Link

GPU = ServerMachine.gpu(25)


def stream(
    frames: int, *, camera_ms: float = 6, server_ms: float = 2, sizes: tuple[int, ...] = (2000,)
) -> list[Flow]:
    """25 frames a second, whose sizes repeat."""
    return [
        Flow(
            40.0 * index,
            (
                Step("camera", camera_ms),
                Step("uplink", size_bytes=sizes[index % len(sizes)]),
                Step("server", server_ms),
                Step("dnn", delivers=(Delivery(index, index),)),
            ),
        )
        for index in range(frames)
    ]


def over(flows: list[Flow], bandwidth_bps: float = 1e6, server: ServerMachine = GPU) -> Emulated:
    return emulate(flows, Link(bandwidth_bps, propagation_ms=20), server)


def test_the_paper_s_published_point() -> None:
    assert paper_delay_s(8_000_484, 1800, 0.5e6) == pytest.approx(1.022, abs=5e-4)
    assert paper_delay_s(8_000_484, 1800, 0.5e6, accmodel=False) == pytest.approx(0.942, abs=5e-4)


def test_a_steady_stream_by_hand() -> None:
    # 6 camera + 16 link + 20 way + 2 decode + 10 DNN = 54 ms, so at each capture the newest result is of the
    # frame before the last one: 80 ms.
    found = summarise(over(stream(40)), range(25, 40))
    assert found.reason is None
    delay = found.delay
    assert delay is not None
    assert (delay.mean_ms, delay.p50_ms, delay.p95_ms) == (54, 54, 54)
    assert (delay.camera_ms, delay.uplink_ms, delay.propagation_ms) == (6, 16, 20)
    assert (delay.serve_ms, delay.wait_ms) == (12, 0)
    assert (delay.age_mean_ms, delay.age_p95_ms) == (80, 80)
    assert found.blocks_ms == [54, 54]  # ten frames and five


def test_blocks_and_percentiles_are_of_the_measured_frames() -> None:
    sizes = tuple(range(1000, 5000, 100))
    emulated = over(stream(40, sizes=sizes), 2e6)
    found = summarise(emulated, range(12, 40))
    assert found.delay is not None
    expected = emulated.delay_ms[12:]
    assert found.delay.mean_ms == pytest.approx(expected.mean(), abs=1e-3)
    assert found.delay.p95_ms == pytest.approx(np.percentile(expected, 95), abs=1e-3)
    blocks = [expected[:10].mean(), expected[10:20].mean(), expected[20:].mean()]
    assert found.blocks_ms == pytest.approx(blocks, abs=1e-3)
    parts = found.delay.camera_ms + found.delay.uplink_ms + found.delay.propagation_ms + found.delay.serve_ms
    assert parts == pytest.approx(found.delay.mean_ms, abs=3e-3)


@pytest.mark.parametrize("bandwidth_bps", [0.6e6, 0.7e6, 1e6, 4e6])
def test_a_clip_s_length_does_not_matter(bandwidth_bps: float) -> None:
    # At up to 0.95 of what the link can carry; within ten frames sizes differ by a factor of five.
    sizes = (1000, 4000, 5000, 1500, 2500, 1200, 5000, 3000, 2800, 2400)
    means_ms = []
    for frames in (10, 300):
        found = summarise(over(stream(frames, sizes=sizes), bandwidth_bps), range(frames))
        assert found.delay is not None, found.reason
        means_ms.append(found.delay.mean_ms)
    assert means_ms[0] == pytest.approx(means_ms[1], rel=0.05)


def test_nor_do_the_keyframe_and_the_wait_that_it_causes() -> None:
    # A keyframe of 20 frames' bytes takes the link of twice the stream's rate a second: the warm-up.
    means_ms = []
    for frames in (30 + 10, 30 + 300):
        found = summarise(over(stream(frames, sizes=(40_000, *[2000] * 329)), 0.8e6), range(30, frames))
        assert found.delay is not None, found.reason
        means_ms.append(found.delay.mean_ms)
    assert means_ms[0] == pytest.approx(means_ms[1], rel=0.05)


@pytest.mark.parametrize(
    ("emulated", "reason"),
    [
        (over(stream(50, camera_ms=37)), "the camera has a load of 0.93, above 0.9"),
        (over(stream(50, server_ms=37)), "the server's decoder has a load of 0.93"),
        (over(stream(50), server=ServerMachine(37, max_batch=1)), "the server DNN has a load of 0.93"),
        (over(stream(50), 0.39e6), "the uplink has a load of 1.03, above 1"),
    ],
)
def test_an_overloaded_place_has_no_delay(emulated: Emulated, reason: str) -> None:
    found = summarise(emulated, range(25, 50))
    assert found.delay is None
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert found.blocks_ms == [None, None, None]


def test_loads_up_to_their_limits_have_a_delay() -> None:
    assert summarise(over(stream(50, camera_ms=36)), range(25, 50)).delay is not None
    assert summarise(over(stream(50), 0.4e6), range(25, 50)).delay is not None


def test_the_downlink_can_be_too_thin_too() -> None:
    steps = (Step("dnn", delivers=(Delivery(0, 0),)), Step("downlink", size_bytes=6000))
    flows = [
        Flow(40.0 * index, (Step("dnn", delivers=(Delivery(index, index),)), *steps[1:]))
        for index in range(30)
    ]
    assert summarise(over(flows), range(10, 30)).reason == (
        "the downlink has a load of 1.20, above 1: its queue grows with the clip"
    )


def test_frames_without_a_result_are_named() -> None:
    flows = stream(40)
    flows[30] = Flow(flows[30].captured_ms, ())
    assert summarise(over(flows), range(25, 40)).reason == "frame 30 has no result"
    assert summarise(over(flows), range(31, 40)).delay is not None


def test_what_is_too_short_says_so() -> None:
    assert "too short" in (summarise(over(stream(2)), range(2)).reason or "")
    with pytest.raises(EvaluationError, match="no frame is left"):
        summarise(over(stream(10)), range(25, 10))
