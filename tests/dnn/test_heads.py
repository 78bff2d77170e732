"""Each output layout against outputs written by hand, as NumPy arrays and as tensors."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn
from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, KeypointCard
from accmpeg.dnn.heads import HEADS, get_head
from accmpeg.dnn.heads.boxes import BoxesHead, FinalHead, FinalKeypointsHead
from accmpeg.dnn.heads.detr import DetrHead
from accmpeg.dnn.heads.logits import LogitsHead
from accmpeg.dnn.heads.nanodet import NanodetHead
from accmpeg.dnn.heads.yolo import YoloHead, YoloPoseHead, YoloSegHead
from accmpeg.dnn.heads.yolo_objectness import YoloObjectnessHead
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import DnnError

# A 128×64 frame in a 64×64 input: half the size, 16 rows of padding above and below.
GEOMETRY = InputGeometry.of(InputCard(name="x", width_px=64, height_px=64), 128, 64)


@pytest.fixture(params=["numpy", "torch"])
def read(request):
    """Reads outputs with a head; everything comes back as NumPy."""

    def run(head, *outputs):
        arrays = [np.asarray(output, np.float32) for output in outputs]
        if request.param == "torch":
            arrays = [torch.tensor(array, requires_grad=True) for array in arrays]
        dense = head.dense(arrays, GEOMETRY)
        return {
            name: np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
            for name in ("boxes_xyxy", "scores", "keypoints", "mask_coefficients", "prototypes", "logits")
            if (value := getattr(dense, name)) is not None
        }

    return run


def test_yolo(read):
    dense = read(YoloHead(2), [[32], [32], [16], [8], [0.1], [0.9]])
    # Centre (32, 32) of the input is (64, 32) of the frame, and everything is twice as large there.
    assert dense["boxes_xyxy"].tolist() == [[48, 24, 80, 40]]
    assert dense["scores"] == pytest.approx(np.array([[0.1, 0.9]]))


def test_yolo_pose(read):
    dense = read(YoloPoseHead(1, 2), [[32], [32], [16], [8], [0.9], [10], [20], [0.7], [30], [40], [0.2]])
    assert dense["keypoints"] == pytest.approx(np.array([[[20, 8, 0.7], [60, 48, 0.2]]]))


def test_yolo_seg_crops_prototypes_to_the_frame(read):
    prototypes = np.zeros((3, 16, 16))
    prototypes[:, 4:12] = 1
    dense = read(YoloSegHead(1), [[32], [32], [16], [8], [0.9], [1], [2], [3]], prototypes)
    assert dense["mask_coefficients"].tolist() == [[1, 2, 3]]
    assert dense["prototypes"].shape == (3, 8, 16)
    assert (dense["prototypes"] == 1).all()


def test_yolo_objectness_multiplies_the_class(read):
    dense = read(YoloObjectnessHead(2), [[32, 32, 16, 8, 0.5, 0.2, 0.8]])
    assert dense["scores"] == pytest.approx(np.array([[0.1, 0.4]]))
    assert dense["boxes_xyxy"].tolist() == [[48, 24, 80, 40]]


def test_nanodet(read):
    head = NanodetHead(1, strides=(32,), bins=4)
    rows = np.full((1 + 16, 4), -30.0)
    rows[0, 3] = 0
    # The fourth point is (32, 32): left and top 1 stride away, right and bottom 0 and 2 strides.
    for side, strides_away in enumerate((1, 1, 0, 2)):
        rows[1 + 4 * side + strides_away, 3] = 30
    dense = read(head, rows)
    assert dense["scores"][3] == pytest.approx(0.5)
    assert dense["boxes_xyxy"][3] == pytest.approx([0, -32, 64, 160])
    # Its own export: a row per point, with probabilities.
    rows[0] = 0.25
    dense = read(NanodetHead(1, strides=(32,), bins=4, activation="none"), rows.T)
    assert dense["scores"][3] == pytest.approx(0.25)
    assert dense["boxes_xyxy"][3] == pytest.approx([0, -32, 64, 160])


def test_nanodet_needs_the_strides_of_its_network(read):
    with pytest.raises(DnnError, match="strides"):
        read(NanodetHead(1, strides=(16,), bins=4), np.zeros((17, 4)))


def test_detr_with_sigmoid_and_softmax(read):
    boxes = [[32.0, 32, 16, 8]]
    dense = read(DetrHead(2), [[0.0, np.log(3)]], boxes)
    assert dense["boxes_xyxy"].tolist() == [[48, 24, 80, 40]]
    assert dense["scores"] == pytest.approx(np.array([[0.5, 0.75]]))
    dense = read(DetrHead(2, activation="softmax"), [[0.0, 0.0, np.log(2)]], boxes)
    assert dense["scores"] == pytest.approx(np.array([[0.25, 0.25]]))
    assert read(DetrHead(2, activation="none"), [[0.3, 0.6]], boxes)["scores"] == pytest.approx(
        np.array([[0.3, 0.6]])
    )


def test_logits_are_cropped_to_the_frame(read):
    planes = np.arange(32)[None, :, None] * np.ones((3, 1, 32))
    assert read(LogitsHead(3), planes)["logits"][0, :, 0].tolist() == list(range(8, 24))


@pytest.mark.parametrize(
    ("head", "shapes"),
    [
        (YoloHead(80), [(85, 100)]),
        (YoloHead(80), [(84, 100), (84, 100)]),
        (YoloPoseHead(1, 17), [(84, 100)]),
        (YoloSegHead(80), [(116, 100)]),
        (YoloSegHead(80), [(116, 100), (31, 8, 8)]),
        (YoloObjectnessHead(80), [(84, 100)]),
        (NanodetHead(80), [(80, 100)]),
        (DetrHead(80), [(100, 4), (100, 80)]),
        (LogitsHead(20), [(21, 8, 8)]),
        (LogitsHead(20), []),
        (LogitsHead(20), [(20, 0, 8)]),
        (BoxesHead(80), [(100, 4), (99, 80)]),
        (DetrHead(80), [(100, 80), (99, 4)]),
        (FinalHead(80), [(100, 4), (100,), (99,)]),
        (FinalKeypointsHead(1, 17), [(100, 4), (100,), (100,), (99, 17, 3)]),
        (YoloSegHead(80), [(116, 100), ()]),
    ],
)
def test_outputs_of_another_layout_are_named(head, shapes):
    with pytest.raises(DnnError, match=r"reads outputs of .* the network gave"):
        head.dense([np.zeros(shape, np.float32) for shape in shapes], GEOMETRY)


READ = {
    "yolo": [(6, 5)],
    "yolo_pose": [(12, 5)],
    "yolo_seg": [(9, 5), (3, 16, 16)],
    "yolo_objectness": [(5, 7)],
    "yolo_objectness_seg": [(5, 10), (3, 16, 16)],
    "centernet": [(2, 16, 16), (2, 16, 16), (2, 16, 16)],
    "nanodet": [(34, 85)],
    "detr": [(5, 2), (5, 4)],
    "rtdetr": [(5, 6)],
    "end2end": [(5, 6)],
    "end2end_pose": [(5, 12)],
    "end2end_seg": [(5, 9), (3, 16, 16)],
    "boxes": [(5, 4), (5, 2)],
    "final": [(5, 4), (5,), (5,)],
    "final_keypoints": [(5, 4), (5,), (5,), (5, 2, 3)],
    "logits": [(2, 16, 16)],
    "binary": [(1, 16, 16)],
    "class_map": [(16, 16)],
}
"""What each head reads for two classes and two keypoints of a 64×64 input."""


def others(shapes):
    """Lists of shapes that are nearly the same."""
    yield from ([], shapes[::-1], [*shapes, shapes[-1]])
    for i, shape in enumerate(shapes):
        changed = [(1, *shape), (3, *shape), (*shape, 1), shape[1:], ()]
        changed += [
            (*shape[:a], size, *shape[a + 1 :]) for a in range(len(shape)) for size in (0, 1, shape[a] - 1)
        ]
        yield from ([*shapes[:i], *also, *shapes[i + 1 :]] for also in ([], *([each] for each in changed)))


@pytest.mark.parametrize("head", HEADS)
def test_whatever_a_network_answers_is_read_or_one_clear_error(head):
    row = HEADS[head]
    card = DnnCard(
        name="net",
        task=row.task,
        adapter="onnx",
        model="net.onnx",
        classes=["a", "b"],
        nms_iou=None if row.task == "segmentation" else 0.5,
        keypoints=KeypointCard(names=["head", "foot"]) if row.task == "keypoints" else None,
        input=InputCard(name="x", width_px=64, height_px=64),
        head=HeadCard(name=head),
    )
    frame = VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), format="yuv420p")
    for kind in (np.float32, np.float16, np.int64, np.uint8, np.bool_):
        for batch in ((), (1,)):

            def infer(shapes, kind=kind, batch=batch):
                outputs = [np.ones((*batch, *shape), kind) for shape in shapes]
                network = SimpleNamespace(max_batch=None, run=lambda pictures: outputs)
                return ServerDnn(card, network, get_head(card)).infer(frame)

            infer(READ[head])
            for shapes in others(READ[head]):
                with contextlib.suppress(DnnError):
                    infer(shapes)
