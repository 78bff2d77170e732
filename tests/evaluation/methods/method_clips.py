"""Small clips of the embedded scene, and the demo's detector at half its size, for tests of methods."""

import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from accmpeg.demo import DEMO_SEED, assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.flow import Flow, bytes_of
from accmpeg.evaluation.methods import Method, MethodContext, OperatingPoint
from accmpeg.evaluation.methods.base import StreamFormat
from accmpeg.evaluation.run import run_method
from accmpeg.evaluation.session import Session

WIDTH_PX, HEIGHT_PX = 640, 360
RATE = Fraction(30)


@cache
def card() -> Path:
    """The demo detector's card with an input of 320 pixels: a quarter of the work."""
    model = assets_path() / "detector.onnx"
    text = (assets_path() / "detector.card.toml").read_text()
    path = Path(tempfile.mkdtemp(prefix="accmpeg-tests-")) / "detector.card.toml"
    path.write_text(text.replace('"detector.onnx"', f'"{model}"').replace("_px = 640", "_px = 320"))
    return path


@cache
def detector() -> ServerDnn:
    return load_dnn(card(), threads=1)


@cache
def scene() -> SceneSource:
    return SceneSource(SceneSpec(DEMO_SEED, width_px=WIDTH_PX, height_px=HEIGHT_PX, frame_count=400))


def stamped(planes: np.ndarray, index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = index, 1 / RATE
    return frame


def make_clip(pictures: list[np.ndarray], name: str) -> Clip:
    frames = [stamped(planes, index) for index, planes in enumerate(pictures)]
    return Clip(name, frames, WIDTH_PX, HEIGHT_PX, RATE, 1 / RATE)


@cache
def moving_clip(frames: int = 40, every: int = 1) -> Clip:
    """The street; with `every` above 1 as from a slower camera, so that more moves between frames."""
    return make_clip([scene().yuv420p(index * every) for index in range(frames)], f"moving {frames} {every}")


@cache
def still_clip(frames: int = 40) -> Clip:
    """The street's first picture over and over, sensor noise and all."""
    return make_clip([scene().yuv420p(0)] * frames, f"still {frames}")


def context() -> MethodContext:
    return MethodContext(detector(), card())


def stream_format(clip: Clip) -> StreamFormat:
    return StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base)


def run(method: Method, clip: Clip, quality: int = 32, *, step: int = 1) -> Session:
    """The method on a clip; every frame has its result afterwards."""
    session = run_method(clip, method, OperatingPoint(quality=quality), context(), step=step)
    assert len(session.clip_results(method.name)) == len(range(0, len(clip.frames), step))
    return session


def captured(session: Session) -> list[Flow]:
    """The flow of each captured frame, without those of feedback."""
    return [flow for flow in session.flows() if any(step.place != "downlink" for step in flow.steps)]


def uplink_bytes(session: Session) -> int:
    return bytes_of(session.flows(), "uplink")
