"""B-frames come where the delay budget has room for them, and go before frames are left out for it."""

import pytest

from accmpeg.camera.uplink.adaptation import Adaptation
from accmpeg.camera.uplink.ratecontrol import FixedRate
from accmpeg.camera.uplink.reorder import CALM_S, FIRST_S, BFrameRoom


@pytest.mark.parametrize(
    ("frame_ms", "spare_ms", "b_frames"), [(33.3, 200, 2), (33.3, 150, 1), (33.3, 100, 0), (100, 240, 0)]
)
def test_as_many_as_there_is_room_for(frame_ms: float, spare_ms: float, b_frames: int) -> None:
    room = BFrameRoom()
    counts = [room.update(0.1 * tick, frame_ms=frame_ms, spare_ms=spare_ms) for tick in range(100)]
    assert not any(counts[: round(10 * FIRST_S)])
    assert counts[-1] == b_frames


def test_they_end_at_once_and_do_not_flutter() -> None:
    room = BFrameRoom()
    changes, before = 0, 0
    for tick in range(6000):
        spare_ms = 170 if tick // 10 % 2 else 110
        now = room.update(tick / 10, frame_ms=33.3, spare_ms=spare_ms)
        changes, before = changes + (now != before), now
    assert changes <= 2 * 600 / CALM_S + 1, "each change costs a keyframe"


def adapted(
    lag_ms: float, frame_rate: float, *, budget_ms: float = 300.0, highest_bps: int = 8_000_000
) -> list[int]:
    """What plans say over 20 s of a camera whose results take so long."""
    controller = FixedRate(1_000_000, budget_ms=budget_ms, highest_bps=highest_bps)
    adaptation = Adaptation(controller, None)
    adaptation._controller.link.rtt_ms = 5.0
    found = []
    for index in range(round(20 * frame_rate)):
        now_s = index / frame_rate
        if adaptation.wants(round(now_s * 1e6)):
            found.append(adaptation.before_frame(1000 * now_s, 0.0, connected=True, backlog=False).b_frames)
        adaptation.took(now_s, now_s - lag_ms / 1000, delay_ms=lag_ms, lag_ms=lag_ms)
    return found


def test_a_quick_site_gets_two_and_a_slow_one_none() -> None:
    assert adapted(40.0, 30)[-1] == 2
    assert adapted(80.0, 30)[-1] == 1
    assert adapted(150.0, 30)[-1] == 0
    assert adapted(40.0, 10)[-1] == 0, "three frames of a tenth of a second each"
    assert adapted(40.0, 10, budget_ms=1000.0)[-1] == 2
    assert adapted(40.0, 30, highest_bps=1_000_000)[-1] == 0, "there are all the bits that are asked for"
