"""ONNX files in OpenVINO: the same answers as in ONNX Runtime, and in bfloat16 nearly so or not at all."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from accmpeg.demo import assets_path, demo_scene
from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card, write_card
from accmpeg.dnn.weights import sha256_of
from accmpeg.errors import CardError, DnnError, NoGradientError, WeightsError
from tests.dnn.tiny_networks import write_logits_network, write_network, write_tiny_card

openvino = pytest.importorskip("openvino")


def openvino_card(card_file, **changes):
    """The same card for OpenVINO, beside it."""
    card = read_card(card_file)
    file = card_file.with_name(f"openvino-{card_file.name}")
    write_card(card.model_copy(update={"adapter": "openvino", **changes}), file)
    return file


@pytest.fixture
def detector(tmp_path):
    return write_tiny_card(write_network(tmp_path / "tiny.onnx", 6))


@pytest.fixture
def scene_detector(tmp_path):
    """The embedded detector, with its card in a folder that a test may write to."""
    card = read_card(assets_path() / "detector.card.toml")
    file = tmp_path / "detector.card.toml"
    write_card(card.model_copy(update={"model": str(assets_path() / card.model)}), file)
    return file


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_answers_are_those_of_onnx_runtime(scene_detector, precision):
    frames = [demo_scene().frame(index) for index in (0, 20, 40)]
    wanted = load_dnn(scene_detector, threads=1)
    found = load_dnn(openvino_card(scene_detector, options={"precision": precision}), threads=1)
    a_batch, one_by_one = found.infer_many(frames), [found.infer(frame) for frame in frames]
    for batched, single, frame in zip(a_batch, one_by_one, frames, strict=True):
        same = wanted.infer(frame)
        sure = same.confidence > 0.5
        assert sure.any()
        for result in (batched, single):
            most = 0.02 if precision == "f32" else 4.0
            for box, class_id in zip(same.xyxy[sure], same.class_id[sure], strict=True):
                near = np.abs(result.xyxy - box).max(axis=1) < most
                assert class_id in result.class_id[near & (result.confidence > 0.3)]


def test_frames_of_any_size_and_outputs_of_pictures(detector, tmp_path):
    dnn = load_dnn(openvino_card(detector), threads=1)
    for frame in (demo_scene().frame(0), demo_scene().frame(40)):
        assert len(dnn.infer(frame)) > 0
        assert len(dnn.infer(frame.reformat(width=64, height=48))) > 0
    logits = write_tiny_card(write_logits_network(tmp_path / "seg.onnx", 2), "segmentation", "logits")
    frame = demo_scene().frame(0)
    same = load_dnn(logits, threads=1).infer(frame) == load_dnn(openvino_card(logits), threads=1).infer(frame)
    assert same.mean() > 0.999


def test_one_value_of_several_names(detector):
    """OpenVINO drops what changes nothing, and keeps the names of both ends."""
    card = read_card(detector)
    model = onnx.load(detector.parent / card.model)
    model.graph.node[-1].output[0] = "a_value_within"
    model.graph.node.append(helper.make_node("Identity", ["a_value_within"], ["output"]))
    onnx.save(model, detector.parent / card.model)
    head = card.head.model_copy(update={"outputs": ["output"]})
    file = openvino_card(detector, head=head, sha256=None)
    assert len(load_dnn(file, threads=1).infer(demo_scene().frame(0))) > 0


def test_a_file_of_openvino_itself(detector):
    """Its outputs may have no name, its weights are beside it, and it has no gradient."""
    card = read_card(detector)
    model = openvino.convert_model(detector.parent / card.model)
    model.outputs[0].get_tensor().set_names(set())
    whole = detector.with_name("own.xml")
    openvino.save_model(model, whole, compress_to_fp16=False)
    file = openvino_card(detector, model="own.xml", sha256=sha256_of(whole))
    frame = demo_scene().frame(0)
    found, wanted = (load_dnn(each, threads=1).infer(frame) for each in (file, detector))
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-4)
    with pytest.raises(NoGradientError, match=r"OpenVINO's own format.*name the ONNX file"):
        load_dnn(file).differentiable()
    weights = whole.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(WeightsError, match=r"own\.xml with own\.bin is not the file"):
        load_dnn(file)


def test_a_fixed_batch_is_filled_up(tmp_path):
    card = write_tiny_card(
        write_network(tmp_path / "four.onnx", 6, batch=4, height=64, width=64), input__size_multiple=None
    )
    frame = demo_scene().frame(0)
    found, wanted = (load_dnn(each, threads=1).infer(frame) for each in (openvino_card(card), card))
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.05)


def test_answers_outlive_the_next_pass(detector):
    """OpenVINO writes each pass into the same memory."""
    dnn = load_dnn(openvino_card(detector), threads=1)
    first, second = (np.full((1, 3, 64, 64), value, np.float32) for value in (0.1, 0.9))
    kept = dnn.network.run(first)[0]
    copy = kept.copy()
    dnn.network.run(second)
    np.testing.assert_array_equal(kept, copy)


def test_gradients_are_those_of_the_file(detector):
    torch = pytest.importorskip("torch")
    rgb = torch.rand(3, 64, 64) * 255
    found, wanted = (load_dnn(each).differentiable()(rgb) for each in (openvino_card(detector), detector))
    torch.testing.assert_close(found.scores, wanted.scores)


def spoilt_network(file):
    """Adds 10,000 to pixels and takes it away again: what is left in bfloat16 is noise."""
    there, back = np.full(3, 1e4, np.float32), np.full(3, -1e4, np.float32)
    pointwise = np.eye(3, dtype=np.float32)[:, :, None, None]
    shape = ["batch", 3, 48, 64]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weights", "there"], ["far"], kernel_shape=[1, 1]),
            helper.make_node("Conv", ["far", "weights", "back"], ["logits"], kernel_shape=[1, 1]),
        ],
        "spoilt",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(array, name)
            for name, array in {"weights": pointwise, "there": there, "back": back}.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(file))
    return write_tiny_card(file, "segmentation", "logits", classes=["a", "b", "c"])


@pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this CPU has no bfloat16, so OpenVINO computes in float32",
)
def test_a_network_that_bfloat16_spoils_is_refused(tmp_path):
    card = spoilt_network(tmp_path / "spoilt.onnx")
    load_dnn(openvino_card(card))
    with pytest.raises(DnnError, match=r'wrongly in bfloat16.*precision = "f32"'):
        load_dnn(openvino_card(card, options={"precision": "bf16"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "options.precision = 'int8': use f32 or bf16"),
        ({"precison": "bf16"}, "no option 'precison': did you mean 'precision'"),
    ],
)
def test_wrong_options_are_named(detector, options, message):
    with pytest.raises(CardError, match=message):
        load_dnn(openvino_card(detector, options=options))


def test_what_it_can_not_run(detector, tmp_path):
    with pytest.raises(DnnError, match="runs on the CPU, not on 'cuda:0'"):
        load_dnn(openvino_card(detector), device="cuda:0")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"broken.onnx can't be opened by OpenVINO"):
        load_dnn(openvino_card(detector, model="broken.onnx", sha256=None))
    wrong = read_card(detector).input
    with pytest.raises(DnnError, match=r"correct input\.name"):
        load_dnn(openvino_card(detector, input=wrong.model_copy(update={"name": "x"})))


def test_without_openvino_the_way_out_is_named(detector):
    script = (
        "import sys; sys.modules['openvino'] = None\n"
        "from accmpeg.dnn.base import load_dnn\n"
        "from accmpeg.errors import MissingExtraError\n"
        f"try: load_dnn({str(openvino_card(detector))!r})\n"
        "except MissingExtraError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'accmpeg[openvino]'" in said
