"""torchvision models by name: untrained ones run and differentiate, weights load safely, errors are clear."""

import urllib.error

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from accmpeg.dnn import torchvision_adapter
from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import InputCard, KeypointCard
from accmpeg.dnn.torch_compat import import_torchvision
from accmpeg.dnn.weights import sha256_of
from accmpeg.errors import CardError, DnnError, WeightsError
from tests.dnn.adapter_checks import open_and_check, rgb_frame, write_adapter_card

SSDLITE = "ssdlite320_mobilenet_v3_large"


def write_torchvision_card(folder, architecture, model="random:1", **changes):
    return write_adapter_card(folder, "torchvision", model, options={"architecture": architecture}, **changes)


def settled_weights(path, architecture=SSDLITE, classes=4):
    """Untrained weights whose activations neither vanish nor explode: normalisation layers saw pictures."""
    torchvision = import_torchvision()
    torch.manual_seed(0)
    model = torchvision.models.get_model(
        architecture, weights=None, weights_backbone=None, num_classes=classes
    )
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()
    with torch.no_grad():
        features = model.backbone(torch.randn(4, 3, 160, 224))
        model.head(list(features.values()))
    save_file(model.state_dict(), path)
    return model.eval()


@pytest.mark.parametrize(
    "architecture", ["fcos_resnet50_fpn", pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.slow)]
)
def test_untrained_one_stage_detectors(tmp_path, architecture):
    card = write_torchvision_card(tmp_path, architecture, nms_iou=0.5, score_threshold=0.001)
    open_and_check(card)


def test_ssdlite_with_weights_of_its_own(tmp_path):
    weights = tmp_path / "ssdlite.safetensors"
    settled_weights(weights)
    picture = InputCard(name="x", width_px=96, height_px=64, mean=(127.5,) * 3, std=(127.5,) * 3)
    card = write_torchvision_card(
        tmp_path, SSDLITE, weights.name, nms_iou=0.5, input=picture, sha256=sha256_of(weights)
    )
    dnn = open_and_check(card)
    assert set(dnn.infer(rgb_frame()).class_id) <= {0, 1, 2}


def test_one_stage_candidates_equal_torchvisions_own_detections(tmp_path, monkeypatch):
    """Same network through torchvision's whole pipeline: its best detection is our best candidate."""
    torchvision = import_torchvision()
    monkeypatch.setattr(torchvision.ops.boxes, "_assert_has_ops", lambda: None)
    model = settled_weights(tmp_path / "w.safetensors")
    picture = InputCard(name="x", width_px=320, height_px=320, mean=(127.5,) * 3, std=(127.5,) * 3)
    dnn = load_dnn(
        write_torchvision_card(tmp_path, SSDLITE, "w.safetensors", nms_iou=0.55, input=picture), threads=1
    )
    frame = rgb_frame(320, 320)
    model.topk_candidates = 20
    with torch.no_grad():
        (theirs,) = model([torch.from_numpy(frame.to_ndarray()).permute(2, 0, 1) / 255])
    ours = dnn.infer(frame)
    assert float(theirs["scores"][0]) == pytest.approx(ours.confidence[0], abs=1e-4)
    assert theirs["boxes"][0].numpy() == pytest.approx(ours.xyxy[0], abs=0.05)
    assert int(theirs["labels"][0]) == ours.class_id[0] + 1


@pytest.mark.parametrize(
    "architecture", ["lraspp_mobilenet_v3_large", pytest.param("fcn_resnet50", marks=pytest.mark.slow)]
)
def test_untrained_segmentation(tmp_path, architecture):
    card = write_torchvision_card(tmp_path, architecture, task="segmentation", head="logits")
    result = open_and_check(card).infer(rgb_frame())
    assert result.shape == (64, 96)


