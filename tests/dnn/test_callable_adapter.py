"""Cards that name Python code: modules, objects, and everything that can be wrong with them."""

import pytest
import torch

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import HeadCard
from accmpeg.errors import CardError, DnnError, NoGradientError
from tests.dnn.adapter_checks import open_and_check, rgb_frame, write_adapter_card


def write_callable_card(folder, name, **changes):
    return write_adapter_card(folder, "callable", f"tests.dnn.user_networks:{name}", **changes)


def test_a_module(tmp_path):
    open_and_check(write_callable_card(tmp_path, "detector", nms_iou=0.5))


def test_options_are_keywords(tmp_path):
    card = write_callable_card(tmp_path, "detector", classes=["car"], options={"classes": 1})
    open_and_check(card)
    with pytest.raises(DnnError, match="unexpected keyword argument 'sise'"):
        load_dnn(write_callable_card(tmp_path, "detector", options={"sise": 1}))


def test_a_mapping_is_read_in_the_cards_order_and_labels_start_where_it_says(tmp_path):
    head = HeadCard(name="final", outputs=["boxes", "scores", "labels"], parameters={"first_label": 1})
    result = open_and_check(write_callable_card(tmp_path, "final_detector", head=head)).infer(rgb_frame())
    assert set(result.class_id) <= {0, 1, 2}
    missing = head.model_copy(update={"outputs": ["boxes", "marks"]})
    with pytest.raises(DnnError, match=r"no output 'marks' \(it has labels, scores, boxes\)"):
        load_dnn(write_callable_card(tmp_path, "final_detector", head=missing)).infer(rgb_frame())


def test_segmentation(tmp_path):
    open_and_check(write_callable_card(tmp_path, "segmenter", task="segmentation", head="logits"))


def test_an_object(tmp_path):
    dnn = open_and_check(write_callable_card(tmp_path, "Complete", nms_iou=0.5))
    assert dnn.network.max_batch == 1


def test_an_object_without_gradient_still_runs(tmp_path):
    dnn = load_dnn(write_callable_card(tmp_path, "Plain"))
    assert len(dnn.infer(rgb_frame())) > 0
    with pytest.raises(NoGradientError, match="black-box mode"):
        dnn.differentiable()


def test_a_module_that_detaches_has_no_gradient(tmp_path):
    dnn = load_dnn(write_callable_card(tmp_path, "Rounding", task="segmentation", head="logits"))
    dnn.infer(rgb_frame())
    with pytest.raises(NoGradientError, match="detaches or rounds"):
        dnn.differentiable()(torch.zeros(3, 64, 96, requires_grad=True))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("user_networks", CardError, "no 'package.module:callable'"),
        ("no_such_package.nets:make", CardError, "no module 'no_such_package'"),
        ("tests.dnn.user_networks:detektor", CardError, "has no 'detektor'"),
        ("tests.dnn.user_networks:value", CardError, "is ndarray, which can't be called"),
        ("tests.dnn.user_networks:nothing", DnnError, "returned NoneType: it must return"),
        ("tests.dnn.user_networks:failing", DnnError, "failed with RuntimeError: no licence found"),
    ],
)
def test_code_that_can_not_be_used(tmp_path, model, error, message):
    with pytest.raises(error, match=message):
        load_dnn(write_adapter_card(tmp_path, "callable", model))


def test_code_that_fails_on_import(tmp_path, monkeypatch):
    (tmp_path / "half_written_network.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CardError, match="importing half_written_network failed with SyntaxError"):
        load_dnn(write_adapter_card(tmp_path, "callable", "half_written_network:make"))


def test_outputs_of_another_kind(tmp_path):
    with pytest.raises(DnnError, match="returned str"):
        load_dnn(write_callable_card(tmp_path, "Talking")).infer(rgb_frame())
    with pytest.raises(DnnError, match="the head 'boxes' reads outputs"):
        load_dnn(write_callable_card(tmp_path, "segmenter")).infer(rgb_frame())
