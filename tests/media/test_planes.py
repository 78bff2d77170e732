import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accmpeg.media.planes import frame_planes, model_size


def gradient_frame(width_px: int, height_px: int) -> av.VideoFrame:
    frame = av.VideoFrame(width_px, height_px, "yuv420p")
    for index, plane in enumerate(frame.planes):
        ramp = (
            np.linspace(16, 235, plane.line_size, dtype=np.uint8)
            if index == 0
            else np.full(plane.line_size, 90)
        )
        plane.update(np.tile(ramp.astype(np.uint8), (plane.height, 1)).tobytes())
    return frame


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_model_size_is_in_whole_cells_and_keeps_the_aspect(width_px: int, height_px: int) -> None:
    width, height = model_size(width_px, height_px)
    scale = min(1, 640 / max(width_px, height_px))
    assert width % 32 == height % 32 == 0
    assert max(width, height) <= 640
    assert abs(width - width_px * scale) <= max(16, 32 - width_px * scale)
    assert abs(height - height_px * scale) <= max(16, 32 - height_px * scale)


def test_model_size_of_common_frames() -> None:
    assert model_size(1280, 720) == (640, 352)
    assert model_size(1920, 1080) == (640, 352)
    assert model_size(1088, 1920) == (352, 640)
    assert model_size(416, 416) == (416, 416)
    with pytest.raises(ValueError, match="0x4"):
        model_size(0, 4)


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 400))
def test_planes_of_any_frame_size(width_px: int, height_px: int) -> None:
    planes = frame_planes(gradient_frame(width_px, height_px))
    width, height = model_size(width_px, height_px)
    assert planes.y.shape == (height, width)
    assert planes.uv.shape == (2, height // 2, width // 2)
    assert planes.y.dtype == planes.uv.dtype == np.uint8
    assert planes.y.flags.c_contiguous
    assert planes.uv.flags.c_contiguous


@pytest.mark.parametrize(("width_px", "height_px"), [(1, 1), (8192, 16), (16, 4000), (641, 359)])
def test_planes_of_extreme_frames(width_px: int, height_px: int) -> None:
    planes = frame_planes(gradient_frame(width_px, height_px))
    assert planes.y.shape[::-1] == model_size(width_px, height_px)
    assert abs(float(planes.uv.mean()) - 90) < 2


def test_planes_show_the_picture() -> None:
    planes = frame_planes(gradient_frame(1280, 720))
    assert np.abs(planes.y.mean(0) - np.linspace(16, 235, 640)).max() < 2
