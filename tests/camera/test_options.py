"""What a camera's options come to where they are left to it."""

from pathlib import Path
from typing import Any

import pytest

from accmpeg.camera.options import CameraOptions
from accmpeg.demo.scene import SceneSource, SceneSpec

INFO = SceneSource(SceneSpec(1, 160, 96, frame_count=1)).info


@pytest.mark.parametrize(
    ("given", "gop_frames"),
    [
        pytest.param({}, 1500, id="only the server reads it"),
        pytest.param({"spool": Path("spool")}, 300, id="an outage is sent again from a keyframe on"),
        pytest.param({"drop": "none"}, 300, id="so is a cut"),
        pytest.param({"publish": ["here.mp4"]}, 300, id="others come in at keyframes"),
        pytest.param({"publish": ["here.mp4"], "gop_frames": 50}, 50, id="what is asked for"),
        pytest.param({"gop_frames": 50}, 50, id="and live"),
        pytest.param({"gop_frames": 0}, 0, id="what the encoder refuses"),
    ],
)
def test_keyframes_are_as_rare_as_the_readers_of_a_stream_allow(
    given: dict[str, Any], gop_frames: int
) -> None:
    settings = CameraOptions(**given).encoder_settings(INFO, 500_000, steerable=False)
    assert settings.gop_frames == gop_frames