@pytest.fixture
def compiled_operators(monkeypatch):
    """Two-stage models also where torchvision's compiled operators are missing, in plain and slow PyTorch."""
    torchvision = import_torchvision()
    if hasattr(torch.ops.torchvision, "roi_align"):
        return
    monkeypatch.setattr(torchvision_adapter, "_has_compiled_operators", lambda: True)
    monkeypatch.setattr(torchvision.ops.boxes, "_assert_has_ops", lambda: None)
    roi_align = torchvision.ops.roi_align.__globals__["_roi_align"]
    plain = getattr(roi_align, "__wrapped__", None)
    if plain is None:
        plain = next(cell.cell_contents for cell in roi_align.__closure__ if callable(cell.cell_contents))
    monkeypatch.setitem(torchvision.ops.roi_align.__globals__, "_roi_align", plain)
    get_model = torchvision.models.get_model

    def small(name, **settings):
        return get_model(name, **settings, rpn_post_nms_top_n_test=8, box_detections_per_img=4)

    monkeypatch.setattr(torchvision.models, "get_model", small)


def test_two_stage_detector(tmp_path, compiled_operators):
    card = write_torchvision_card(tmp_path, "fasterrcnn_resnet50_fpn", head="final")
    open_and_check(card)


@pytest.mark.slow
def test_two_stage_keypoints(tmp_path, compiled_operators):
    card = write_torchvision_card(
        tmp_path,
        "keypointrcnn_resnet50_fpn",
        task="keypoints",
        head="final_keypoints",
        classes=["person"],
        keypoints=KeypointCard(names=["head", "foot"]),
    )
    result = open_and_check(card).infer(rgb_frame())
    assert result.xy.shape[1:] == (2, 2)
    assert ((result.keypoint_confidence >= 0) & (result.keypoint_confidence <= 1)).all()


@pytest.mark.skipif(
    hasattr(torch.ops, "torchvision") and hasattr(torch.ops.torchvision, "roi_align"),
    reason="torchvision's compiled operators load here",
)
def test_two_stage_models_say_which_build_does_not_fit(tmp_path):
    card = write_torchvision_card(tmp_path, "fasterrcnn_resnet50_fpn", head="final")
    with pytest.raises(
        DnnError, match=r"compiled operators, and torchvision .* can't load them beside PyTorch"
    ):
        load_dnn(card)


def test_a_seed_makes_the_same_network_and_leaves_the_global_one_alone(tmp_path):
    card = write_torchvision_card(tmp_path, "lraspp_mobilenet_v3_large", task="segmentation", head="logits")
    batch = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = load_dnn(card).network.run(batch)[0]
    assert torch.rand(1) == expected
    assert (load_dnn(card).network.run(batch)[0] == first).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'options.architecture' is missing"),
        ({"architecture": "ssdlite320_mobilenet"}, f"did you mean '{SSDLITE}'"),
        ({"architecture": "keypointrcnn_resnet50_fpn"}, "no detection model 'keypointrcnn_resnet50_fpn'"),
        ({"architecture": SSDLITE, "wieghts": "x"}, "no option 'wieghts'"),
    ],
)
def test_senseless_options(tmp_path, options, message):
    card = write_adapter_card(tmp_path, "torchvision", "random:1", options=options)
    with pytest.raises(CardError, match=message):
        load_dnn(card)


def test_weights_that_can_not_be_used(tmp_path):
    def loading(model, **changes):
        return load_dnn(write_torchvision_card(tmp_path, SSDLITE, model, **changes))

    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        loading("gone.safetensors")
    with pytest.raises(WeightsError, match="unpickling them can run code"):
        loading("weights.pth")
    with pytest.raises(CardError, match="no 'random:SEED'"):
        loading("random:me")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="can't be read as safetensors"):
        loading("broken.safetensors")
    with pytest.raises(WeightsError, match="is not the file"):
        loading("broken.safetensors", sha256="0" * 64)
    settled_weights(tmp_path / "two.safetensors", classes=2)
    with pytest.raises(WeightsError, match=r"does not fit.*is the number of classes right"):
        loading("two.safetensors")


def test_torchvisions_own_weights_without_a_network(tmp_path, monkeypatch):
    def offline(*args, **settings):
        assert settings["weights_only"]
        raise urllib.error.URLError("no route to host")

    import_torchvision()
    from torchvision.models import _api

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    card = write_torchvision_card(tmp_path, SSDLITE, "DEFAULT", classes=[f"c{i}" for i in range(90)])
    with pytest.raises(
        WeightsError, match=r"can't be had from https://.*: connect once, or name a .safetensors"
    ):
        load_dnn(card)
