"""Server DNNs end to end on tiny ONNX networks: results, batches, gradients, and what may be wrong."""

import numpy as np
import pytest
import supervision as sv
import torch
from av import VideoFrame

from accmpeg.demo import assets_path, demo_scene
from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.check import check_dnn
from accmpeg.errors import AccmpegError, DnnError, WeightsError
from tests.dnn.tiny_networks import write_logits_network, write_network, write_tiny_card


def frame(width=128, height=72, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")


@pytest.fixture
def detector(tmp_path):
    return write_tiny_card(write_network(tmp_path / "tiny.onnx", 6))


def test_detections_lie_in_the_frame_and_hold_unsure_ones(detector):
    result = load_dnn(detector, threads=1).infer(frame())
    assert isinstance(result, sv.Detections)
    assert len(result) > 0
    assert result.xyxy.dtype == result.confidence.dtype == np.float32
    assert (result.xyxy >= 0).all()
    assert (result.xyxy <= [128, 72, 128, 72]).all()
    assert (np.diff(result.confidence) <= 0).all()


def test_keypoints(tmp_path):
    card = write_tiny_card(write_network(tmp_path / "pose.onnx", 12), "keypoints", "yolo_pose")
    result = load_dnn(card, threads=1).infer(frame())
    assert isinstance(result, sv.KeyPoints)
    assert result.xy.shape[1:] == (2, 2)
    assert result.data["xyxy"].shape == (len(result), 4)


def test_class_maps_equal_the_argmax(tmp_path):
    card = write_tiny_card(write_logits_network(tmp_path / "seg.onnx", 2), "segmentation", "logits")
    dnn = load_dnn(card, threads=1)
    result = dnn.infer(frame(64, 48))
    assert result.shape == (36 + 12, 64)
    rgb = torch.from_numpy(frame(64, 48).to_ndarray(format="rgb24")).permute(2, 0, 1).float()
    expected = dnn.differentiable()(rgb).logits.argmax(0).numpy()
    assert (result == expected).mean() > 0.99


def test_a_batch_gives_what_single_frames_give(detector):
    dnn = load_dnn(detector, threads=1)
    frames = [frame(seed=1), frame(seed=2), frame(72, 128, seed=3), frame(seed=4)]
    for single, batched in zip(map(dnn.infer, frames), dnn.infer_many(frames), strict=True):
        assert batched.xyxy == pytest.approx(single.xyxy, abs=1e-3)
        assert (batched.class_id == single.class_id).all()
    assert dnn.infer_many([]) == []


def test_sure_results_are_the_same_without_the_candidates():
    dnn = load_dnn(assets_path() / "detector.card.toml", threads=1)
    frames = [demo_scene().frame(index) for index in (0, 40)]
    for everything, sure in zip(dnn.infer_many(frames), dnn.infer_many(frames, sure_only=True), strict=True):
        wanted = everything[everything.confidence >= dnn.card.score_threshold]
        assert 0 < len(wanted) < len(everything)
        assert sure == wanted


def test_a_fixed_batch_of_one_takes_several_frames(tmp_path):
    model = write_network(tmp_path / "one.onnx", 6, batch=1, height=64, width=64)
    dnn = load_dnn(write_tiny_card(model, input__size_multiple=None), threads=1)
    assert dnn.network.max_batch == 1
    assert len(dnn.infer_many([frame(), frame()])) == 2


def test_odd_and_extreme_frame_sizes(detector):
    dnn = load_dnn(detector, threads=1)
    for size in ((1, 1), (3, 5), (641, 361), (8192, 16), (72, 128)):
        assert isinstance(dnn.infer(frame(*size)), sv.Detections)


def test_gradient_equals_finite_differences(detector):
    dnn = load_dnn(detector, threads=1)
    run = dnn.differentiable()
    reference = dnn.infer(frame())
    rgb = (
        torch.from_numpy(frame(seed=5).to_ndarray(format="rgb24"))
        .permute(2, 0, 1)
        .float()
        .requires_grad_(True)
    )
    value = dnn.task.agreement(run(rgb), reference)
    (gradient,) = torch.autograd.grad(value, rgb)
    assert torch.isfinite(gradient).all()
    direction = gradient / gradient.norm()
    with torch.no_grad():
        up, down = (dnn.task.agreement(run(rgb + step * direction), reference) for step in (0.5, -0.5))
    assert float(up - down) == pytest.approx(float(gradient.norm()), rel=0.05)


def test_check_finds_a_good_network_good(detector):
    card = write_tiny_card(detector.with_name("tiny.onnx"), head__parameters={"units": "fractions"})
    result, findings = check_dnn(load_dnn(card, threads=1), frame())
    assert isinstance(result, sv.Detections)
    assert [finding.name for finding in findings if not finding.ok] == []
    assert len(findings) == 5


def test_check_finds_a_constant_network_bad(tmp_path):
    model = write_network(tmp_path / "constant.onnx", 6, weight=0.0)
    _, findings = check_dnn(load_dnn(write_tiny_card(model), threads=1), frame())
    assert [finding.name for finding in findings if not finding.ok] == ["meaning", "gradient non-zero"]


@pytest.mark.parametrize(
    ("network", "changes", "error", "message"),
    [
        ({"name": "pixels"}, {}, DnnError, "has the input 'pixels', but the card of tiny says 'images'"),
        ({}, {"head__outputs": ["boxes"]}, DnnError, "has no output 'boxes' .it has output."),
        ({"height": 32, "width": 64}, {"input__size_multiple": None}, DnnError, "takes only 64x32 pictures"),
        ({"height": 64, "width": 64}, {}, DnnError, "takes only 64x64 .* with a size_multiple"),
        ({}, {"sha256": "0" * 64}, WeightsError, "is not the file that the card of tiny describes"),
        ({}, {"model": "other.onnx"}, WeightsError, "can't be read: .*other.onnx .No such file"),
        ({}, {"classes": ["a", "b", "c"]}, DnnError, "the head 'yolo' reads outputs of"),
        ({"weight": float("nan")}, {}, DnnError, "tiny returned NaN or infinite values"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(tmp_path, network, changes, error, message):
    card = write_tiny_card(write_network(tmp_path / "tiny.onnx", 6, **network), **changes)
    with pytest.raises(error, match=message) as caught:
        load_dnn(card, threads=1).infer(frame())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is not a network", b'{"a": 1}'])
def test_a_file_that_is_no_network(tmp_path, content):
    model = tmp_path / "tiny.onnx"
    model.write_bytes(content)
    with pytest.raises(WeightsError, match="can't be opened as an ONNX network"):
        load_dnn(write_tiny_card(model), threads=1)


def test_a_device_that_is_not_there(detector):
    with pytest.raises(AccmpegError, match="no device 'tpu': use 'cpu', 'cuda' or 'cuda:N'"):
        load_dnn(detector, device="tpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "cuda:", "cuda:x", "cpu:1", "meta"])
def test_a_device_is_the_one_that_was_named_or_an_error(detector, device):
    try:
        dnn = load_dnn(detector, device=device)
    except AccmpegError as error:
        assert f"'{device}'" in str(error)  # noqa: PT017 - machines with a GPU take the other way
    else:
        assert dnn.network._session.get_providers()[0] == "CUDAExecutionProvider"
        number = dnn.network._session.get_provider_options()["CUDAExecutionProvider"]["device_id"]
        assert number == (device.partition(":")[2] or "0")
