"""True labels: COCO files read, paired with frames, refused when they are something else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.errors import EvaluationError, SourceError
from accmpeg.evaluation.bench.clip import read_clip
from accmpeg.evaluation.bench.labels import read_coco, unlabelled_xyxy
from accmpeg.media.frames import rgb_of
from accmpeg.media.source import open_source

DOCUMENT = {
    "categories": [{"id": 7, "name": "bus"}, {"id": 3, "name": "car"}],
    "images": [
        {"id": 1, "file_name": "b.png", "frame_index": 1},
        {"id": 2, "file_name": "a.png", "frame_index": 0},
        {"id": 5, "file_name": "c.png", "frame_index": 2},
    ],
    "annotations": [
        {"image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40]},
        {"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 2, "category_id": 3, "bbox": [5, 5, 5, 5]},
        {"image_id": 2, "category_id": 3, "bbox": [0, 0, 900, 900], "iscrowd": 1},
    ],
}


def written(folder: Path, document: object) -> Path:
    path = folder / "clip.json"
    path.write_text(json.dumps(document))
    return path


def test_frames_are_in_order_and_boxes_are_corners(tmp_path: Path) -> None:
    labels, names = read_coco(written(tmp_path, DOCUMENT))
    assert names == ("car", "bus")
    assert [len(frame) for frame in labels] == [2, 1, 0]
    np.testing.assert_allclose(labels[0].xyxy, [[1, 2, 4, 6], [5, 5, 10, 10]])
    np.testing.assert_array_equal(labels[0].class_id, [1, 0])
    np.testing.assert_allclose(labels[1].xyxy, [[10, 20, 40, 60]])


@pytest.mark.parametrize(
    "document", [[], {}, {**DOCUMENT, "annotations": [{"image_id": 99, "category_id": 3, "bbox": [0] * 4}]}]
)
def test_other_files_are_refused_by_name(tmp_path: Path, document: object) -> None:
    with pytest.raises(EvaluationError, match=r"clip\.json is no COCO"):
        read_coco(written(tmp_path, document))
    with pytest.raises(EvaluationError, match="no COCO"):
        read_coco(tmp_path / "missing.json")


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    """Labels of a full-size recording beside its scaled-down copy would say that every object is lost."""
    document = numbered(["1.jpg", "2.jpg"])
    for image in document["images"]:
        image |= {"width": 1920, "height": 1080}
    path = written(tmp_path, document)
    assert len(read_coco(path, size_px=(1920, 1080))[0]) == 2
    with pytest.raises(
        EvaluationError, match=r"1\.jpg in 1920x1080 pixels, and the clip has 1280x720: scale"
    ):
        read_coco(path, size_px=(1280, 720))


def numbered(names: Sequence[str], **more: Any) -> dict[str, Any]:
    """A document whose images are called so; the box of each is as wide as its place in the list says."""
    return {
        "categories": [{"id": 1, "name": "car"}],
        "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
        "annotations": [
            {"image_id": index, "category_id": 1, "bbox": [0, 0, 1 + index, 5]} for index in range(len(names))
        ],
        **more,
    }


def places(labels: Sequence[Any]) -> list[int]:
    return [int(frame.xyxy[0, 2]) - 1 for frame in labels]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.jpg", "10.jpg", "11.jpg", *(f"{n}.jpg" for n in range(2, 10))], [0, *range(3, 11), 1, 2]),
        (["frame_8.png", "frame_9.png", "frame_10.png"], [0, 1, 2]),
        (["cam2/f10.jpg", "cam2/f9.jpg", "cam2/f008.jpg"], [2, 1, 0]),
        (["b.jpg", "c.jpg", "a.jpg"], [2, 0, 1]),
        (["f9_jpg.rf.9c0.jpg", "f10_jpg.rf.1ab.jpg", "f8_jpg.rf.77e.jpg"], [2, 0, 1]),
    ],
)
def test_frames_are_paired_by_the_numbers_in_their_names(
    tmp_path: Path, names: list[str], expected: list[int]
) -> None:
    labels, _ = read_coco(written(tmp_path, numbered(names)))
    assert places(labels) == expected


def test_ids_may_be_text_and_names_have_folders_as_windows_writes_them(tmp_path: Path) -> None:
    document = numbered(["cam\\1.jpg", "cam\\2.jpg"])
    document["categories"] = [{"id": name, "name": name} for name in ("van", "10", "9")]
    for image, annotation in zip(document["images"], document["annotations"], strict=True):
        image["id"] = str(image["id"])
        annotation["category_id"] = "van" if annotation["image_id"] else 9
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    labels, names = read_coco(path, ["1.jpg", "2.jpg"])
    assert places(labels) == [0, 1]
    assert [names[frame.class_id[0]] for frame in labels] == ["9", "van"]
    assert names == ("9", "10", "van")


def test_numbers_may_be_text_or_have_a_decimal_point_and_frame_indices_need_no_names(tmp_path: Path) -> None:
    """As data frames write them. "0" is no crowd: taken for one, its object would be no one's fault."""
    document = numbered(["", ""])
    document["images"] = [
        {"id": 0.0, "frame_index": "1", "width": "64.0", "height": 48.0},
        {"id": 1, "frame_index": 0},
    ]
    for annotation, crowd in zip(document["annotations"], ("0", "1"), strict=True):
        annotation |= {"category_id": 1.0, "iscrowd": crowd}
    labels, _ = read_coco(written(tmp_path, document), size_px=(64, 48))
    assert [len(frame) for frame in labels] == [0, 1]
    assert [len(unlabelled_xyxy(frame)) for frame in labels] == [1, 0]


