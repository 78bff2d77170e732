"""One camera's bitstream: what a change of its encoder does to the frames that are held for their order."""

from dataclasses import replace

import pytest

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.server.decoding import ReceivedUnit, StreamDecoder


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_wait_for_b_frames_only_while_there_are_any(codec: str) -> None:
    scene = SceneSource(SceneSpec(87, 320, 180, frame_count=30))
    frames = list(scene)
    settings = EncoderSettings.for_source(scene.info, bitrate_bps=400_000, steerable=False, codec=codec)
    decoder: StreamDecoder | None = None
    came: list[int] = []
    waits = []
    for first, b_frames in ((0, 0), (10, 2), (20, 0)):
        with Encoder(replace(settings, b_frames=b_frames)) as encoder:
            if decoder is None:
                decoder = StreamDecoder(encoder.decoder_name, encoder.parameter_sets, (320, 180))
            units = [unit for frame in frames[first : first + 10] for unit in encoder.encode(frame)]
            for unit in units + encoder.flush():
                found = decoder.decode(ReceivedUnit(len(waits), unit.data, unit.is_keyframe, (320, 180)))
                came += [frame.pts for frame in found if frame.pts is not None]
                waits.append(len(waits) + 1 - len(came))
    assert decoder is not None
    assert max(waits[:10]) == 0
    assert 1 <= max(waits[10:20]) <= 2
    assert max(waits[20:]) == 0, "as before there were any"
    assert sorted(came) == list(range(30))
