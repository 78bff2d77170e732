"""What all methods share: one I/P ratio, exact QPs, one size of the DNN, B-frames in order, declared rows."""

from dataclasses import replace

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from accmpeg.accmodel.runtime import AccModel
from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.methods import BASELINES, METHODS, PRIMARY, Method, OperatingPoint, find_methods
from accmpeg.media.decoder import Decoder, qp_map
from accmpeg.media.encoder import AccessUnit, EncoderSettings
from accmpeg.media.grid import MacroblockGrid
from tests.evaluation.methods.method_clips import (
    context,
    deliveries,
    moving_clip,
    run,
    stream_format,
    uplink_bytes,
)

POINT = OperatingPoint(quality=30)
FRAMES = 24


def coded(
    settings: EncoderSettings, qp_offsets: np.ndarray | None = None
) -> tuple[list[AccessUnit], list[av.VideoFrame]]:
    with SteeredEncoder(settings, None) as steered:
        steered.qp_offsets = qp_offsets
        units = [unit for frame in moving_clip(FRAMES).frames for unit in steered.encode(frame)]
        units += steered.flush()
        with Decoder(steered.encoder.decoder_name, steered.encoder.parameter_sets, read_qp=True) as decoder:
            return units, [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()


@pytest.mark.parametrize("aq_mode", [None, 0, 1])
def test_keyframes_are_finer_by_the_same_ratio_in_every_mode(aq_mode: int | None) -> None:
    """1.4 in quantisation is 2.9 QP, read from the coded frames: the first keyframe's and a later one's."""
    format_ = replace(stream_format(moving_clip(FRAMES)), gop_frames=12)
    units, _ = coded(format_.settings(POINT, aq_mode=aq_mode))
    assert [index for index, unit in enumerate(units) if unit.is_keyframe] == [0, 12]
    assert units[0].qp == pytest.approx(27.1, abs=0.2)
    # A CRF wanders with the content; its keyframe is finer than the P frames before it.
    before = np.mean([unit.qp for unit in units[6:12]])
    assert before - units[12].qp == pytest.approx(2.9, abs=0.2 if aq_mode is None else 1.0)
    if aq_mode is None:
        assert {unit.qp for unit in [*units[1:12], *units[13:]]} == {30}


def test_maps_are_exact_on_p_frames_and_keyframes() -> None:
    format_ = stream_format(moving_clip(FRAMES))
    offsets = np.zeros(MacroblockGrid(format_.width_px, format_.height_px).shape, np.float32)
    offsets[:, 20:] = 8
    _, frames = coded(format_.settings(POINT, aq_mode=None, steerable=True), offsets)
    # Only the keyframe says every block's QP: a skipped one elsewhere reports the block before it.
    first = qp_map(frames[0])
    assert (first[:, :20] == 27).mean() > 0.99
    assert (first[:, 21:] == 35).mean() > 0.99
    for frame in frames[1:]:
        assert set(np.unique(qp_map(frame))) <= {30, 38}


def test_a_fractional_point_is_a_crf_or_a_rounded_qp() -> None:
    format_ = stream_format(moving_clip(FRAMES))
    point = OperatingPoint(quality=34.5)
    assert format_.settings(point, aq_mode=1).crf == 34.5
    assert format_.settings(OperatingPoint(quality=34.6), aq_mode=None).qp == 35
    assert str(point) == "q34.5"


def test_b_frames_come_back_in_order_and_are_few_frames_late() -> None:
    session = run(METHODS["b2"], moving_clip(FRAMES), 30)
    # Two in the encoder, which has to see their successors, and one in the decoder's reordering.
    assert deliveries(session)[:7] == [[], [], [], [0], [1], [2], [3]]
    assert sorted(index for indices in deliveries(session) for index in indices) == list(range(FRAMES))
    units, frames = coded(stream_format(moving_clip(FRAMES)).settings(POINT, aq_mode=1, b_frames=2))
    assert [frame.pts for frame in frames] == [frame.pts for frame in moving_clip(FRAMES).frames]
    assert [unit.pts for unit in units] != sorted(unit.pts for unit in units)
    assert [unit.dts for unit in units] == sorted(unit.dts for unit in units)
    kinds = [PictureType(frame.pict_type).name for frame in frames]
    assert kinds[0] == "I"
    assert kinds.count("B") > FRAMES / 3


@pytest.mark.parametrize(("extra", "coarser"), [("", 6), (":pbratio=1.3", 2)])
def test_b_frames_are_coarser_than_what_they_refer_to(extra: str, coarser: int) -> None:
    settings = stream_format(moving_clip(FRAMES)).settings(OperatingPoint(quality=26), aq_mode=0, b_frames=2)
    params = {"x264-params": settings.extra["x264-params"] + extra}
    qps: dict[str, list[float]] = {"I": [], "P": [], "B": []}
    for frame in coded(replace(settings, extra=params))[1]:
        qps[PictureType(frame.pict_type).name].append(float(np.median(qp_map(frame))))
    assert np.median(qps["B"]) - np.median(qps["P"]) == pytest.approx(coarser, abs=1)


def test_a_frame_comes_back_as_itself_under_b_frames() -> None:
    """A result of a neighbour would be worse than a late one."""
    clip = moving_clip(FRAMES, every=6)
    keep = frozenset({5, 6, 7})
    session = run_method(clip, METHODS["b2"], OperatingPoint(quality=20), context(), keep=keep)
    for index in keep:
        gaps = [
            np.abs(session.seen[index].to_ndarray().astype(int) - other.to_ndarray()).mean()
            for other in clip.frames[index - 1 : index + 2]
        ]
        assert np.argmin(gaps) == 1


def test_maps_steer_under_b_frames() -> None:
    format_ = stream_format(moving_clip(FRAMES))
    offsets = np.zeros(MacroblockGrid(format_.width_px, format_.height_px).shape, np.float32)
    offsets[:, 20:] = 10
    settings = format_.settings(OperatingPoint(quality=22), aq_mode=1, steerable=True, b_frames=2)
    (_, plain), (_, steered) = coded(settings), coded(settings, offsets)
    sources = [frame.to_ndarray()[:360].astype(int) for frame in moving_clip(FRAMES).frames]
    checked = 0
    for a, b, source in zip(plain, steered, sources, strict=True):
        if PictureType(b.pict_type).name != "B":
            continue
        errors = [np.square(frame.to_ndarray()[:360] - source) for frame in (a, b)]
        left, right = (
            [error[:, half].mean() for error in errors] for half in (slice(0, 304), slice(336, 640))
        )
        assert right[1] / right[0] > 1.3 * left[1] / left[0]
        checked += 1
    assert checked > 5


def test_the_dnns_size_is_one_for_every_row() -> None:
    """That of `--size dnn`: a frame less than 1.4 times as large as what the DNN sees stays as it is."""
    dnn = context().dnn
    format_ = stream_format(moving_clip(FRAMES))
    assert (format_.at_dnn_size(dnn).width_px, format_.at_dnn_size(dnn).height_px) == (320, 180)
    hardly_larger = replace(format_, width_px=400, height_px=224)
    assert hardly_larger.at_dnn_size(dnn) == hardly_larger


@pytest.mark.parametrize("name", ["aq-1", "b2", "constant-qp", "graded", "b2-feedback"])
def test_rows_at_the_dnns_size_are_their_siblings_there(name: str, demo_accmodel: AccModel) -> None:
    clip = moving_clip(6)
    whole, small = METHODS[name], METHODS[f"{name}@dnn"]
    assert small == replace(
        whole,
        name=f"{name}@dnn",
        size="dnn",
        quality_shift=whole.quality_shift - 6,
        open=small.open,
    )
    shared = replace(context(), accmodel=demo_accmodel)
    session = run(small, clip, 30, shared=shared)
    assert session.traffic.size_px == (320, 180)
    assert uplink_bytes(session) < uplink_bytes(run(whole, clip, 30, shared=shared))


def test_groups_and_knobs_are_read_from_fields() -> None:
    assert set(BASELINES) <= set(PRIMARY) <= set(METHODS)
    assert [method.name for method in find_methods("primary")] == list(PRIMARY)
    assert find_methods("aq-1,primary")[0].name == "aq-1"
    assert len(find_methods("aq-1,primary")) == len(PRIMARY)
    assert all(METHODS[name].family == "stock" for name in BASELINES)
    targets = {m.knobs["target"] for m in METHODS.values() if m.system == "reducto"}
    assert targets == {0.8, 0.9, 0.95}
    assert {m.system for m in METHODS.values() if m.chunk_frames > 1} == {"dds", "reducto"}
    assert METHODS["glimpse"].with_knob("change", 0.1, print).name == "glimpse:change=0.1"


def test_a_row_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"name": "a,b"}, {"name": ""}, {"name": "a", "chunk_frames": 0}):
        with pytest.raises(ValueError, match=r"give"):
            Method(**{"family": "plugin", "source": "this test", "open": print, **wrong})
