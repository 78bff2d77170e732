"""A small scene, held in memory: rendering it anew for every test would cost more than the test."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import pytest

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.media.source import Source, SourceInfo

WIDTH_PX, HEIGHT_PX = 320, 180
OpenScene = Callable[..., Callable[[], Source]]


class HeldScene(Source):
    """`frame_count` frames at `frame_rate`, made of a few rendered ones."""

    def __init__(self, frames: list[av.VideoFrame], frame_count: int, frame_rate: int, live: bool) -> None:
        self._frames = frames
        self.info = SourceInfo(
            name="scene",
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
            frame_rate=Fraction(frame_rate),
            time_base=Fraction(1, frame_rate),
            frame_count=frame_count,
            is_live=live,
        )

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for index in range(self.info.frame_count or 0):
            picture = self._frames[index % len(self._frames)]
            frame = av.VideoFrame.from_ndarray(picture.to_ndarray(), format="yuv420p")
            frame.pts, frame.time_base = index, self.info.time_base
            yield frame


@pytest.fixture(scope="session")
def rendered() -> list[av.VideoFrame]:
    return list(SceneSource(SceneSpec(3, frame_count=12, width_px=WIDTH_PX, height_px=HEIGHT_PX)))


@pytest.fixture
def scene(rendered: list[av.VideoFrame]) -> OpenScene:
    """A function that opens the small scene, of so many frames."""

    def opener(frame_count: int = 30, frame_rate: int = 15, *, live: bool = False) -> Callable[[], Source]:
        return lambda: HeldScene(rendered, frame_count, frame_rate, live)

    return opener
