"""A short, small clip of the embedded scene, small videos of it, and the networks that look at them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from accmpeg.accmodel.runtime import AccModel
from accmpeg.demo import DEMO_SEED, assets_path
from accmpeg.demo.scene import CLASS_NAMES, SceneSource, SceneSpec, true_detections
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.methods import MethodContext
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink

FRAMES = 12
RenderVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def clip() -> Clip:
    scene = SceneSource(SceneSpec(DEMO_SEED, frame_count=FRAMES, width_px=640, height_px=360))
    return read_clip(scene, labels=true_detections(scene), label_classes=CLASS_NAMES)


@pytest.fixture(scope="session")
def demo_dnn() -> ServerDnn:
    return load_dnn(assets_path() / "detector.card.toml", threads=1)


@pytest.fixture(scope="session")
def demo_accmodel() -> AccModel:
    return AccModel.load(assets_path() / "accmodel.card.toml")


@pytest.fixture(scope="session")
def small_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo detector's card with an input of 320 pixels: a quarter of the work."""
    text = (assets_path() / "detector.card.toml").read_text()
    path = tmp_path_factory.mktemp("small") / "detector.card.toml"
    text = text.replace('"detector.onnx"', f'"{assets_path() / "detector.onnx"}"')
    path.write_text(text.replace("_px = 640", "_px = 320"))
    return path


@pytest.fixture
def context(small_card: Path, demo_accmodel: AccModel) -> MethodContext:
    """Fresh for each test, because methods keep what they worked out in it."""
    return MethodContext(load_dnn(small_card, threads=1), small_card, demo_accmodel, every=5)


@pytest.fixture(scope="session")
def render_video() -> RenderVideo:
    """Writes a nearly lossless video of a street at 640×360 and 10 frames/s."""

    def render(path: Path, seed: int = DEMO_SEED, frames: int = FRAMES) -> Path:
        rate = Fraction(10)
        scene = SceneSource(SceneSpec(seed, 640, 360, frame_rate=rate, frame_count=frames))
        settings = EncoderSettings.for_source(scene.info, crf=8, steerable=False)
        with Encoder(settings) as encoder, open_sink(path, encoder) as sink:
            for frame in scene:
                for unit in encoder.encode(frame):
                    sink.write(unit)
            for unit in encoder.flush():
                sink.write(unit)
        return path

    return render
