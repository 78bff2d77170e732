import time

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from accmpeg.errors import EncoderError
from accmpeg.media import native, roi
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.roi import MapAttacher, map_rectangles, quantise_levels


def regions(frame: av.VideoFrame) -> list[bytes]:
    return [bytes(data) for data in frame.side_data]


@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-2, 2))
)
def test_rectangles_paint_the_map_once(steps):
    painted = np.zeros_like(steps)
    for row, col, rows, cols, value in map_rectangles(steps):
        assert not painted[row : row + rows, col : col + cols].any()
        painted[row : row + rows, col : col + cols] = value
    assert np.array_equal(painted, steps)


def test_two_level_map_is_few_rectangles():
    steps = np.full((45, 80), 10)
    steps[10:20, 30:50] = 0
    assert len(map_rectangles(steps)) == 4


@given(
    hnp.arrays(np.float32, (5, 7), elements=st.floats(-30, 30, width=32)),
    st.integers(1, 7),
)
def test_quantised_maps_have_few_levels_and_keep_their_order(values, levels):
    quantised = quantise_levels(values, levels)
    assert len(np.unique(quantised[quantised != 0])) <= levels
    assert not quantised[values == 0].any()
    order = np.argsort(values, axis=None)
    assert (np.diff(quantised.ravel()[order]) >= 0).all()


def test_quantised_levels_survive_ffmpegs_truncation():
    whole_steps = np.arange(-4, 4).reshape(2, 4)
    quantised = quantise_levels(whole_steps * 51 / 63, 7)
    assert np.array_equal(np.trunc(quantised / 51 * 63), whole_steps)


def test_the_callers_frame_has_no_map_afterwards(textured):
    frame = textured()
    grid = MacroblockGrid(frame.width, frame.height)
    maps = MapAttacher(grid)
    for offset in (3.0, 3.0, -5.0):
        with maps.attached(frame, np.full(grid.shape, offset)) as steered:
            assert steered.planes[0].buffer_ptr == frame.planes[0].buffer_ptr
    assert not regions(frame)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.zeros((12, 20, 1)), np.full((12, 20), np.nan)])
def test_maps_that_do_not_fit_are_refused(textured, bad):
    with (
        pytest.raises(EncoderError, match="map"),
        MapAttacher(MacroblockGrid(320, 180)).attached(textured(), bad),
    ):
        pass


def test_a_map_changed_in_place_is_seen(textured):
    grid = MacroblockGrid(320, 180)
    maps, offsets = MapAttacher(grid), np.zeros(grid.shape, np.float32)
    held = []
    for value in (1, 2):
        offsets[:] = value
        frame = textured()
        with maps.attached(frame, offsets) as steered:
            held.append(regions(steered))
    assert held[0] != held[1]


@pytest.mark.skipif(not native.can_attach_side_data(), reason="the pointer behind frames is not proven here")
def test_a_dense_720p_map_costs_next_to_nothing(textured):
    frame = textured(1280, 720)
    grid = MacroblockGrid(1280, 720)
    maps = MapAttacher(grid)
    dense = [np.random.default_rng(i).normal(0, 5, grid.shape) for i in range(40)]
    costs_ms = []
    for offsets in dense:
        start = time.process_time()
        with maps.attached(frame, offsets):
            pass
        costs_ms.append((time.process_time() - start) * 1e3)
    assert np.median(costs_ms) < 0.15


def test_both_ways_carry_the_same_regions(textured, monkeypatch):
    if not native.can_attach_side_data():
        pytest.skip("the pointer behind frames is not proven here")
    grid = MacroblockGrid(64, 48)
    offsets = np.arange(12, dtype=np.float32).reshape(grid.shape) - 5.5
    fast = MapAttacher(grid)
    with fast.attached(textured(64, 48), offsets) as steered:
        by_pointer = regions(steered)
    monkeypatch.setattr(roi.native, "can_attach_side_data", lambda: False)
    with MapAttacher(grid).attached(textured(64, 48), offsets) as steered:
        by_filter = regions(steered)
    numbers = [np.frombuffer(data[0], np.int32).reshape(-1, 7) for data in (by_pointer, by_filter)]
    assert np.array_equal(numbers[0][:, :5], numbers[1][:, :5])
    ratios = [table[:, 5] / table[:, 6] for table in numbers]
    assert np.array_equal(*ratios)
