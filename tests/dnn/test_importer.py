"""Cards from descriptions, from answers, and from questions; what nothing says is named."""

import json
import shutil

import numpy as np
import onnx
import pytest

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.importer import QUESTIONS, find_models, import_model
from accmpeg.dnn.ultralytics import from_metadata
from accmpeg.errors import AccmpegError, CardError, DnnError, UsageError
from tests.dnn.exported import fixed, picture_input, value, write
from tests.dnn.tiny_networks import write_logits_network, write_network

DESCRIPTION = {
    "task": "object detection (two classes)",
    "input": {
        "name": "images",
        "native": [1, 3, 64, 64],
        "dynamic": "batch; height and width any multiple of 16",
        "colour": "BGR",
        "range": "0..1 then normalised",
        "normalisation": "(x-[0.5,0.4,0.3])/[0.2,0.2,0.1]",
        "letterbox": "keep aspect ratio, image at the TOP-LEFT, pad value 100 right/bottom",
    },
    "outputs": {"output": {"decode": "rows 0-3: cx,cy,w,h in pixels; rows 4-5: class probabilities"}},
    "classes": ["person", "car"],
    "score_threshold": 0.3,
    "nms_iou": 0.6,
    "licence": "MIT",
    "source": {"repository": "https://example.org/tiny", "path": "tiny.onnx"},
}

ANSWERS = {
    "task": "detection",
    "classes": "person, car",
    "input.width_px": "64",
    "input.height_px": "64",
    "input.size_multiple": "16",
    "input.colour": "rgb",
    "input.mean": "0,0,0",
    "input.std": "255 255 255",
    "input.letterbox": "centre",
    "head.name": "yolo",
    "score_threshold": "0.25",
    "nms_iou": "none",
}


@pytest.fixture
def model(tmp_path):
    return write_network(tmp_path / "tiny.onnx", 6)


def describe(model, **changes):
    described = {**DESCRIPTION, **changes}
    model.with_suffix(".json").write_text(json.dumps({k: v for k, v in described.items() if v is not None}))


def test_a_description_becomes_a_card(model, tmp_path):
    describe(model)
    imported = import_model(model, tmp_path / "data" / "cards", data=tmp_path / "data")
    card = read_card(imported.card)
    assert card.task == "detection"
    assert card.head.name == "yolo"
    assert card.classes == ["person", "car"]
    assert (card.score_threshold, card.nms_iou) == (0.3, 0.6)
    assert (card.input.width_px, card.input.height_px, card.input.size_multiple) == (64, 64, 16)
    assert (card.input.colour, card.input.letterbox, card.input.pad_value) == ("bgr", "top-left", 100)
    assert card.input.mean == pytest.approx((127.5, 102, 76.5))
    assert card.input.std == pytest.approx((51, 51, 25.5))
    assert card.licence == "MIT"
    assert card.model == str(model)
    load_dnn(imported.card)


def test_weights_beside_the_card_or_in_the_data_folder_are_named_relative_to_it(model, tmp_path):
    describe(model)
    assert read_card(import_model(model, tmp_path).card).model == "tiny.onnx"
    imported = import_model(model, tmp_path / "cards", data=tmp_path)
    assert read_card(imported.card).model == "../tiny.onnx"
    load_dnn(imported.card)


def test_answers_make_a_card_without_a_description(model, tmp_path):
    card = read_card(import_model(model, tmp_path, answers=ANSWERS).card)
    assert card.classes == ["person", "car"]
    assert card.nms_iou is None
    assert card.input.std == (255, 255, 255)


def test_a_person_is_asked_only_for_what_is_open(model, tmp_path):
    describe(model, classes=None, nms_iou=None)
    asked = []

    def ask(key, question, default):
        asked.append(key)
        assert question == QUESTIONS[key]
        return ANSWERS[key]

    import_model(model, tmp_path, ask=ask)
    assert asked == ["classes", "nms_iou"]


def test_a_layout_is_proposed_only_for_the_task(tmp_path):
    shapes = {"out": [1, 2, 8, 8], "aux": [1, 2, 8, 8]}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    proposed = {}

    def ask(key, question, default):
        proposed[key] = default
        return {**ANSWERS, "task": "segmentation", "head.name": "logits"}[key]

    done = import_model(fixed(tmp_path / "n.onnx", **arrays), tmp_path, ask=ask)
    assert proposed["head.name"] is None
    assert read_card(done.card).head.outputs == ["out"]


