"""Hugging Face models: small untrained ones of each family, saved and loaded as safetensors."""

import json

import pytest
import torch

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.torch_compat import import_torchvision
from accmpeg.dnn.weights import sha256_of
from accmpeg.errors import CardError, DnnError, WeightsError
from tests.dnn.adapter_checks import CLASSES, open_and_check, rgb_frame, write_adapter_card

import_torchvision()
transformers = pytest.importorskip("transformers")

LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}


def yolos():
    return transformers.YolosForObjectDetection(
        transformers.YolosConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=[64, 96],
            num_detection_tokens=10,
            initializer_range=0.2,
            **LABELS,
        )
    )


def detr():
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=transformers.ResNetConfig(
                embedding_size=16,
                hidden_sizes=[16, 32],
                depths=[1, 1],
                out_features=["stage2"],
                layer_type="basic",
            ),
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_queries=10,
            **LABELS,
        )
    )


def rt_detr():
    return transformers.RTDetrForObjectDetection(
        transformers.RTDetrConfig(
            backbone_config=transformers.RTDetrResNetConfig(
                embedding_size=16,
                hidden_sizes=[16, 32, 32, 32],
                depths=[1, 1, 1, 1],
                out_features=["stage2", "stage3", "stage4"],
                layer_type="basic",
            ),
            encoder_hidden_dim=32,
            encoder_in_channels=[32, 32, 32],
            feat_strides=[8, 16, 32],
            encoder_ffn_dim=32,
            d_model=32,
            num_queries=10,
            decoder_in_channels=[32, 32, 32],
            decoder_ffn_dim=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            encoder_attention_heads=2,
            num_denoising=0,
            **LABELS,
        )
    )


def segformer():
    """SegFormer-B0: the library's default configuration."""
    return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**LABELS))


def save(make, folder):
    torch.manual_seed(0)
    transformers.logging.disable_progress_bar()
    make().save_pretrained(folder)
    return folder


def write_huggingface_card(folder, model="net", **changes):
    settings = {"head": "detr", "parameters": {"activation": "softmax"}} | changes
    return write_adapter_card(folder, "huggingface", model, **settings)


@pytest.mark.parametrize(
    ("make", "activation"), [(yolos, "softmax"), (detr, "softmax"), (rt_detr, "sigmoid")]
)
def test_untrained_detectors(tmp_path, make, activation, capfd):
    weights = save(make, tmp_path / "net") / "model.safetensors"
    card = write_huggingface_card(tmp_path, parameters={"activation": activation}, sha256=sha256_of(weights))
    capfd.readouterr()
    open_and_check(card)
    assert capfd.readouterr() == ("", "")


def test_untrained_segmentation(tmp_path):
    save(segformer, tmp_path / "net")
    card = write_huggingface_card(tmp_path, task="segmentation", head="logits", parameters={})
    assert open_and_check(card).infer(rgb_frame()).shape == (16, 24)


def test_an_unknown_id_without_a_network(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    card = write_huggingface_card(tmp_path, "nobody/nothing")
    with pytest.raises(WeightsError, match="can't be had from the hub: nobody/nothing") as caught:
        load_dnn(card)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_neither_folder_nor_id(tmp_path):
    with pytest.raises(WeightsError, match="is no folder, and '/gone/net' is no hub id"):
        load_dnn(write_huggingface_card(tmp_path, "/gone/net"))


def test_pickled_weights_are_refused(tmp_path):
    folder = save(yolos, tmp_path / "net")
    (folder / "model.safetensors").unlink()
    torch.save(yolos().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="safetensors"):
        load_dnn(write_huggingface_card(tmp_path))


def test_incomplete_weights_are_refused_rather_than_filled_with_noise(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save(yolos, tmp_path / "net")
    state = load_file(folder / "model.safetensors")
    del state["class_labels_classifier.layers.0.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks class_labels_classifier\.layers\.0\.weight \(1 in all\)"):
        load_dnn(write_huggingface_card(tmp_path))


def test_code_in_a_repository_is_not_run(tmp_path):
    folder = save(yolos, tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForObjectDetection": "own.Net"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(WeightsError):
        load_dnn(write_huggingface_card(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_cards_that_do_not_fit(tmp_path):
    save(yolos, tmp_path / "net")
    with pytest.raises(DnnError, match="knows 3 classes, the card of huggingface lists 2"):
        load_dnn(write_huggingface_card(tmp_path, classes=["a", "b"]))
    with pytest.raises(WeightsError, match="is not the file"):
        load_dnn(write_huggingface_card(tmp_path, sha256="0" * 64))
    with pytest.raises(CardError, match="did you mean 'revision'"):
        load_dnn(write_huggingface_card(tmp_path, options={"revison": "main"}))
    with pytest.raises(WeightsError, match="can't be read from the folder"):
        load_dnn(write_huggingface_card(tmp_path, task="segmentation", head="logits", parameters={}))
