"""For the live programs: the embedded scene and the demo's detector, both small."""

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from accmpeg.demo import assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink

# Models of other servers, whose own packages they import there: no examples of ours are in them.
collect_ignore = ["kserve_runtime", "mlserver_runtime"]


def four_seconds(path: Path, frame_rate: int) -> Path:
    scene = SceneSource(SceneSpec(87, 320, 180, frame_rate=Fraction(frame_rate), frame_count=4 * frame_rate))
    settings = EncoderSettings.for_source(scene.info, crf=18, steerable=False)
    with Encoder(settings) as encoder, open_sink(path, encoder) as sink:
        for frame in scene:
            for unit in encoder.encode(frame):
                sink.write(unit)
        for unit in encoder.flush():
            sink.write(unit)
    return path


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of the scene at 320x180 and 3 frames/s: little, for a busy machine must keep pace."""
    return four_seconds(tmp_path_factory.mktemp("footage") / "scene.mp4", 3)


@pytest.fixture(scope="session")
def leisurely(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at one frame a second, for many cameras at once."""
    return four_seconds(tmp_path_factory.mktemp("leisurely") / "scene.mp4", 1)


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's detector at the footage's own size: what breaks here is never the network's part."""
    folder = tmp_path_factory.mktemp("detector")
    shutil.copy(assets_path() / "detector.onnx", folder)
    text = (assets_path() / "detector.card.toml").read_text()
    small = text.replace("width_px = 640", "width_px = 320").replace("height_px = 640", "height_px = 192")
    assert small != text
    path = folder / "detector.card.toml"
    path.write_text(small)
    return path