def test_classes_may_be_a_file(model, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("walker\nlorry\n")
    card = read_card(import_model(model, tmp_path, answers={**ANSWERS, "classes": str(names)}).card)
    assert card.classes == ["walker", "lorry"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("walker\n\nlorry\n", "line 2 of .* is empty, and each line names the next class: write 'unused'"),
        ("0  walker\n1  tram\n3  lorry\n", "the names in .* are numbered, and 2 is not in its place"),
        ("1: walker\n3: lorry\n", "are numbered, and 2 is not in its place"),
    ],
)
def test_a_class_that_a_file_leaves_out_does_not_move_the_others(model, tmp_path, text, message):
    """OpenCV's list of COCO's classes has empty lines, Coral's has gaps: all names behind them were wrong."""
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        import_model(model, tmp_path, answers={**ANSWERS, "classes": str(tmp_path / "names.txt")})


def test_answers_may_be_written_as_in_a_card(model, tmp_path):
    (tmp_path / "names.txt").write_text("# of the camera at the gate\nwalker, lorry\n")
    for classes in ('["walker", "lorry"]', "'walker','lorry'", str(tmp_path / "names.txt")):
        quoted = {"classes": classes, "input.mean": "[0, 0, 0]", "head.name": '"yolo"'}
        quoted["head.parameters.units"] = "'fractions'"
        card = read_card(import_model(model, tmp_path, answers={**ANSWERS, **quoted}, replace=True).card)
        assert (card.classes, card.head.name) == (["walker", "lorry"], "yolo")
        assert card.head.parameters == {"units": "fractions"}
    network = fixed(tmp_path / "n.onnx", output=np.zeros((1, 20, 7), np.float32))
    own = ("input.width_px", "input.height_px", "input.size_multiple")
    answers = {key: text for key, text in ANSWERS.items() if key not in own}
    answers |= {"head.name": "yolo_objectness", "head.parameters.strides": "[8, 16]"}
    card = read_card(import_model(network, tmp_path, answers=answers).card)
    assert card.head.parameters == {"strides": [8, 16]}


@pytest.mark.parametrize("name", ["data.yaml", "config.json", "labels.pbtxt"])
def test_classes_are_not_read_from_the_lines_of_another_format(model, tmp_path, name):
    (tmp_path / name).write_text("names:\n  0: walker\n")
    with pytest.raises(UsageError, match=f"classes: .*{name} is no text file with one name per line"):
        import_model(model, tmp_path, answers={**ANSWERS, "classes": str(tmp_path / name)})


def test_a_size_multiple_that_is_too_small_is_found_on_import(tmp_path):
    node = onnx.helper.make_node
    network = write(
        tmp_path / "n.onnx",
        [
            node("AveragePool", ["images"], ["small"], kernel_shape=[32, 32], strides=[32, 32]),
            node("Upsample", ["small", "scales"], ["large"], mode="nearest"),
            node("Add", ["images", "large"], ["logits"]),
        ],
        [value("logits", ["n", 3, "h", "w"])],
        {"scales": np.float32([1, 1, 32, 32])},
        inputs=[picture_input(shape=("n", 3, "h", "w"))],
        opset=9,
    )
    answers = {**ANSWERS, "task": "segmentation", "head.name": "logits", "classes": "a,b,c"}
    answers |= {"input.width_px": "256", "input.height_px": "256"}
    with pytest.raises(DnnError, match=r"failed on an input of .* correct input.size_multiple in its card"):
        import_model(network, tmp_path, answers=answers)
    assert import_model(network, tmp_path, answers={**answers, "input.size_multiple": "32"}).card


