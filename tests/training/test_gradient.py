"""AccGrad against values computed by hand, and its meaning on real networks."""

import numpy as np
import pytest
import torch

from accmpeg.dnn.base import load_dnn
from accmpeg.errors import DnnError, LabelError, NoGradientError
from accmpeg.media.decoder import encode_still
from accmpeg.media.grid import MacroblockGrid
from accmpeg.training.gradient import accuracy_gradient, frame_tensor, macroblock_gradient


def test_one_pixel_by_hand():
    weight = torch.zeros(3, 16, 32)
    weight[:, 5, 20] = torch.tensor([1.0, -2.0, 0.0])
    low = torch.zeros(3, 16, 32)
    high = torch.full((3, 16, 32), 3.0)
    accgrad = macroblock_gradient(lambda x: (weight * x).sum(), high, low)
    np.testing.assert_array_equal(accgrad, [[0.0, 27.0]])


@pytest.mark.parametrize("size_px", [(64, 48), (50, 37), (1, 1)])
@pytest.mark.parametrize("at", ["low", "high"])
def test_a_linear_dnn_has_its_analytic_gradient_anywhere(size_px, at):
    width_px, height_px = size_px
    random = np.random.default_rng(3)
    # Small integers, so that float32 sums are exact in any order.
    weight, high, low = (
        torch.from_numpy(random.integers(-8, 9, (3, height_px, width_px)).astype(np.float32))
        for _ in range(3)
    )
    accgrad = macroblock_gradient(lambda x: (weight * x).sum() - 4.0, high, low, at=at)
    per_pixel = weight.abs().sum(0) * (high - low).abs().sum(0)
    expected = MacroblockGrid(width_px, height_px).sum_pixels(per_pixel.numpy())
    np.testing.assert_array_equal(accgrad, expected)


def test_the_derivative_is_taken_at_the_asked_quality():
    low, high = torch.full((3, 16, 16), 1.0), torch.full((3, 16, 16), 5.0)
    # d(x²)/dx = 2x: 2 at low, 10 at high; 256 pixels, 3·2x·3·4 each.
    assert macroblock_gradient(lambda x: x.square().sum(), high, low, at="low").item() == 256 * 6 * 12
    assert macroblock_gradient(lambda x: x.square().sum(), high, low, at="high").item() == 256 * 30 * 12


def test_equal_qualities_have_no_gradient_to_gain():
    same = torch.rand(3, 20, 20)
    assert not macroblock_gradient(lambda x: x.sum(), same, same).any()


def test_nan_gradients_are_an_error_not_a_label():
    with pytest.raises(LabelError, match="not finite"):
        macroblock_gradient(lambda x: (x.sum() * 0).sqrt(), torch.ones(3, 16, 16), torch.zeros(3, 16, 16))


def test_an_agreement_without_the_picture_is_an_error():
    with pytest.raises(NoGradientError, match="does not depend"):
        macroblock_gradient(lambda x: torch.tensor(1.0), torch.ones(3, 16, 16), torch.zeros(3, 16, 16))


def test_frames_become_rgb(textured):
    frame = textured(50, 34)
    tensor = frame_tensor(frame)
    assert tensor.shape == (3, 34, 50)
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), frame.to_ndarray(format="rgb24"))


def test_both_qualities_must_be_of_one_size(segmenter_card, textured):
    dnn = load_dnn(segmenter_card)
    high = textured(64, 64)
    with pytest.raises(LabelError, match=r"64x64.*32x32"):
        accuracy_gradient(dnn.differentiable(), dnn.task, dnn.infer(high), high, textured(32, 32))


def test_what_pytorch_refuses_is_one_line(segmenter_card, textured):
    dnn = load_dnn(segmenter_card)
    other_size = dnn.differentiable()
    other_size.card = other_size.card.model_copy(
        update={"input": other_size.card.input.model_copy(update={"std": (255.0, 255.0)})}
    )
    frame = textured(64, 64)
    with pytest.raises(DnnError, match=r"^segmenter failed in PyTorch on a frame of 64x64: .*$"):
        accuracy_gradient(other_size, dnn.task, dnn.infer(frame), frame, frame)


def test_an_onnx_segmenter_agrees_with_its_formula(segmenter_card, textured):
    """Soft IoU of a two-class softmax over linear logits, differentiated by hand in float64."""
    dnn = load_dnn(segmenter_card)
    high = textured(64, 64)
    low, _ = encode_still(high, 40)
    reference = dnn.infer(high)
    accgrad = accuracy_gradient(dnn.differentiable(), dnn.task, reference, high, low)

    x = frame_tensor(low).double().numpy() / 255
    bright = 1 / (1 + np.exp(-(40 * x.mean(axis=0) - 20)))
    per_pixel = np.zeros_like(bright)
    for class_id, p in enumerate((bright, 1 - bright)):
        y = reference == class_id
        if not y.any():
            continue
        shared, union = (p * y).sum(), (p + y - p * y).sum()
        by_p = (y * union - shared * ~y) / union**2
        per_pixel += by_p * (1 if class_id == 0 else -1)
    per_pixel *= bright * (1 - bright) * 40 / 3 / 255 / len(np.unique(reference))
    step = (frame_tensor(high) - frame_tensor(low)).abs().sum(0).numpy()
    expected = MacroblockGrid(64, 64).sum_pixels(3 * np.abs(per_pixel) * step)
    np.testing.assert_allclose(accgrad, expected, rtol=1e-3)
