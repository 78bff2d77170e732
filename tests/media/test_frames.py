import av
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.media.frames import FrameCropper, pad_to_even, plane_view, to_yuv420p


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
