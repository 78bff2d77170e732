import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.media.frames import FrameCropper, pad_to_even, pasted, plane_view, to_yuv420p


def test_what_fits_already_is_not_copied(textured):
    frame = textured(64, 48)
    assert to_yuv420p(frame) is frame
    assert pad_to_even(frame) is frame
    assert FrameCropper(64, 48).crop(frame) is frame


def test_full_range_becomes_limited_range(textured):
    frame = textured(64, 48)
    plane_view(frame, 0)[:] = 255
    frame.color_range = 2
    limited = to_yuv420p(frame)
    assert limited.color_range == 1
    assert np.abs(plane_view(limited, 0).astype(int) - 235).max() <= 1


def test_rgb_is_tagged_with_the_matrix_it_was_given():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    frame = to_yuv420p(av.VideoFrame.from_ndarray(red, format="rgb24"))
    assert frame.colorspace in (5, 6)  # BT.601
    back = frame.to_ndarray(format="rgb24")
    assert np.abs(back.astype(int) - red).max() < 6


@given(st.integers(1, 40), st.integers(1, 40))
def test_padding_and_cropping_undo_each_other(width_px, height_px):
    frame = av.VideoFrame(width_px, height_px, "yuv420p")
    for index in range(3):
        view = plane_view(frame, index)
        view[:] = np.random.default_rng(index).integers(0, 256, view.shape)
    padded = pad_to_even(frame)
    assert (padded.width % 2, padded.height % 2) == (0, 0)
    cropped = FrameCropper(width_px, height_px).crop(padded)
    for index in range(3):
        assert np.array_equal(plane_view(cropped, index), plane_view(frame, index))


@pytest.mark.parametrize("size_px", [(96, 64), (51, 37)])
def test_macroblocks_of_another_picture_are_pasted_whole_or_greyed(textured, size_px):
    first, second = textured(*size_px, seed=1), textured(*size_px, seed=2)
    first.pts, before = 7, [plane_view(first, plane).copy() for plane in range(3)]
    where = np.zeros((-(-size_px[1] // 16), -(-size_px[0] // 16)), np.bool_)
    where[1, 2] = where[-1, -1] = True
    mixed, grey = pasted(first, second, where), pasted(first, None, where)
    for plane, side in ((0, 16), (1, 8), (2, 8)):
        below, above = plane_view(first, plane), plane_view(second, plane)
        inside = where.repeat(side, axis=0).repeat(side, axis=1)[: below.shape[0], : below.shape[1]]
        assert np.array_equal(plane_view(mixed, plane), np.where(inside, above, below))
        assert np.array_equal(plane_view(grey, plane), np.where(inside, 128, below))
    assert (grey.pts, mixed.colorspace) == (7, first.colorspace)
    assert all(np.array_equal(plane_view(first, plane), before[plane]) for plane in range(3))