def test_without_anybody_to_ask_everything_open_is_named(model, tmp_path):
    with pytest.raises(CardError, match=r"nothing says task, classes, input.width_px.*head.name"):
        import_model(model, tmp_path)
    describe(model, outputs={"output": {"decode": "ask the author"}})
    with pytest.raises(CardError, match=r"nothing says head.name: give each as --set key=value"):
        import_model(model, tmp_path)
    assert list(tmp_path.glob("*.toml")) == []


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ({"input.color": "bgr"}, UsageError, "--set input.color: choose one of"),
        ({"input.mean": "grey"}, UsageError, "give three numbers"),
        ({"input.mean": "1,2"}, CardError, "input.mean"),
        (
            {"input.std": "0.229,0.224,0.225"},
            CardError,
            "is for pixels of 0 to 1: multiply it and mean by 255",
        ),
        ({"input.colour": "purple"}, CardError, "input.colour: Input should be 'rgb' or 'bgr'"),
        ({"head.name": "yoyo"}, CardError, "no head 'yoyo': did you mean 'yolo'"),
        ({"task": "detect"}, UsageError, "task: choose one of detection, .*, not 'detect'"),
        ({"classes": "nowhere/coco.names"}, UsageError, "there is no file nowhere/coco.names"),
        (
            {"classes": "a,b,c"},
            DnnError,
            r"correct head.name, head.outputs or classes .*its outputs: 'output'",
        ),
    ],
)
def test_senseless_answers_are_named(model, tmp_path, answers, error, message):
    with pytest.raises(error, match=message):
        import_model(model, tmp_path, answers={**ANSWERS, **answers})
    assert list(tmp_path.glob("*.toml")) == []


def test_a_card_that_exists_is_kept_unless_told(model, tmp_path):
    import_model(model, tmp_path, answers=ANSWERS)
    changed = {**ANSWERS, "score_threshold": "0.5"}
    with pytest.raises(CardError, match="exists: give --replace"):
        import_model(model, tmp_path, answers=changed)
    card = import_model(model, tmp_path, answers=changed, replace=True).card
    assert read_card(card).score_threshold == 0.5


def test_a_segmentation_network_needs_no_thresholds(tmp_path):
    model = write_logits_network(tmp_path / "seg.onnx", 2)
    keys = ("classes", "input.colour", "input.mean", "input.std", "input.letterbox")
    answers = {"task": "segmentation", "head.name": "logits", **{key: ANSWERS[key] for key in keys}}
    card = read_card(import_model(model, tmp_path, answers=answers).card)
    assert (card.input.width_px, card.input.height_px, card.input.size_multiple) == (64, 48, None)


def told(path, **metadata):
    """The file with metadata as Ultralytics writes it."""
    network = onnx.load(path)
    onnx.helper.set_model_props(network, {name: str(text) for name, text in metadata.items()})
    onnx.save(network, path)
    return path


ULTRALYTICS = {
    "author": "Ultralytics",
    "task": "detect",
    "names": {0: "walker", 1: "lorry"},
    "imgsz": [64, 96],
    "stride": 32,
    "license": "AGPL-3.0",
}


def test_what_ultralytics_writes_into_its_files_needs_no_answers(model, tmp_path):
    card = read_card(import_model(told(model, **ULTRALYTICS), tmp_path).card)
    assert (card.task, card.classes, card.head.name) == ("detection", ["walker", "lorry"], "yolo")
    assert (card.input.width_px, card.input.height_px, card.input.size_multiple) == (96, 64, 32)
    assert (card.nms_iou, card.licence) == (0.45, "AGPL-3.0")
    again = import_model(model, tmp_path, answers={"nms_iou": "0.6"}, replace=True)
    assert read_card(again.card).nms_iou == 0.6
    network = onnx.load(model)
    del network.metadata_props[:]
    onnx.save(network, model)
    with pytest.raises(CardError, match="nothing says task"):
        import_model(told(model, names="{0: 'walker', 1: 'lorry'}"), tmp_path / "other")


