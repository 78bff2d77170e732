"""Small clips of the embedded scene, and the demo's detector at half its size, for tests of methods."""

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from accmpeg.demo import DEMO_SEED, assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.costs import Costs
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.flow import Place, Step, bytes_of
from accmpeg.evaluation.methods import Method, MethodContext, OperatingPoint
from accmpeg.evaluation.methods.base import StreamFormat

WIDTH_PX, HEIGHT_PX = 640, 360
RATE = Fraction(30)

STAGES = {
    "camera": "encode, resize, accmodel, policy, blank, track, difference, three differences, motion vectors",
    "server": "decode, enlarge, regions, paste, merge, gradient, thresholds",
}
STREAMS = ("coarse", "fine", "320x180")
"""Beside the main one."""
COSTS = Costs(
    stage_ms={
        f"{place}: {stage}": 1.0
        for place, stages in STAGES.items()
        for each in stages.split(", ")
        for stage in (each, *(f"{each} {stream}" for stream in STREAMS))
    },
    camera_ms=1.0,
    plain_camera_ms=1.0,
    infer_ms=10.0,
)
"""A millisecond for every stage: what a method does then does not depend on how busy this machine is."""


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


def run(
    method: Method, clip: Clip, quality: int = 32, *, step: int = 1, shared: MethodContext | None = None
) -> Session:
    """The method on a clip; every `step`-th frame has its result afterwards."""
    wanted = frozenset(range(0, len(clip.frames), step))
    point = OperatingPoint(quality=quality)
    session = run_method(clip, method, point, shared or context(), wanted=wanted, costs=COSTS)
    assert len(session.clip_results(method.name)) == len(wanted)
    return session


def reference_results(clip: Clip) -> list[Any]:
    return [detector().infer(frame) for frame in clip.frames]


def accuracy(session: Session, references: Sequence[Any]) -> float:
    """Against the DNN's results on the pristine frames, of which all are wanted."""
    results = [session.results[index] for index in range(len(references))]
    return detector().task.clip_accuracy(results, references).value


def deliveries(session: Session) -> list[list[int]]:
    """The frames that have their results in each captured frame's flow."""
    return [[each.index for step in flow.steps for each in step.delivers] for flow in session.flows]


def sizes(session: Session, place: Place) -> list[list[int]]:
    """What crosses the link in each captured frame's flow, one way, beside it too."""
    return [
        [step.size_bytes for step in _all_steps(flow.steps) if step.place == place] for flow in session.flows
    ]


def _all_steps(steps: Sequence[Step]) -> list[Step]:
    return [each for step in steps for each in (step, *_all_steps(step.beside))]


def uplink_bytes(session: Session) -> int:
    return bytes_of(session.flows, "uplink")
