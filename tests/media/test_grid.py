"""Macroblock geometry, by properties and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.media.grid import MacroblockGrid, box_mean_3x3, dilate, gaussian_blur

SIDES = st.integers(1, 100)


@given(SIDES, SIDES)
def test_sums_keep_everything(width_px: int, height_px: int) -> None:
    grid = MacroblockGrid(width_px, height_px)
    picture = np.random.default_rng(width_px * 101 + height_px).random((height_px, width_px))
    sums = grid.sum_pixels(picture)
    assert sums.shape == grid.shape
    assert sums.sum() == pytest.approx(picture.sum(), rel=1e-4)
    assert grid.visible_pixels().sum() == width_px * height_px


def test_sums_by_hand() -> None:
    picture = np.zeros((17, 33))
    picture[16, 32] = 5
    picture[0, 0] = 2
    assert MacroblockGrid(33, 17).sum_pixels(picture).tolist() == [[2, 0, 0], [0, 0, 5]]


@given(SIDES, SIDES)
def test_mean_of_a_constant_is_the_constant(width_px: int, height_px: int) -> None:
    grid = MacroblockGrid(width_px, height_px)
    assert np.allclose(grid.mean_pixels(np.full((height_px, width_px), 3.0)), 3.0)


def test_boxes_cover_what_they_touch_and_nothing_else() -> None:
    grid = MacroblockGrid(64, 48)
    covered = grid.cover_boxes(
        np.array([[15.5, 0, 16.5, 16], [60, 40, 500, 500], [5, 5, 5, 9], [-9, -9, -1, -1]])
    )
    assert np.argwhere(covered).tolist() == [[0, 0], [0, 1], [2, 3]]


@given(SIDES, SIDES, st.integers(1, 20), st.integers(1, 20))
def test_resampling_a_constant_gives_it_back(width_px: int, height_px: int, rows: int, cols: int) -> None:
    grid = MacroblockGrid(width_px, height_px)
    sampled = grid.resample(np.full((rows, cols), -7.0, dtype=np.float32), rows, cols)
    assert sampled.shape == grid.shape
    assert np.allclose(sampled, -7.0)


def test_resampling_its_own_grid_is_the_identity() -> None:
    grid = MacroblockGrid(160, 96)
    values = np.random.default_rng(3).random(grid.shape).astype(np.float32)
    assert np.allclose(grid.resample(values, *grid.shape), values, atol=1e-6)


def test_dilation_grows_in_all_directions() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[2, 2] = True
    assert dilate(mask, 1).sum() == 9
    assert dilate(mask, 2)[0, 0]
    assert dilate(mask, 0).sum() == 1


def test_smoothing_keeps_constants() -> None:
    flat = np.full((3, 9), 2.5, dtype=np.float32)
    assert np.allclose(box_mean_3x3(flat), flat)
    assert np.allclose(gaussian_blur(flat, 0.7), flat, atol=1e-6)


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_a_frame_without_pixels_has_no_grid(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no macroblocks"):
        MacroblockGrid(*size)