def test_ignored_boxes_are_regions_as_crowds_are(tmp_path: Path) -> None:
    """CityPersons and what converters make of VOC's difficult objects: no detector is asked for them.
    KITTI and VisDrone have a category for them."""
    document = numbered(["1.jpg", "2.jpg"])
    region = {"image_id": 0, "category_id": 0, "bbox": [5, 5, 9, 9]}
    for name in ("DontCare", "ignored regions", "ignore"):
        document["categories"].append({"id": 0, "name": name})
        document["annotations"].append(region)
        labels, _ = read_coco(written(tmp_path, document))
        assert [len(frame) for frame in labels] == [1, 1]
        assert [unlabelled_xyxy(frame).tolist() for frame in labels] == [[[5, 5, 14, 14]], []]
        del document["categories"][-1], document["annotations"][-1]
    document["annotations"][0] |= {"iscrowd": 0, "ignore": 0}
    document["annotations"][1] |= {"iscrowd": "0", "ignore": 1}
    labels, _ = read_coco(written(tmp_path, document))
    assert [len(frame) for frame in labels] == [1, 0]
    assert [len(unlabelled_xyxy(frame)) for frame in labels] == [0, 1]


def test_pictures_with_missing_numbers_are_paired_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, numbered(["frames/30.jpg", "frames/10.jpg"]))
    labels, _ = read_coco(path, ["10.jpg", "30.jpg", "40.jpg"])
    assert places(labels) == [1, 0]
    assert places(read_coco(path, ["10.webp", "30.webp"])[0]) == [1, 0]
    tools = written(tmp_path, numbered(["30_jpg.rf.7ad.jpg", "images/1/0c3fe01b-10.jpg"]))
    assert places(read_coco(tools, ["10.jpg", "30.jpg", "40.jpg"])[0]) == [1, 0]
    path = written(tmp_path, numbered(["frames/30.jpg", "frames/10.jpg"]))
    with pytest.raises(
        EvaluationError, match=r"clip\.json labels 30\.jpg, which is none of the clip's pictures"
    ):
        read_coco(path, ["10.jpg", "20.jpg"])


def test_numbers_in_names_that_begin_late_are_of_the_clip_only_where_all_of_it_is_labelled(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, numbered(["f_032.jpg", "f_030.jpg", "f_031.jpg"]))
    labels, _ = read_coco(path, count_frames=lambda: 3)
    assert places(labels) == [1, 2, 0]
    with pytest.raises(EvaluationError, match=r"begins with number 30 .* the clip has 40 frames"):
        read_coco(path, count_frames=lambda: 40)


