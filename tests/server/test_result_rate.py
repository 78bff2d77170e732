"""What a server offers its cameras: their share, and more of it when there is more."""

import pytest

from accmpeg.server.result_rate import ResultRate

TICK_S = 0.1


class Camera:
    """Sends evenly at its own rate, or at the rate if that is less."""

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.sent = self.answered = 0
        self._credit = 0.0

    def frames(self, offered: float | None) -> int:
        rate = self.rate_per_s if offered is None else min(self.rate_per_s, offered)
        self._credit += rate * TICK_S
        whole = int(self._credit)
        self._credit -= whole
        return whole


def run(
    rate: ResultRate, cameras: list[Camera], capacity_per_s: float, seconds: float, start_s: float = 0.0
) -> None:
    """A server that takes turns fairly; what has waited for a fifth of a second gives way."""
    room = 0.0
    for tick in range(round(seconds / TICK_S)):
        now_s = start_s + tick * TICK_S
        offered = rate.per_s(now_s, len(cameras))
        waiting = [camera.frames(offered) for camera in cameras]
        for camera, count in zip(cameras, waiting, strict=True):
            camera.sent += count
        room = min(room, 0.2 * capacity_per_s) + capacity_per_s * TICK_S
        first = tick % len(cameras)
        while room >= 1 and any(waiting):
            for number in (*range(first, len(cameras)), *range(first)):
                if waiting[number] and room >= 1:
                    waiting[number] -= 1
                    room -= 1
                    cameras[number].answered += 1
                    rate.saw(answered=True)
        for _ in range(sum(waiting)):
            rate.saw(answered=False)


def test_a_server_that_keeps_up_limits_nobody() -> None:
    rate, camera = ResultRate(), Camera(30)
    run(rate, [camera], 100, 20)
    assert rate.per_s(20.0, 1) is None
    assert camera.answered == camera.sent


@pytest.mark.parametrize("capacity_per_s", [65, 120])
def test_ten_cameras_send_hardly_more_than_is_answered(capacity_per_s: float) -> None:
    rate, cameras = ResultRate(), [Camera(30) for _ in range(10)]
    run(rate, cameras, capacity_per_s, 10)
    for camera in cameras:
        camera.sent = camera.answered = 0
    run(rate, cameras, capacity_per_s, 60, start_s=10.0)
    answered = [camera.answered for camera in cameras]
    assert sum(camera.sent for camera in cameras) <= 1.05 * sum(answered)
    assert sum(answered) >= 0.9 * capacity_per_s * 60, "and what the server can do is used"
    assert max(answered) <= 1.1 * min(answered), "by all alike"


def test_a_slow_camera_among_quick_ones_loses_nothing() -> None:
    rate, cameras = ResultRate(), [Camera(2), Camera(30), Camera(30)]
    run(rate, cameras, 40, 60)
    assert cameras[0].sent == pytest.approx(120, abs=2)
    assert sum(camera.answered for camera in cameras) >= 0.85 * 40 * 60


def test_what_others_leave_is_offered_again() -> None:
    rate, stays, leaves = ResultRate(), Camera(30), Camera(30)
    run(rate, [stays, leaves], 30, 20)
    assert rate.per_s(20.0, 2) == pytest.approx(15, rel=0.25)
    run(rate, [stays], 40, 20, start_s=20.0)
    assert (rate.per_s(40.0, 1) or 99.0) >= 30
