"""Geometry holds for any frame size; the NumPy input and its differentiable twin show the same picture."""

import numpy as np
import pytest
import torch
from av import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.dnn.card import InputCard
from accmpeg.dnn.preprocess import InputGeometry, Preprocessor, input_from_rgb

SIDES = st.integers(1, 9000)


def card(**changes):
    return InputCard(**{"name": "images", "width_px": 640, "height_px": 640, "size_multiple": 32, **changes})


@pytest.mark.parametrize(
    ("frame", "changes", "size", "content", "pad"),
    [
        ((1280, 720), {}, (640, 384), (640, 360), (0, 12)),
        ((1088, 1920), {}, (384, 640), (363, 640), (10, 0)),
        ((1280, 720), {"size_multiple": None}, (640, 640), (640, 360), (0, 140)),
        ((1280, 720), {"size_multiple": None, "letterbox": "top-left"}, (640, 640), (640, 360), (0, 0)),
        ((1280, 720), {"letterbox": "stretch"}, (640, 640), (640, 640), (0, 0)),
        ((320, 320), {}, (640, 640), (640, 640), (0, 0)),
        ((8192, 1), {}, (640, 32), (640, 1), (0, 15)),
    ],
)
def test_known_geometries(frame, changes, size, content, pad):
    geometry = InputGeometry.of(card(**changes), *frame)
    assert (geometry.width, geometry.height) == size
    assert (geometry.content_width, geometry.content_height) == content
    assert (geometry.pad_x, geometry.pad_y) == pad


@given(SIDES, SIDES, st.sampled_from(["stretch", "centre", "top-left"]), st.sampled_from([None, 32, 64]))
def test_every_frame_fits_and_its_corners_come_back(width, height, letterbox, multiple):
    geometry = InputGeometry.of(card(letterbox=letterbox, size_multiple=multiple), width, height)
    assert geometry.width <= 640
    assert geometry.height <= 640
    assert geometry.width % (multiple or 1) == geometry.height % (multiple or 1) == 0
    right, bottom = geometry.pad_x + geometry.content_width, geometry.pad_y + geometry.content_height
    assert right <= geometry.width
    assert bottom <= geometry.height
    corners = (
        geometry.x_to_frame(np.array([geometry.pad_x, right])),
        geometry.y_to_frame(np.array([geometry.pad_y, bottom])),
    )
    assert corners[0] == pytest.approx([0, width])
    assert corners[1] == pytest.approx([0, height])
    cropped = geometry.crop(np.zeros((2, max(1, geometry.height // 4), max(1, geometry.width // 4))))
    assert min(cropped.shape) >= 1


def picture(width, height):
    """A smooth picture with distinct channels."""
    rows, cols = np.mgrid[:height, :width]
    waves = [np.sin(cols / 23) * np.cos(rows / 31), np.sin((cols + rows) / 40), np.cos(rows / 17)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("size", [(640, 360), (333, 517), (1281, 721), (100, 80)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"letterbox": "top-left", "colour": "bgr", "size_multiple": None},
        {"letterbox": "stretch", "mean": (123.0, 116.0, 103.0), "std": (58.0, 57.0, 56.0)},
    ],
)
def test_numpy_and_torch_inputs_show_the_same_picture(size, changes):
    frame = VideoFrame.from_ndarray(picture(*size), format="rgb24").reformat(format="yuv420p")
    ours, geometry = Preprocessor(card(**changes))(frame)
    rgb = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float()
    twin, twin_geometry = input_from_rgb(rgb, card(**changes))
    assert geometry == twin_geometry
    assert ours.dtype == np.float32
    difference = np.abs(ours - twin[0].numpy()) * np.reshape(card(**changes).std, (3, 1, 1))
    # swscale rounds to whole levels and samples 4:2:0 chroma in its own way.
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 8


def test_padding_mean_and_std_reach_the_network_as_the_card_says():
    frame = VideoFrame.from_ndarray(np.full((36, 64, 3), 200, np.uint8), format="rgb24").reformat(
        format="yuv420p"
    )
    settings = card(
        width_px=64, height_px=64, size_multiple=None, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0)
    )
    ours, geometry = Preprocessor(settings)(frame)
    assert geometry.pad_y == 14
    assert ours[:, 0, 0] == pytest.approx([52, 23.5, 16.8])
    assert ours[:, 32, 32] == pytest.approx([95, 45, 34], abs=1)


def test_colour_order():
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    frame = VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p")
    rgb, _ = Preprocessor(card())(frame)
    bgr, _ = Preprocessor(card(colour="bgr"))(frame)
    assert rgb[:, 320, 320] == pytest.approx([1, 0, 0], abs=0.02)
    assert bgr[:, 320, 320] == pytest.approx([0, 0, 1], abs=0.02)


def test_the_twin_hands_a_gradient_to_every_pixel():
    rgb = torch.full((3, 90, 160), 100.0, requires_grad=True)
    input_from_rgb(rgb, card(width_px=64, height_px=64))[0].sum().backward()
    assert (rgb.grad > 0).all()


@pytest.mark.parametrize("width", [1, 17, 481, 482, 488, 489, 500, 640])
def test_every_column_of_a_frame_that_needs_no_scaling_is_its_picture(width):
    grey = np.full((640, width, 3), 128, np.uint8)
    frame = VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")
    ours, geometry = Preprocessor(card())(frame)
    assert geometry.content_width == width
    content = ours[:, :, geometry.pad_x : geometry.pad_x + width]
    assert np.abs(255 * content - 128).max() < 4
