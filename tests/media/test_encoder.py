import re
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from accmpeg.errors import DecoderError, EncoderError
from accmpeg.media import native
from accmpeg.media.decoder import Decoder, encode_still, qp_map
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.frames import plane_view
from accmpeg.media.grid import MacroblockGrid


def settings(width_px=320, height_px=180, **chosen):
    mode = {} if {"qp", "crf", "bitrate_bps"} & set(chosen) else {"qp": 30}
    return EncoderSettings(
        **{"width_px": width_px, "height_px": height_px, "frame_rate": Fraction(25), **mode, **chosen}
    )


def read_back(frame, qp_offsets, **chosen):
    with Encoder(settings(frame.width, frame.height, **chosen)) as encoder:
        (unit,) = encoder.encode(frame, qp_offsets)
    (decoded,) = Decoder(read_qp=True, width_px=frame.width, height_px=frame.height).decode(unit)
    return qp_map(decoded)


def after_x264s_habit(qps):
    """x264 gives a macroblock the QP of the one before it (in raster order) where they are 1 apart."""
    coded, last = [], None
    for qp in qps.ravel():
        last = last if last is not None and abs(int(qp) - last) == 1 else int(qp)
        coded.append(last)
    return np.reshape(coded, qps.shape)


SIZES = [(1280, 720), (640, 368), (641, 361), (180, 320)]


@pytest.mark.parametrize("size_px", SIZES)
@pytest.mark.parametrize("base_qp", [25, 33])
def test_the_qps_of_an_idr_picture_are_those_asked_for(textured, size_px, base_qp):
    offsets = 2 * np.random.default_rng(base_qp).integers(-6, 7, MacroblockGrid(*size_px).shape)
    qps = read_back(textured(*size_px), offsets, qp=base_qp)
    assert (qps == base_qp + offsets).mean() >= 0.99


@pytest.mark.parametrize("size_px", SIZES)
def test_maps_of_any_whole_offsets_follow_x264s_habit(textured, size_px):
    offsets = np.random.default_rng(1).integers(-12, 13, MacroblockGrid(*size_px).shape)
    qps = read_back(textured(*size_px), offsets)
    assert (qps == after_x264s_habit(30 + offsets)).mean() >= 0.99
    assert np.abs(qps - 30 - offsets).max() <= 1


def test_fractional_offsets_round_to_the_nearest_qp(textured):
    shape = MacroblockGrid(320, 180).shape
    assert (read_back(textured(), np.full(shape, 2.4)) == 32).all()
    assert (read_back(textured(), np.full(shape, -2.6)) == 27).all()


def test_qps_stay_within_the_codecs_range(textured):
    shape = MacroblockGrid(320, 180).shape
    assert (read_back(textured(), np.full(shape, -60.0)) == 0).all()
    assert (read_back(textured(), np.full(shape, 15.0)) == 45).all()
    _, size_bytes = encode_still(textured(), 30, np.full(shape, 60.0))
    assert size_bytes < encode_still(textured(), 45)[1]


