"""Bytes that say what a stream costs once it runs, whatever the clip's length."""

from dataclasses import replace
from fractions import Fraction

import av
import pytest

from accmpeg.errors import MethodError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.bench.traffic import Traffic
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext, OperatingPoint
from accmpeg.media.encoder import AccessUnit, EncoderSettings

RATE = Fraction(10)
BASE = 1 / RATE
GOP = 50
SETTINGS = EncoderSettings(width_px=64, height_px=48, frame_rate=RATE, time_base=BASE, crf=30, gop_frames=GOP)
KEY, PLAIN = 5000, 100


def empty_clip(frames: int) -> Clip:
    """A clip of grey; its first second, ten frames, is warm-up."""
    pictures = []
    for index in range(frames):
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.pts, frame.time_base = index, BASE
        pictures.append(frame)
    return Clip("grey", pictures, 64, 48, RATE, BASE)


def unit(index: int, size_bytes: int = PLAIN, *, key: bool = False, base: Fraction = BASE) -> AccessUnit:
    return AccessUnit(bytes(size_bytes), index, index, base, key)


def regular(index: int, plain: int = PLAIN) -> AccessUnit:
    """What an encoder makes of a frame: a keyframe at the start of each GOP."""
    return unit(index, KEY if index % GOP == 0 else plain, key=index % GOP == 0)


def send(traffic: Traffic, units: list[AccessUnit], index: int, stream: str = "main") -> None:
    traffic.add(units, index)
    traffic.belongs(units, stream, SETTINGS, index)


@pytest.mark.parametrize("frames", [30, 49, 51, 90, 137, 300])
def test_a_stream_costs_the_same_on_a_clip_of_any_length(frames: int) -> None:
    traffic = Traffic(empty_clip(frames))
    for index in range(frames):
        send(traffic, [regular(index)], index)
    assert traffic.keyframe_bytes == KEY
    assert traffic.gop_frames == GOP
    assert traffic.bytes_per_frame == KEY / GOP + PLAIN


def test_the_first_second_does_not_count() -> None:
    traffic = Traffic(empty_clip(30))
    for index in range(30):
        send(traffic, [regular(index, plain=9999 if index < 10 else PLAIN)], index)
    traffic.add(70_000, 9)
    assert traffic.blocks() == ([10, 10], [10 * PLAIN, 10 * PLAIN])


def test_a_late_unit_counts_at_its_own_frame() -> None:
    """B-frames and chunked methods hand bytes over when other frames are captured, and some at the end."""
    traffic = Traffic(empty_clip(30))
    sizes = {index: 100 + index for index in range(1, 30)} | {0: KEY}
    order = [0, 3, 2, 1, *range(4, 16), 19, 17, 18, 16, *range(20, 30)]
    for turn, index in enumerate(order):
        late = min(29, turn + 4)
        send(traffic, [unit(index, sizes[index], key=index == 0)], late)
    expected = [sum(sizes[index] for index in range(start, start + 10)) for start in (10, 20)]
    assert traffic.blocks() == ([10, 10], expected)


def test_frames_that_are_left_out_cost_nothing_and_put_off_the_keyframe() -> None:
    traffic = Traffic(empty_clip(110))
    for number, index in enumerate(range(0, 110, 2)):
        is_key = number % GOP == 0
        send(traffic, [unit(index, KEY if is_key else PLAIN, key=is_key)], index)
    # Every other frame is sent: a keyframe for 100 captured frames, half the bytes of the others.
    assert traffic.keyframe_bytes == KEY / 2
    blocks = traffic.blocks()
    assert blocks.frames == [10] * 9 + [9]
    assert blocks.bytes == [5 * PLAIN] * 9 + [4 * PLAIN]


def test_a_keyframe_before_the_gop_is_over_is_paid_each_time() -> None:
    traffic = Traffic(empty_clip(110))
    for index in range(110):
        key = index in (0, 30, 70)
        send(traffic, [unit(index, KEY if key else PLAIN, key=key)], index)
    assert traffic.bytes_per_frame == pytest.approx(KEY / GOP + KEY * 2 / 100 + PLAIN)


def test_a_stream_of_keyframes_costs_all_of_them() -> None:
    traffic = Traffic(empty_clip(40))
    for index in range(40):
        send(traffic, [unit(index, KEY, key=True)], index)
    assert traffic.bytes_per_frame == pytest.approx(KEY, rel=0.03)


def test_streams_pay_for_their_keyframes_by_the_frames_they_carry() -> None:
    traffic = Traffic(empty_clip(60))
    for index in range(60):
        send(traffic, [regular(index)], index, "coarse")
        if index % 5 == 0:  # a fifth of the frames is sent again, finer
            send(traffic, [unit(index, 3000 if index == 0 else 400, key=index == 0)], index, "fine")
    assert traffic.keyframe_bytes == pytest.approx(KEY + 3000 / 5)


def test_a_stream_given_up_in_the_warm_up_has_no_keyframe_any_more() -> None:
    traffic = Traffic(empty_clip(30))
    for index in range(30):
        units = [unit(index, 700, key=index in (0, 8))]
        send(traffic, units, index, "main" if index < 8 else "adapted")
    assert traffic.keyframe_bytes == 700


def test_other_bytes_count_at_the_frame_in_whose_turn_they_cross() -> None:
    traffic = Traffic(empty_clip(30))
    traffic.add(40, 12)
    traffic.add([unit(7, 500, base=Fraction(1, 90_000))], 25)  # another clock: nothing is known of its frame
    assert traffic.blocks() == ([10, 10], [40, 500])
    with pytest.raises(MethodError, match="-1 bytes"):
        traffic.add(-1, 12)


def there_and_back(clip: Clip, frames: int) -> Clip:
    """Six pictures of a street, forwards and backwards: any ten frames look like any other ten."""
    pictures = [clip.frames[index].to_ndarray() for index in (0, 1, 2, 3, 4, 5, 4, 3, 2, 1)]
    stamped = []
    for index in range(frames):
        frame = av.VideoFrame.from_ndarray(pictures[index % 10], format="yuv420p")
        frame.pts, frame.time_base = index, BASE
        stamped.append(frame)
    return Clip("there and back", stamped, clip.width_px, clip.height_px, RATE, BASE)


@pytest.mark.parametrize("name", ["constant-qp", "aq-1"])
def test_real_streams_cost_the_same_on_thirty_frames_and_on_ninety(
    name: str, clip: Clip, context: MethodContext
) -> None:
    """Fine enough that the frames after a keyframe do not live on it."""
    per_frame, naive = [], []
    for frames in (30, 90):
        session = run_method(there_and_back(clip, frames), METHODS[name], OperatingPoint(quality=24), context)
        per_frame.append(session.traffic.bytes_per_frame)
        naive.append(bytes_of(session.flows, "uplink") / frames)
    assert per_frame[0] == pytest.approx(per_frame[1], rel=0.03)
    # What the whole clip's bytes over its frames would say.
    assert naive[0] > 1.08 * naive[1]


@pytest.mark.parametrize("name", ["aq-1", "b2"])
def test_no_byte_is_lost_or_counted_twice(name: str, clip: Clip, context: MethodContext) -> None:
    without_warm_up = replace(there_and_back(clip, 30), frame_rate=Fraction(1))
    assert without_warm_up.warm_frames == 1
    session = run_method(without_warm_up, METHODS[name], OperatingPoint(quality=30), context)
    keyframes, others = session.traffic.keyframe_bytes, sum(session.traffic.blocks().bytes)
    assert keyframes + others == bytes_of(session.flows, "uplink")