def test_pictures_of_a_longer_clip_may_be_every_so_many_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`ffmpeg -vf fps=5 %05d.jpg` numbers them as if they were the first ones."""
    path = written(tmp_path, numbered(["00001.jpg", "00002.jpg", "00003.jpg"]))
    assert places(read_coco(path, count_frames=lambda: 3)[0]) == [0, 1, 2]
    assert not caplog.messages
    for _ in range(2):
        read_coco(path, count_frames=lambda: 15)
    (told,) = caplog.messages
    assert told.startswith(
        "00001.jpg and the other 2 labelled pictures are taken for the first of the clip's 15"
    )
    assert "frame_index" in told


def test_random_words_before_the_numbers_do_not_put_frames_in_another_order(tmp_path: Path) -> None:
    path = written(tmp_path, numbered(["1/c4-f_001.jpg", "1/0a-f_002.jpg", "1/7b-f_003.jpg"]))
    assert places(read_coco(path)[0]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], "as fractions"),
        ([[100, 100, 200, 300], [500, 400, 630, 470], [450, 10, 500, 60]], "67% leave the picture"),
        ([[1000, 600, 200, 300], [900, 10, 50, 60], [4, 4, 9, 9]], "67% leave the picture"),
    ],
)
def test_boxes_that_mean_something_else_are_refused(tmp_path: Path, boxes: list[Any], said: str) -> None:
    objects = [{"image_id": 0, "category_id": 1, "bbox": box} for box in boxes]
    path = written(tmp_path, numbered(["1.jpg"], annotations=objects))
    with pytest.raises(EvaluationError, match=said):
        read_coco(path, size_px=(640, 480))


def test_boxes_may_leave_the_picture(tmp_path: Path) -> None:
    objects = [{"image_id": 0, "category_id": 1, "bbox": box} for box in ([600, 10, 100, 200], [5, 5, 9, 9])]
    labels, _ = read_coco(written(tmp_path, numbered(["1.jpg"], annotations=objects)), size_px=(640, 480))
    assert labels[0].xyxy.tolist() == [[600, 10, 700, 210], [5, 5, 14, 14]]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (numbered(["1.jpg", "3.jpg"]), r"has no image after 1\.jpg \(next is 3\.jpg\)"),
        (numbered(["a_mp4_1_jpg.rf.5.jpg", "a_mp4_3_jpg.rf.6.jpg"]), r"has no image after a_mp4_1\.jpg"),
        (numbered(["f/1.jpg", "f/01.jpg"]), r"has two images for one frame"),
        (numbered(["cam1/1.jpg", "cam2/1.jpg"]), "several folders with pictures of one name"),
        (numbered([]), "no frame is labelled"),
        (
            numbered([], images=[{"id": 0, "file_name": "v.mp4", "frame_index": 1}], annotations=[]),
            "no image for the clip's first frame",
        ),
        (
            numbered(
                [],
                images=[{"id": 0, "file_name": "v.mp4", "frame_index": 0}, {"id": 1, "file_name": "v.mp4"}],
            ),
            "only some of its images a frame_index",
        ),
        (
            numbered(["1.jpg"], annotations=[{"image_id": 0, "category_id": 1, "bbox": [0, 0, -1, 5]}]),
            "is no COCO detection file",
        ),
        (
            numbered(["1.jpg"], annotations=[{"image_id": 8, "category_id": 1, "bbox": [0, 0, 1, 5]}]),
            "an annotation is of image 8, and images has none of that id",
        ),
        (
            numbered([], images=[{"id": 1, "file_name": name} for name in ("1.jpg", "2.jpg")]),
            "two images or two categories have one id",
        ),
        (numbered(["1.jpg"], info={"unlabelled_zones": [[0, 0, 5]]}), "is no box of 4 numbers"),
    ],
)
def test_labels_that_may_belong_to_other_frames_are_refused(
    tmp_path: Path, document: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        read_coco(written(tmp_path, document))
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_crowds_and_unlabelled_zones_are_regions_and_no_objects(tmp_path: Path) -> None:
    document = DOCUMENT | {"info": {"unlabelled_zones": [[0, 0, 640, 50]]}}
    labels, _ = read_coco(written(tmp_path, document))
    assert unlabelled_xyxy(labels[0]).tolist() == [[0, 0, 640, 50], [0, 0, 900, 900]]
    assert unlabelled_xyxy(labels[2]).tolist() == [[0, 0, 640, 50]]
    assert len(unlabelled_xyxy(sv.Detections.empty())) == 0


def test_a_damaged_picture_does_not_shift_the_labels_of_those_after_it(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("L", (64, 48), 50 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"damaged")
    labels = [sv.Detections(np.full((1, 4), number, np.float32)) for number in range(4)]
    with open_source(tmp_path) as source:
        clip = read_clip(source, labels=labels, limit=3)
    assert [round(float(rgb_of(frame).mean())) // 50 for frame in clip.frames] == [0, 2, 3]
    assert [label.xyxy[0, 0] for label in clip.labels or ()] == [0, 2, 3]


def test_labels_of_many_more_frames_than_the_clip_has_are_another_s() -> None:
    """Those of a recording at 30 frames/s beside its copy at 15 would meet frames of another time."""
    scene = SceneSource(SceneSpec(7, 320, 180, frame_count=5))
    nothing = [sv.Detections.empty()] * 10
    with pytest.raises(
        SourceError, match="ends after 5 frames, and its labels are of 10: give the clip that"
    ):
        read_clip(scene, labels=nothing)
    assert len(read_clip(scene, labels=nothing, limit=4).frames) == 4
    assert len(read_clip(scene, labels=nothing[:3]).frames) == 3
