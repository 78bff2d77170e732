"""Every row of the design's table of settings that drop maps, tried on the real encoders."""

from fractions import Fraction

import pytest

from accmpeg.errors import EncoderError, MapIgnoredError
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.probe import map_steers

X264 = {"tune": "zerolatency", "preset": "veryfast"}
X265 = {"tune": "zerolatency"}
VP9 = {"deadline": "realtime", "cpu-used": "7", "lag-in-frames": "0", "aq-mode": "0", "crf": "30"}


def x265(**params):
    return {
        "x265-params": ":".join(
            f"{k.replace('_', '-')}={v}" for k, v in {"log_level": "none", **params}.items()
        )
    }


@pytest.mark.parametrize(
    ("codec", "options", "steers"),
    [
        ("libx264", {**X264, "qp": "30"}, False),
        ("libx264", {**X264, "crf": "30", "aq-mode": "0"}, False),
        ("libx264", {**X264, "crf": "30", "preset": "ultrafast"}, False),
        ("libx264", {**X264, "crf": "30", "preset": "ultrafast", "aq-mode": "1"}, True),
        ("libx264", {**X264, "crf": "30", "aq-strength": "0"}, False),
        ("libx264", {**X264, "crf": "30", "aq-strength": "0.0001"}, True),
        ("libx264", {**X264, "crf": "0"}, False),  # lossless has no QP to move
        ("libx264", {**X264, "crf": "30"}, True),
        ("libx264", {**X264, "crf": "51"}, True),
        ("libx264", {"preset": "medium", "crf": "23"}, True),  # B-frames and lookahead
        ("libx265", {**X265, "preset": "superfast", "crf": "30", **x265()}, False),
        ("libx265", {**X265, "preset": "veryfast", **x265(qp=30)}, False),
        ("libx265", {**X265, "preset": "veryfast", "crf": "30", **x265()}, True),
        ("libx265", {**X265, "preset": "ultrafast", "crf": "30", **x265()}, False),
        (
            "libx265",
            {**X265, "preset": "ultrafast", "crf": "30", **x265(aq_mode=1, aq_strength=0.1)},
            True,
        ),
        ("libvpx-vp9", VP9, True),
        ("libvpx-vp9", {**VP9, "deadline": "good"}, False),
        ("libvpx-vp9", {**VP9, "cpu-used": "4"}, False),
        ("libvpx-vp9", {**VP9, "aq-mode": "1"}, False),
        ("libvpx-vp9", {**VP9, "aq-mode": "3"}, False),
        ("libsvtav1", {"preset": "10", "crf": "35"}, False),
    ],
)
def test_the_probe_tells_what_steers(codec, options, steers):
    assert map_steers(codec, tuple(sorted(options.items())), rate_controlled=False) is steers


def settings(**chosen):
    return EncoderSettings(**{"width_px": 64, "height_px": 64, "frame_rate": Fraction(25), **chosen})


@pytest.mark.parametrize(
    "chosen",
    [
        {"qp": 30, "extra": {"crf": "-1", "qp": "30"}},
        {"crf": 30, "aq_mode": 0},
        {"qp": 30, "aq_strength": 0.0},
        {"crf": 30, "preset": "ultrafast", "aq_mode": 0},
        {"bitrate_bps": 500_000, "aq_mode": 0},
        {"codec": "libx265", "crf": 30, "preset": "superfast", "aq_strength": 0.0},
        {"codec": "libx265", "crf": 30, "extra": {"x265-params": "qp=30"}},
        {"codec": "libvpx-vp9", "crf": 30, "preset": "medium"},
        {"codec": "libsvtav1", "crf": 30},
        {"codec": "libaom-av1", "crf": 30},
        {"codec": "h264_nvenc", "crf": 30},
        {"codec": "hevc_nvenc", "crf": 30},
        {"codec": "h264_amf", "crf": 30},
    ],
)
def test_an_encoder_that_would_drop_the_map_does_not_open(chosen):
    with pytest.raises(MapIgnoredError, match=chosen.get("codec", "libx264")):
        Encoder(settings(**chosen))


@pytest.mark.parametrize("mode", [{"qp": 30}, {"crf": 28}, {"bitrate_bps": 400_000}])
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"preset": "ultrafast"},
        {"preset": "medium", "tune": "film"},
        {"codec": "libx265"},
        {"codec": "libx265", "preset": "superfast"},
        {"codec": "libx265", "preset": "ultrafast"},
        {"codec": "libvpx-vp9"},
    ],
)
def test_the_settings_offered_here_steer(mode, chosen):
    with Encoder(settings(**mode, **chosen)) as encoder:
        assert encoder.settings.steerable


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_baselines_open_without_the_proof(codec, textured):
    with Encoder(settings(codec=codec, crf=30, aq_mode=0, steerable=False)) as encoder:
        units = encoder.encode(textured(64, 64)) + encoder.flush()
        assert sum(unit.size_bytes for unit in units) > 100
        with pytest.raises(EncoderError):
            encoder.encode(textured(64, 64, pts=1))
