"""Cards survive storing, and a bad one is named in one line."""

import pytest

from accmpeg.demo import assets_path
from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, KeypointCard, read_card, write_card
from accmpeg.dnn.heads import get_head
from accmpeg.dnn.registry import get_adapter
from accmpeg.errors import CardError

CARD = DnnCard(
    name="tiny",
    task="keypoints",
    adapter="onnx",
    model="tiny.onnx",
    sha256="0" * 64,
    classes=["person"],
    nms_iou=0.45,
    input=InputCard(name="images", width_px=640, height_px=384, size_multiple=32, letterbox="top-left"),
    head=HeadCard(name="yolo_pose", outputs=["output"]),
    keypoints=KeypointCard(names=["head", "foot"]),
    source="somewhere",
    licence="MIT",
)


@pytest.fixture
def stored(tmp_path):
    """Stores the card with one text replaced by another; returns its path."""

    def store(old: str, new: str):
        path = tmp_path / "tiny.card.toml"
        write_card(CARD, path)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return path

    return store


def test_a_card_survives_storing(tmp_path):
    write_card(CARD, tmp_path / "cards" / "tiny.card.toml")
    assert read_card(tmp_path / "cards" / "tiny.card.toml") == CARD


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("score_threshold", "score_treshold", "unknown key 'score_treshold': did you mean 'score_threshold'"),
        ("width_px", "widht_px", "unknown key 'input.widht_px': did you mean 'width_px'"),
        ("visibility_threshold", "visible", "unknown key 'keypoints.visible': valid keys are names"),
        ('task = "keypoints"\n', "", "the key 'task' is missing"),
        ("width_px = 640\n", "", "the key 'input.width_px' is missing"),
        ('task = "keypoints"', 'task = "tracking"', "task: Input should be 'detection'"),
        ("width_px = 640", "width_px = 650", "input: 650x384 is no multiple of size_multiple 32"),
        ("width_px = 640", "width_px = 0", "input.width_px: Input should be greater"),
        ("nms_iou = 0.45", "nms_iou = 45", "nms_iou: Input should be less"),
        ("[keypoints]", "[other]", "unknown key 'other'"),
        ('task = "keypoints"', "task = ", "is not valid TOML"),
    ],
)
def test_a_bad_card_is_one_clear_line(stored, old, new, message):
    path = stored(old, new)
    with pytest.raises(CardError) as caught:
        read_card(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_keypoint_card_needs_names():
    with pytest.raises(ValueError, match=r"needs a \[keypoints\] section"):
        DnnCard.model_validate(CARD.model_dump(exclude={"keypoints"}))


def test_the_card_of_an_accmodel_and_a_bare_network_say_what_they_are():
    with pytest.raises(CardError, match="this is the card of an AccModel, not that of a server DNN"):
        read_card(assets_path() / "accmodel.card.toml")
    with pytest.raises(CardError, match="`accmpeg models import FILE` makes the card of an ONNX file"):
        read_card(assets_path() / "detector.onnx")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_card_that_can_not_be_read(tmp_path, content):
    path = tmp_path / "tiny.card.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CardError, match="can't be read as a card"):
        read_card(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": HeadCard(name="yolo_poze")}, "no head 'yolo_poze': did you mean 'yolo_pose'"),
        ({"head": HeadCard(name="yolo")}, "is for detection, the card's task is keypoints"),
        (
            {"head": HeadCard(name="yolo_pose", parameters={"bins": 8})},
            "no parameter 'bins': choose one of units",
        ),
        (
            {"task": "segmentation", "head": HeadCard(name="class_map", parameters={"bins": 8})},
            "no parameter 'bins': it has none",
        ),
        (
            {"task": "detection", "head": HeadCard(name="nanodet", parameters={"stride": [8]})},
            "no parameter 'stride': did you mean 'strides'",
        ),
        (
            {"task": "detection", "head": HeadCard(name="detr", parameters={"activation": "relu"})},
            "'sigmoid' or 'softmax' or 'none', not 'relu'",
        ),
    ],
)
def test_a_head_that_does_not_fit(changes, message):
    with pytest.raises(CardError, match=message):
        get_head(CARD.model_copy(update=changes))


def test_an_unknown_adapter():
    with pytest.raises(CardError, match="no adapter 'onxx': did you mean 'onnx'"):
        get_adapter("onxx")


@pytest.mark.parametrize(
    ("card", "frame", "seen"),
    [
        ({}, (1280, 720), (640, 360)),
        ({}, (720, 1280), (360, 640)),
        ({}, (320, 200), (320, 200)),
        ({"letterbox": "stretch"}, (1920, 1080), (1138, 640)),
        ({"width_px": 1024, "height_px": 512, "letterbox": "stretch"}, (1280, 720), (1024, 576)),
    ],
)
def test_a_stream_needs_no_more_pixels_than_the_network_sees(
    card: dict, frame: tuple[int, int], seen: tuple[int, int]
) -> None:
    settings = InputCard(**{"name": "x", "width_px": 640, "height_px": 640, **card})
    assert settings.seen_size_px(*frame) == seen
    worth_it = frame[0] / seen[0] >= 1.4
    assert settings.stream_size_px(*frame) == (seen if worth_it else frame)