@pytest.mark.parametrize(
    ("task", "more", "shapes", "head", "suppresses"),
    [
        ("detect", {}, [["n", 6, 8400]], "yolo", True),
        ("detect", {}, [["n", 300, 6]], "end2end", False),
        ("segment", {}, [["n", 300, 38], ["n", 32, 40, 40]], "end2end_seg", False),
        ("segment", {}, [["n", 38, "anchors"], ["n", 32, 40, 40]], "yolo_seg", True),
        ("pose", {"kpt_shape": [17, 3]}, [["n", 300, 57]], "end2end_pose", False),
        ("pose", {"kpt_shape": [17, 3]}, [["n", 57, 8400]], "yolo_pose", True),
        ("detect", {"names": {0: "a", 1: "b", 2: "c"}}, [["n", 300, 7]], "rtdetr", False),
        ("detect", {"description": "Ultralytics rtdetr-l model"}, [["n", 300, 6]], "rtdetr", False),
        ("detect", {"head": "RTDETRDecoder"}, [["n", 300, 6]], "end2end", False),
        ("detect", {"end2end": True}, [["n", "rows", "anchors"]], "end2end", False),
        ("detect", {"end2end": False}, [["n", "rows", "anchors"]], "yolo", True),
        ("detect", {"description": "Ultralytics YOLOv10n model"}, [["n", "r", "anchors"]], "end2end", False),
        ("pose", {"kpt_shape": [17, 3], "args": {"nms": True}}, [["n", "r", "c"]], "end2end_pose", False),
        ("segment", {"end2end": True}, [["n", "r", "c"], ["n", 32, "h", "w"]], "end2end_seg", False),
        ("semantic", {}, [["n", 160, 160]], "class_map", False),
        ("semantic", {}, [["n", 2, 160, 160]], "logits", False),
    ],
)
def test_heads_of_ultralytics(task, more, shapes, head, suppresses):
    metadata = {name: str(text) for name, text in {**ULTRALYTICS, "task": task, **more}.items()}
    found = from_metadata(metadata, shapes)
    assert (found["head.name"], found["nms_iou"] is not None) == (head, suppresses)
    assert found["input.letterbox"] == ("stretch" if "rtdetr" in str([head, more]).lower() else "centre")
    if "head" in more:
        assert found["head.parameters"] == {"columns": "cx,cy,w,h,score,class", "units": "fractions"}


def test_names_of_ultralytics_are_in_the_order_of_their_numbers():
    names = {10: "k", 2: "c", **{i: str(i) for i in (9, 8, 7, 6, 5, 4, 3, 1, 0)}}
    told_of = {**ULTRALYTICS, "task": "pose", "names": names, "kpt_names": {0: ["head", "foot"]}}
    found = from_metadata({name: str(text) for name, text in told_of.items()}, [["n", 21, 8400]])
    assert found["classes"] == ["0", "1", "c", "3", "4", "5", "6", "7", "8", "9", "k"]
    assert found["keypoints.names"] == ["head", "foot"]


def test_other_tasks_and_odd_metadata(model, tmp_path):
    done = import_model(told(model, **{**ULTRALYTICS, "task": "obb"}), tmp_path)
    assert (done.card, done.note) == (None, "skipped: rotated boxes is not a task of a server DNN")
    for names in ("{", "[1", "os.remove('x')", "7", "{}"):
        assert from_metadata({"names": names}, []) == {}


def test_backbones_are_skipped_with_a_reason(model, tmp_path):
    describe(model, task="ImageNet classification / backbone")
    imported = import_model(model, tmp_path)
    assert imported.card is None
    assert "classification" in imported.note


@pytest.mark.parametrize("content", ["{", "[]", b"\xff\xfe"])
def test_a_damaged_description_is_named(model, tmp_path, content):
    beside = model.with_suffix(".json")
    beside.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CardError, match=r"tiny\.json"):
        import_model(model, tmp_path)


@pytest.mark.parametrize("entry", [{"input": []}, {"outputs": "logits"}, {"input": {"native": "big"}}])
def test_a_description_of_another_kind_is_an_error_and_no_crash(model, tmp_path, entry):
    describe(model, **entry)
    with pytest.raises(AccmpegError):
        import_model(model, tmp_path)


def test_another_format_is_told_the_way_to_onnx(tmp_path):
    (tmp_path / "best.pt").touch()
    with pytest.raises(UsageError, match=r"best\.pt is no ONNX file: export .* format=onnx"):
        find_models(tmp_path / "best.pt")


def test_only_onnx_files_are_models(tmp_path, model):
    shutil.copy(model, tmp_path / "other.onnx")
    assert [path.name for path in find_models(tmp_path)] == ["other.onnx", "tiny.onnx"]
    assert find_models(model) == [model]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="neither an ONNX file nor a folder"):
            find_models(path)
