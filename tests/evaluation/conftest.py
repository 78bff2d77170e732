"""A short, small clip of the embedded scene, and what methods share on it."""

import pytest

from accmpeg.accmodel.runtime import AccModel
from accmpeg.demo import DEMO_SEED, assets_path
from accmpeg.demo.scene import CLASS_NAMES, SceneSource, SceneSpec, true_detections
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.evaluation.clip import Clip, read_clip
from accmpeg.evaluation.methods import MethodContext

FRAMES = 12


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


@pytest.fixture
def context(demo_dnn: ServerDnn, demo_accmodel: AccModel) -> MethodContext:
    """Fresh for each test, because methods keep what they worked out in it."""
    return MethodContext(demo_dnn, assets_path() / "detector.card.toml", demo_accmodel, every=5)
