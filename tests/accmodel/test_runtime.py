import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from accmpeg.accmodel import AccModel, read_accmodel_card
from accmpeg.demo import assets_path
from accmpeg.errors import AccModelError, CardError, UsageError, WeightsError
from accmpeg.media.grid import MacroblockGrid


def grey_frame(width_px: int, height_px: int) -> av.VideoFrame:
    frame = av.VideoFrame(width_px, height_px, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    return frame


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    for file in (trained, trained.with_name("discs.card.toml")):
        shutil.copy(file, tmp_path)
    return tmp_path / trained.name


@pytest.mark.parametrize(
    ("width_px", "height_px"),
    [(1, 1), (16, 16), (15, 33), (641, 359), (352, 640), (1280, 720), (4096, 96), (96, 2160)],
)
def test_scores_are_on_the_frames_grid_whatever_its_size(
    trained: Path, width_px: int, height_px: int
) -> None:
    scores = AccModel.load(trained).predict(grey_frame(width_px, height_px))
    shape = MacroblockGrid(width_px, height_px).shape
    assert scores.accgrad.shape == shape
    assert scores.accgrad.dtype == np.float32
    assert np.isfinite(scores.accgrad).all()
    assert scores.objects is not None
    assert scores.objects.shape == shape
    assert 0 <= scores.objects.min() <= scores.objects.max() <= 1


def test_openvino_agrees_with_onnx_runtime(trained: Path) -> None:
    pytest.importorskip("openvino")
    frame = grey_frame(320, 192)
    reference = AccModel.load(trained).predict(frame)
    other = AccModel.load(trained.with_name("discs.card.toml"), runtime="openvino").predict(frame)
    np.testing.assert_allclose(other.accgrad, reference.accgrad, atol=2e-2)


def test_weights_that_changed_or_vanished_are_refused(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes() + b" ")
    with pytest.raises(WeightsError, match="sha256"):
        AccModel.load(copied)
    copied.unlink()
    with pytest.raises(WeightsError, match=r"discs\.onnx"):
        AccModel.load(copied)


def test_weights_that_are_no_accmodel_are_refused(copied: Path) -> None:
    card = copied.with_name("discs.card.toml")
    good = read_accmodel_card(copied).sha256
    copied.write_bytes(b"not a network")
    card.write_text(card.read_text().replace(good, hashlib.sha256(b"not a network").hexdigest()))
    with pytest.raises(AccModelError, match=r"discs\.card\.toml"):
        AccModel.load(copied)


@pytest.mark.parametrize("shape", [(), (1,), (1, 2), (1, 3, 2, 2), (1, 2, 2, 2, 2), (2, 2, 2)])
def test_weights_of_another_network_are_one_clear_error(copied: Path, shape: tuple[int, ...]) -> None:
    """What has an AccModel's inputs may still answer with anything."""
    card = read_accmodel_card(copied)
    assert len(card.outputs) == 2
    network = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["constant"], ["maps"])],
            "other",
            [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in ("y", "uv")],
            [helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(np.full(shape, 0.5, np.float32), "constant")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    other = AccModel.of_weights(card, network.SerializeToString(), "other.onnx")
    with pytest.raises(AccModelError, match="another network"):
        other.predict(grey_frame(64, 64))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("long_side_px", "long_sid_px", "did you mean 'long_side_px'"),
        ("object_threshold =", "object_threshhold =", "did you mean 'object_threshold'"),
        ('model = "discs.onnx"\n', "", "'model' is missing"),
        ("sha256", "= sha256", "TOML"),
        ('"accgrad",', "", "must name accgrad"),
        ("long_side_px = 640", "long_side_px = 0", "long_side_px"),
        (
            "[dnn]",
            "[[quality]]\ntop_sharp = 0.5\n\n[dnn]",
            r"'quality\.0\.top_sharp': did you mean 'top_share'",
        ),
    ],
)
def test_a_bad_card_is_named_with_the_way_out(copied: Path, old: str, new: str, message: str) -> None:
    card = copied.with_name("discs.card.toml")
    card.write_text(card.read_text().replace(old, new, 1))
    with pytest.raises(CardError, match=message):
        AccModel.load(copied)


def test_the_card_of_a_server_dnn_says_what_it_is() -> None:
    with pytest.raises(CardError, match="card of a server DNN: `accmpeg train` makes an AccModel"):
        AccModel.load(assets_path() / "detector.card.toml")


def test_missing_card_and_unknown_runtime(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"nothing\.card\.toml"):
        AccModel.load(tmp_path / "nothing.onnx")
    with pytest.raises(UsageError, match="tensorrt"):
        AccModel.load(trained, runtime="tensorrt")  # type: ignore[arg-type]


def test_the_camera_needs_no_training_libraries(trained: Path) -> None:
    code = (
        "import sys; from accmpeg.accmodel import AccModel; "
        f"AccModel.load({str(trained)!r}); "
        "print(sorted({'torch', 'onnx', 'cv2', 'supervision', 'fastapi', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
