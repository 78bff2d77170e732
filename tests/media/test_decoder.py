import contextlib
from fractions import Fraction

import pytest

from accmpeg.errors import DecoderError
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings

CODECS = ["libx264", "libx265", "libvpx-vp9"]


def stream(textured, codec="libx264", frames=8, gop_frames=4):
    settings = EncoderSettings(
        width_px=160, height_px=96, frame_rate=Fraction(25), crf=30, codec=codec, gop_frames=gop_frames
    )
    with Encoder(settings) as encoder:
        units = [unit for i in range(frames) for unit in encoder.encode(textured(160, 96, moved_px=i, pts=i))]
        return units + encoder.flush(), encoder.decoder_name


def damaged(unit: AccessUnit) -> AccessUnit:
    # In the headers: entropy-coded data has no checksum, and flipped bits in it decode to something.
    data = unit.data[:6] + bytes(byte ^ 0xA5 for byte in unit.data[6:20]) + unit.data[20:]
    return AccessUnit(data, unit.pts, unit.dts, unit.time_base, unit.is_keyframe)


@pytest.mark.parametrize("codec", [*CODECS, "libsvtav1"])
def test_units_become_frames_with_their_timestamps(textured, codec):
    settings = EncoderSettings(
        width_px=160,
        height_px=96,
        frame_rate=Fraction(25),
        crf=30,
        codec=codec,
        steerable=codec != "libsvtav1",
    )
    with Encoder(settings) as encoder, Decoder(encoder.decoder_name) as decoder:
        units = [unit for i in range(5) for unit in encoder.encode(textured(160, 96, moved_px=i, pts=i))]
        units += encoder.flush()
        frames = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(i, 25) for i in range(5)]
    assert {frame.format.name for frame in frames} == {"yuv420p"}


def test_no_frame_waits_for_the_next_unit(textured):
    units, name = stream(textured)
    with Decoder(name) as decoder:
        assert [len(decoder.decode(unit)) for unit in units] == [1] * len(units)
    with Decoder(name) as decoder:
        assert [len(decoder.decode(unit.data)) for unit in units] == [1] * len(units)


@pytest.mark.parametrize("codec", CODECS)
def test_after_damage_decoding_goes_on_at_the_next_keyframe(textured, codec):
    units, name = stream(textured, codec, frames=10, gop_frames=5)
    assert [unit.is_keyframe for unit in units] == [i % 5 == 0 for i in range(10)]
    units[1] = damaged(units[1])
    with Decoder(name) as decoder:
        assert len(decoder.decode(units[0])) == 1
        with pytest.raises(DecoderError, match="damaged"):
            decoder.decode(units[1])
        assert [len(decoder.decode(unit)) for unit in units[2:]] == [0, 0, 0, 1, 1, 1, 1, 1]
        assert decoder.skipped_units == 4


def test_plain_bytes_recover_too(textured):
    units, name = stream(textured, frames=10, gop_frames=5)
    with Decoder(name) as decoder:
        decoder.decode(units[0].data)
        with pytest.raises(DecoderError):
            decoder.decode(damaged(units[1]).data)
        assert [len(decoder.decode(unit.data)) for unit in units[2:]] == [0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("junk", [b"", b"\0" * 100, b"not a bitstream at all", bytes(range(256)) * 4])
@pytest.mark.parametrize("name", ["h264", "hevc", "vp9"])
def test_junk_never_becomes_a_frame(name, junk):
    with Decoder(name) as decoder:
        frames = []
        with contextlib.suppress(DecoderError):
            frames = decoder.decode(junk)
        assert frames == []


def test_a_truncated_stream_gives_what_it_has(textured):
    units, name = stream(textured)
    with Decoder(name) as decoder:
        frames = sum(len(decoder.decode(unit)) for unit in units[:-1])
        with pytest.raises(DecoderError):
            decoder.decode(units[-1].data[: units[-1].size_bytes // 2])
    assert frames == len(units) - 1


def test_unknown_codecs_are_named():
    with pytest.raises(DecoderError, match="h265x"):
        Decoder("h265x")
    with pytest.raises(DecoderError, match="aac"):
        Decoder("aac")


def test_a_closed_decoder_says_so(textured):
    units, name = stream(textured, frames=1)
    decoder = Decoder(name)
    decoder.flush()
    with pytest.raises(DecoderError, match="closed"):
        decoder.decode(units[0])
