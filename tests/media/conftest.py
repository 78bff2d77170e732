"""Pictures with texture in every macroblock, and clips made of them with PyAV itself."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from accmpeg.media.frames import plane_view

Textured = Callable[..., av.VideoFrame]
ClipMaker = Callable[..., Path]


def textured_frame(
    width_px: int = 320,
    height_px: int = 180,
    *,
    seed: int = 0,
    moved_px: int = 0,
    pts: int = 0,
    time_base: Fraction = Fraction(1, 25),
) -> av.VideoFrame:
    """Noise; with `moved_px`, the same noise elsewhere and a little new: no scene cut for an encoder."""
    random, fresh = np.random.default_rng(seed), np.random.default_rng(moved_px)
    frame = av.VideoFrame(width_px, height_px, "yuv420p")
    for index in range(3):
        view = plane_view(frame, index)
        moved = np.roll(random.integers(60, 190, view.shape), moved_px, axis=1)
        view[:] = moved + fresh.integers(0, 10, view.shape)
    frame.pts, frame.time_base = pts, time_base
    return frame


@pytest.fixture
def textured() -> Textured:
    return textured_frame


@pytest.fixture
def make_clip(tmp_path: Path) -> ClipMaker:
    def make(
        name: str = "clip.mp4",
        frames: Iterable[av.VideoFrame] | int = 5,
        *,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        size_px: tuple[int, int] = (160, 96),
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        if isinstance(frames, int):
            frames = [textured_frame(*size_px, seed=i, pts=i) for i in range(frames)]
        with av.open(path, "w") as container:
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.width, stream.height = size_px
            stream.pix_fmt = pix_fmt
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
