"""What every PyTorch adapter must hold, whatever network is behind it."""

import numpy as np
import pytest
import torch
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, write_card
from accmpeg.dnn.results import result_of

CLASSES = ["car", "person", "bicycle"]
WIDTH, HEIGHT = 96, 64


def rgb_frame(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> VideoFrame:
    """A frame of soft blobs, in RGB so that both roads into a network see the same pixels."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return VideoFrame.from_ndarray(coarse.repeat(8, 0).repeat(8, 1), format="rgb24")


def write_adapter_card(folder, adapter, model, *, task="detection", head="boxes", parameters=None, **changes):
    """A card in `folder` for pictures of 96x64."""
    settings = {
        "name": adapter,
        "task": task,
        "adapter": adapter,
        "model": str(model),
        "classes": CLASSES,
        "score_threshold": 0.01,
        "input": InputCard(name="x", width_px=WIDTH, height_px=HEIGHT),
        "head": HeadCard(name=head, parameters=parameters or {}) if isinstance(head, str) else head,
    }
    card = DnnCard(**(settings | changes))
    path = folder / f"{adapter}.card.toml"
    write_card(card, path)
    return path


def open_and_check(card_path) -> ServerDnn:
    """Loads a card's DNN; running and differentiating it agree, and its input gradient is of use."""
    dnn = load_dnn(card_path, threads=1)
    frame = rgb_frame()
    result = dnn.infer(frame)

    rgb = torch.from_numpy(frame.to_ndarray()).permute(2, 0, 1).float().requires_grad_(True)
    dense = dnn.differentiable()(rgb)
    if dnn.card.task == "segmentation":
        assert (dense.logits.detach().numpy().argmax(0) == result).mean() > 0.999
        strength = (dense.logits**2).sum()
    else:
        as_arrays = {
            key: None if getattr(dense, key) is None else getattr(dense, key).detach().numpy()
            for key in ("boxes_xyxy", "scores", "keypoints")
        }
        twin = result_of(type(dense)(**as_arrays, frame_size_px=dense.frame_size_px), dnn.card)
        assert len(result) > 0
        assert len(twin) == len(result)
        boxes, scores = (
            (result.data["xyxy"], "detection_confidence")
            if dnn.card.task == "keypoints"
            else (result.xyxy, "confidence")
        )
        twin_boxes = twin.data["xyxy"] if dnn.card.task == "keypoints" else twin.xyxy
        assert getattr(twin, scores) == pytest.approx(getattr(result, scores), abs=1e-4)
        assert twin_boxes == pytest.approx(boxes, abs=0.05)
        strength = dense.scores.sum() + (dense.boxes_xyxy / WIDTH).square().sum()
    (gradient,) = torch.autograd.grad(strength, rgb)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).float().mean() > 0.5

    _check_batch(dnn)
    return dnn


def _check_batch(dnn: ServerDnn) -> None:
    frames = [rgb_frame(seed=1), rgb_frame(seed=2)]
    for single, batched in zip(map(dnn.infer, frames), dnn.infer_many(frames), strict=True):
        if dnn.card.task == "segmentation":
            assert (single == batched).mean() > 0.999
        else:
            assert len(single) == len(batched)
