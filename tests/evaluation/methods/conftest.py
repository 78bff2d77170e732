"""A short street, the demo's own networks, and a session that remembers what was sent."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from accmpeg.accmodel.runtime import AccModel
from accmpeg.demo import DEMO_SEED, assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.bench.clip import Clip, read_clip
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods import Method, MethodContext, OperatingPoint, StreamFormat
from accmpeg.media.encoder import AccessUnit
from tests.evaluation.methods.method_clips import COSTS


@pytest.fixture(scope="session")
def street() -> Clip:
    """Twelve frames of the demo's street at 640×360 and 10 frames/s."""
    spec = SceneSpec(DEMO_SEED, 640, 360, frame_rate=Fraction(10), frame_count=12)
    with SceneSource(spec) as scene:
        return read_clip(scene)


@pytest.fixture
def context(demo_dnn: ServerDnn, demo_accmodel: AccModel) -> MethodContext:
    """The link's two ways and the server take more than one and less than two frames of the street."""
    link = Link(bandwidth_bps=1e9, propagation_ms=70)
    return MethodContext(demo_dnn, assets_path() / "detector.card.toml", demo_accmodel, every=4, link=link)


class RecordingSession(Session):
    """Keeps the access units that were sent during each frame's turn."""

    def __init__(self, clip: Clip, context: MethodContext, keep: frozenset[int] = frozenset()) -> None:
        super().__init__(clip, context, wanted=frozenset(range(len(clip.frames))), costs=COSTS, keep=keep)
        self.sent: dict[int, list[AccessUnit]] = {}

    def upload(self, units: Sequence[AccessUnit] | int) -> None:
        assert not isinstance(units, int)
        self.sent.setdefault(self.index, []).extend(units)
        super().upload(units)


class Recorder:
    """Runs a method frame by frame, as the bench does, on as many frames as it is told."""

    def __call__(
        self,
        clip: Clip,
        method: Method,
        context: MethodContext,
        *,
        quality: int = 30,
        frames: int | None = None,
        all_keyframes: bool = False,
        keep: Sequence[int] = (),
    ) -> RecordingSession:
        session = RecordingSession(clip, context, frozenset(keep))
        stream_format = StreamFormat(
            clip.width_px,
            clip.height_px,
            clip.frame_rate,
            clip.time_base,
            gop_frames=1 if all_keyframes else 250,
        )
        stream = method.open(stream_format, OperatingPoint(quality=quality), session)
        for index in range(len(clip.frames) if frames is None else frames):
            stream.push(index, session.capture(index))
        stream.finish()
        session.end()
        return session


@pytest.fixture
def record() -> Recorder:
    return Recorder()
