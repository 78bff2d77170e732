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
    rate: ResultRate,
    cameras: list[Camera],
    capacity_per_s: float,
    seconds: float,
    start_s: float = 0.0,
    *,
    believed: float = 1.0,
    stalls_s: tuple[float, float] = (0.0, 0.0),
) -> None:
    """A server that takes turns fairly; what has waited for a fifth of a second gives way.

    `believed`: what it can do by its frames' times, over what it can do. It does nothing during `stalls_s`.
    """
    room = 0.0
    for tick in range(round(seconds / TICK_S)):
        now_s = start_s + tick * TICK_S
        offered = rate.per_s(now_s, len(cameras), believed * capacity_per_s)
        waiting = [camera.frames(offered) for camera in cameras]
        for camera, count in zip(cameras, waiting, strict=True):
            camera.sent += count
        room = min(room, 0.2 * capacity_per_s) + capacity_per_s * TICK_S
        if stalls_s[0] <= now_s < stalls_s[1]:
            room = 0.0
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
    assert rate.per_s(20.0, 1, 100) is None
    assert camera.answered == camera.sent


@pytest.mark.parametrize("capacity_per_s", [65, 120])
@pytest.mark.parametrize("believed", [0.6, 1.0, 1.2])
def test_ten_cameras_send_hardly_more_than_is_answered(capacity_per_s: float, believed: float) -> None:
    rate, cameras = ResultRate(), [Camera(30) for _ in range(10)]
    run(rate, cameras, capacity_per_s, 10, believed=believed)
    for camera in cameras:
        camera.sent = camera.answered = 0
    run(rate, cameras, capacity_per_s, 60, start_s=10.0, believed=believed)
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
    assert rate.per_s(20.0, 2, 30) == pytest.approx(15, rel=0.25)
    run(rate, [stays], 40, 20, start_s=20.0)
    assert (rate.per_s(40.0, 1, 40) or 99.0) >= 30


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("capacity_per_s", [36, 60, 200])
def test_a_stall_is_no_overload(seconds: float, capacity_per_s: float) -> None:
    """Three cameras at ten frames a second lose what came meanwhile, and hardly anything after it."""
    rate, cameras = ResultRate(), [Camera(10) for _ in range(3)]
    run(rate, cameras, capacity_per_s, 20 + seconds, stalls_s=(10.0, 10.0 + seconds))
    for camera in cameras:
        camera.sent = camera.answered = 0
    run(rate, cameras, capacity_per_s, 10, start_s=20.0 + seconds)
    assert [camera.answered for camera in cameras] == pytest.approx([100] * 3, abs=4)
    if capacity_per_s >= 60:
        assert rate.per_s(30.0 + seconds, 3, capacity_per_s) is None, "and nobody was told to send less"


def test_a_dnn_put_in_place_is_judged_by_what_it_can_do() -> None:
    rate, cameras = ResultRate(), [Camera(10) for _ in range(3)]
    run(rate, cameras, 60, 10)
    rate.exchanged(10.0)
    run(rate, cameras, 60, 10, start_s=10.0, stalls_s=(10.0, 10.9))
    assert rate.per_s(20.0, 3, 60) is None
    rate.exchanged(20.0)
    run(rate, cameras, 12, 20, start_s=20.0)
    offered = rate.per_s(40.0, 3, 12)
    assert offered is not None
    assert 3 <= offered <= 5, "a slower one gives less"