def test_one_frame_serves_many_encodes(textured):
    frame = textured(pts=7, time_base=Fraction(1, 30))
    frame.pict_type = av.video.frame.PictureType.P
    shape = MacroblockGrid(320, 180).shape
    before = frame.pts, frame.time_base, frame.pict_type
    coarse = read_back(frame, np.full(shape, 9))
    fine = read_back(frame, np.full(shape, -9))
    plain = read_back(frame, None)
    assert (coarse == 39).all()
    assert (fine == 21).all()
    assert (plain == 30).all()
    assert (frame.pts, frame.time_base, frame.pict_type) == before


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_every_codec_spends_its_bits_where_the_map_says(textured, codec):
    grid = MacroblockGrid(320, 192)
    left_better = np.full(grid.shape, 8.0)
    left_better[:, : grid.cols // 2] = -8
    errors = []
    with (
        Encoder(settings(320, 192, codec=codec, crf=30)) as encoder,
        Decoder(encoder.decoder_name) as decoder,
    ):
        for index in range(6):
            frame = textured(320, 192, seed=index, pts=index)
            (unit,) = encoder.encode(frame, left_better)
            (decoded,) = decoder.decode(unit)
            error = (plane_view(decoded, 0).astype(float) - plane_view(frame, 0)) ** 2
            errors.append((error[:, :160].mean(), error[:, 160:].mean()))
    left, right = errors[-1]
    assert left < 0.5 * right


@pytest.mark.parametrize("mode", [{"qp": 30}, {"bitrate_bps": 400_000}])
def test_the_filter_way_gives_the_same_bitstream(textured, monkeypatch, mode):
    offsets = np.random.default_rng(0).normal(0, 6, MacroblockGrid(320, 180).shape)

    def encoded():
        with Encoder(settings(**mode)) as encoder:
            return [encoder.encode(textured(moved_px=i, pts=i), offsets)[0] for i in range(3)]

    by_pointer = encoded()
    monkeypatch.setattr(native, "can_attach_side_data", lambda: False)
    assert encoded() == by_pointer


def test_vp9_forgets_a_map_when_none_follows(textured):
    grid = MacroblockGrid(320, 192)
    coarse = np.full(grid.shape, 20.0)
    sizes = []
    with Encoder(settings(320, 192, codec="libvpx-vp9", qp=20)) as encoder:
        for index, offsets in enumerate([None, None, coarse, coarse, None, None]):
            (unit,) = encoder.encode(textured(320, 192, seed=index, pts=index), offsets)
            sizes.append(unit.size_bytes)
    assert sizes[3] < 0.5 * sizes[1]
    assert sizes[5] > 0.8 * sizes[1]


def test_fixed_qp_holds_on_every_frame_type(textured):
    with Encoder(settings(qp=28)) as encoder, Decoder(read_qp=True) as decoder:
        for index in range(5):
            (unit,) = encoder.encode(textured(seed=index, pts=index))
            (decoded,) = decoder.decode(unit)
            assert (qp_map(decoded) == 28).all()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_keyframes_come_when_asked_and_only_then(textured, codec):
    with Encoder(settings(codec=codec, crf=35)) as encoder:
        keys = []
        for index in range(8):
            frame = textured(seed=3, pts=index)
            frame.pict_type = av.video.frame.PictureType.I  # as a decoder of an intra-only source leaves it
            (unit,) = encoder.encode(frame, keyframe=index == 5)
            keys.append(unit.is_keyframe)
        assert keys == [True, False, False, False, False, True, False, False]
        decoder = Decoder(encoder.decoder_name)
        encoder.encode(textured(seed=1, pts=8))
        (unit,) = encoder.encode(textured(seed=2, pts=9), keyframe=True)
        assert len(decoder.decode(unit)) == 1  # it stands alone, parameter sets included


def test_bitrate_changes_on_the_open_encoder(textured):
    def mean_size(encoder, first, count):
        units = [encoder.encode(textured(moved_px=i, pts=i)) for i in range(first, first + count)]
        assert all(len(unit) == 1 for unit in units)
        assert not any(unit[0].is_keyframe for unit in units[1:])
        return np.mean([unit[0].size_bytes for unit in units[count // 2 :]])

    with Encoder(settings(bitrate_bps=800_000)) as encoder:
        usual = mean_size(encoder, 0, 30)
        encoder.set_bitrate(400_000)
        low = mean_size(encoder, 30, 40)
        encoder.set_bitrate(1_600_000)
        high = mean_size(encoder, 70, 120)
    assert low == pytest.approx(usual / 2, rel=0.35)
    assert high > 1.35 * usual  # x264 climbs slowly


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9"])
def test_other_codecs_change_their_bitrate_with_a_keyframe(textured, codec):
    with (
        Encoder(settings(codec=codec, bitrate_bps=2_000_000)) as encoder,
        Decoder(encoder.decoder_name) as decoder,
    ):
        units = [unit for i in range(4) for unit in encoder.encode(textured(moved_px=i, pts=i))]
        encoder.set_bitrate(300_000)
        units += [unit for i in range(4, 8) for unit in encoder.encode(textured(moved_px=i, pts=i))]
        units += encoder.flush()
        assert [unit.is_keyframe for unit in units] == [i in (0, 4) for i in range(8)]
        assert sum(len(decoder.decode(unit)) for unit in units) + len(decoder.flush()) == 8
        assert units[7].size_bytes < units[3].size_bytes


def test_bitrate_of_a_quality_encoder_is_not_to_be_changed():
    with Encoder(settings(crf=30)) as encoder, pytest.raises(EncoderError, match="bitrate_bps"):
        encoder.set_bitrate(100_000)


def test_timestamps_come_through_in_the_chosen_time_base(textured):
    time_base = Fraction(1, 16000)
    stamps = [0, 533, 534, 2000, 1_000_000]
    with Encoder(settings(time_base=time_base)) as encoder:
        units = [encoder.encode(textured(pts=pts, time_base=time_base))[0] for pts in stamps]
    assert [unit.pts for unit in units] == stamps
    assert {unit.time_base for unit in units} == {time_base}


def test_frames_without_timestamps_are_counted(textured):
    with Encoder(settings()) as encoder:
        seconds = []
        for _ in range(3):
            frame = textured()
            frame.pts = None
            (unit,) = encoder.encode(frame)
            seconds.append(unit.pts * unit.time_base)
    assert seconds == [0, Fraction(1, 25), Fraction(2, 25)]


def test_time_must_not_run_backwards(textured):
    with Encoder(settings()) as encoder:
        encoder.encode(textured(pts=5))
        with pytest.raises(EncoderError, match="rise"):
            encoder.encode(textured(pts=4))


def test_lookahead_holds_frames_until_flushed(textured):
    with Encoder(settings(crf=30, preset="medium", tune="film", time_base=Fraction(1, 25))) as encoder:
        shape = MacroblockGrid(320, 180).shape
        units = [u for i in range(10) for u in encoder.encode(textured(seed=i, pts=i), np.full(shape, 1.0))]
        assert len(units) < 10
        units += encoder.flush()
        assert sorted(unit.pts for unit in units) == list(range(10))
        with pytest.raises(EncoderError, match="closed"):
            encoder.encode(textured(pts=11))
        with Decoder(parameter_sets=encoder.parameter_sets) as decoder:
            frames = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    assert [frame.pts for frame in frames] == list(range(10))


@pytest.mark.parametrize("mode", [{"crf": 30}, {"qp": 30}, {"bitrate_bps": 300_000}])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_b_frames_leave_late_and_come_back_in_order(textured, codec, mode):
    chosen = settings(codec=codec, b_frames=2, steerable=False, **mode)
    with Encoder(chosen) as encoder, Decoder(encoder.decoder_name) as decoder:
        units = [encoder.encode(textured(moved_px=2 * index, pts=index)) for index in range(12)]
        if codec == "libx264":
            assert [len(each) for each in units] == [0, 0, *[1] * 10], "late by the B-frames, and no more"
        sent = [unit for each in units for unit in each] + encoder.flush()
        frames = [frame for unit in sent for frame in decoder.decode(unit)] + decoder.flush()
    assert [unit.pts for unit in sent] != sorted(unit.pts for unit in sent)
    assert [unit.dts for unit in sent] == sorted(unit.dts for unit in sent)
    assert len(frames) == 12
    assert [frame.pts for frame in frames] == sorted(unit.pts for unit in sent)


def test_b_frames_follow_the_map(textured):
    offsets = np.where(np.arange(20) < 10, -8, 8) * np.ones((12, 1))
    with Encoder(settings(crf=32, b_frames=2)) as encoder, Decoder() as decoder:
        frames = [textured(moved_px=4 * index, pts=index) for index in range(8)]
        units = [unit for frame in frames for unit in encoder.encode(frame, offsets)] + encoder.flush()
        coded = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    error = [
        np.abs(plane_view(a, 0).astype(int) - plane_view(b, 0)) for a, b in zip(frames, coded, strict=True)
    ]
    assert all(each[:, :150].mean() < 0.8 * each[:, 170:].mean() for each in error)


def test_b_frames_are_always_as_many_in_a_row(textured):
    """Nothing in the picture changes that, or every frame would cost the CPU to find it out."""
    scenes = [textured(seed=index // 6, pts=index) for index in range(13)]
    with Encoder(settings(crf=32, b_frames=2, steerable=False)) as encoder, Decoder() as decoder:
        units = [unit for frame in scenes for unit in encoder.encode(frame)] + encoder.flush()
        frames = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    assert "".join(PictureType(frame.pict_type).name for frame in frames) == "I" + "BBP" * 4


def test_mb_tree_holds_the_frames_that_it_looks_at(textured):
    with Encoder(settings(crf=30, b_frames=2, mbtree_frames=10, steerable=False)) as encoder:
        counts = [len(encoder.encode(textured(moved_px=2 * index, pts=index))) for index in range(14)]
    assert counts.index(1) >= 10


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "libsvtav1", "libx265"])
@pytest.mark.parametrize("size_px", [(1, 1), (2, 1), (17, 33), (8192, 64), (64, 8192), (333, 77)])
def test_any_frame_size_works_or_is_refused_in_one_line(textured, codec, size_px):
    frame = textured(*size_px)
    wanted = settings(*size_px, codec=codec, crf=35, steerable=False)
    if codec in ("libx265", "libsvtav1") and min(size_px) < 16:
        with pytest.raises(EncoderError, match=rf"^[^\n]*{size_px[0]}x{size_px[1]}[^\n]*$"):
            Encoder(wanted)
        return
    with Encoder(wanted) as encoder:
        units = encoder.encode(frame) + encoder.flush()
        decoder = Decoder(encoder.decoder_name, width_px=frame.width, height_px=frame.height)
    frames = [decoded for unit in units for decoded in decoder.decode(unit)] + decoder.flush()
    assert [(f.width, f.height) for f in frames] == [size_px]


def test_the_odd_column_repeats_the_edge(textured):
    frame = textured(33, 17)
    with Encoder(settings(33, 17, qp=4)) as encoder:
        assert (encoder.coded_width_px, encoder.coded_height_px) == (34, 18)
        (unit,) = encoder.encode(frame)
    (whole,) = Decoder().decode(unit)
    assert (whole.width, whole.height) == (34, 18)
    luma = plane_view(whole, 0).astype(int)
    assert np.abs(luma[:17, :33] - plane_view(frame, 0)).max() < 8
    assert np.abs(luma[:17, 33] - plane_view(frame, 0)[:, 32]).max() < 8


def test_colour_tags_reach_the_decoder(textured):
    frame = textured()
    frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 1, 1, 1, 1
    with Encoder(settings()) as encoder:
        (decoded,) = Decoder().decode(encoder.encode(frame)[0])
    assert (decoded.colorspace, decoded.color_primaries, decoded.color_trc, decoded.color_range) == (
        1,
        1,
        1,
        1,
    )


def test_other_pixel_formats_are_converted_on_the_way_in(textured):
    with Encoder(settings()) as encoder:
        (unit,) = encoder.encode(textured().reformat(format="rgb24"))
    assert Decoder().decode(unit)[0].format.name == "yuv420p"


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"qp": None}, "exactly one"),
        ({"qp": 30, "crf": 20}, "exactly one"),
        ({"qp": 52}, "0 to 51"),
        ({"crf": -1}, "0 to 51"),
        ({"bitrate_bps": 0}, "bitrate"),
        ({"preset": "quick"}, "veryfast"),
        ({"codec": "h265"}, "libx265"),
        ({"extra": {"presett": "fast"}}, "presett"),
        ({"width_px": 0}, "0x180"),
        ({"width_px": 20000}, "20000x180"),
        ({"gop_frames": 0}, "positive"),
        ({"b_frames": 17}, "0 to 16"),
        ({"codec": "libvpx-vp9", "b_frames": 2}, "use libx264, libx265"),
        ({"codec": "libx265", "mbtree_frames": 10}, "mb-tree"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(chosen, says):
    with pytest.raises(EncoderError, match=says) as refused:
        Encoder(settings(**chosen))
    assert "\n" not in str(refused.value)


def test_a_frame_of_another_size_is_refused(textured):
    with Encoder(settings()) as encoder, pytest.raises(EncoderError, match="640x360"):
        encoder.encode(textured(640, 360))


def test_a_map_of_another_shape_is_refused(textured):
    with Encoder(settings()) as encoder, pytest.raises(EncoderError, match=re.escape("(12, 20)")):
        encoder.encode(textured(), np.zeros((20, 12)))


@pytest.mark.parametrize("size_px", [(320, 180), (33, 17), (1, 1)])
def test_a_still_comes_back_coarser_and_in_its_own_size(textured, size_px):
    frame = textured(*size_px)
    fine, fine_bytes = encode_still(frame, 20)
    coarse, coarse_bytes = encode_still(frame, 20, np.full(MacroblockGrid(*size_px).shape, 20.0))
    assert (fine.width, fine.height) == (coarse.width, coarse.height) == size_px
    assert (fine.pts, fine.time_base) == (0, Fraction(1, 25))
    if size_px[0] > 1:
        assert coarse_bytes < fine_bytes
        errors = [np.abs(plane_view(f, 0).astype(int) - plane_view(frame, 0)).mean() for f in (fine, coarse)]
        assert errors[0] < errors[1]


def test_qps_are_only_there_when_asked_for(textured):
    decoded, _ = encode_still(textured(), 30)
    with pytest.raises(DecoderError, match="read_qp"):
        qp_map(decoded)
