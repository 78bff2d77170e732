"""Label sets on disk: what is in them, going on after anything, and bad footage among good."""

import errno
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
import pytest

from accmpeg.dnn.base import load_dnn
from accmpeg.errors import LabelError, UsageError
from accmpeg.files import write_whole
from accmpeg.media.decoder import encode_still
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.planes import Planes, frame_planes
from accmpeg.media.source import read_still
from accmpeg.training import labelling
from accmpeg.training.gradient import accuracy_gradient
from accmpeg.training.labelling import label_footage
from accmpeg.training.labels import ACCGRAD_LOG2_FLOOR, Label, pack_label, read_labels
from accmpeg.training.reading import Job
from accmpeg.training.settings import LabelSettings, Sampling
from tests.dnn.exported import fixed, imported

ALL = Sampling(every=1)


@pytest.fixture
def stills(tmp_path, write_picture) -> Path:
    folder = tmp_path / "stills"
    for seed, size_px in enumerate([(96, 64), (97, 51), (48, 80)]):
        write_picture(folder / f"picture-{seed}.png", seed, *size_px)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def label(card, footage, out, **options):
    options.setdefault("workers", 1)
    return label_footage([footage], dnn=card, out=out, **options)


def test_a_label_holds_what_training_needs(detector_card, stills, tmp_path):
    report = label(detector_card, stills, tmp_path / "labels")
    assert (report.new, report.kept, report.skipped) == (3, 0, 0)
    labels = read_labels(tmp_path / "labels")
    assert len(labels) == 3
    assert labels.clips == [f"stills/picture-{i}" for i in range(3)]
    assert labels.dnn["name"] == "detector"
    assert labels.settings == {
        "qp_high": 20,
        "qp_low": 40,
        "at": "low",
        "max_side_px": 1280,
        "black_box": None,
    }

    dnn = load_dnn(detector_card)
    for item in labels:
        frame = read_still(item.source)
        (high, _), (low, _) = encode_still(frame, 20), encode_still(frame, 40)
        reference = dnn.infer(high)
        accgrad = accuracy_gradient(dnn.differentiable(), dnn.task, reference, high, low)
        stored = item.load()
        assert (stored.width_px, stored.height_px) == (frame.width, frame.height)
        np.testing.assert_allclose(
            stored.accgrad_log2,
            np.maximum(np.log2(np.maximum(accgrad, 1e-30)), ACCGRAD_LOG2_FLOOR),
            rtol=1e-2,
        )
        boxes = dnn.task.object_boxes(reference)
        assert len(boxes)
        np.testing.assert_array_equal(
            stored.objects, MacroblockGrid(frame.width, frame.height).cover_boxes(boxes)
        )
        np.testing.assert_array_equal(stored.planes.y, frame_planes(frame).y)
        np.testing.assert_array_equal(stored.planes.uv, frame_planes(frame).uv)
        np.testing.assert_array_equal(stored.result["xyxy"], reference.xyxy)


def test_a_network_that_pytorch_reads_otherwise_makes_no_label(tmp_path):
    """It takes the pixel in the middle, PyTorch's nearest neighbour the one in the corner."""
    network = tmp_path / "n.onnx"
    fixed(network, logits=np.zeros((1, 2, 1, 1), np.float32))
    model = onnx.load(network)
    del model.graph.node[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "middle"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1, 1, 1 / 32, 1 / 32]), "scales"))
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceMean", ["images"], ["grey"], axes=[1]),
            onnx.helper.make_node("Resize", ["grey", "", "scales"], ["one"], mode="nearest"),
            onnx.helper.make_node("Sub", ["one", "middle"], ["bright"]),
            onnx.helper.make_node("Neg", ["bright"], ["dark"]),
            onnx.helper.make_node("Concat", ["dark", "bright"], ["logits"], axis=1),
        ]
    )
    onnx.save(model, network)
    card = imported(network, "segmentation", "logits", classes="dark,bright")
    pixels = np.full((64, 64, 3), 230, np.uint8)
    pixels[:24, :24] = 20
    av.VideoFrame.from_ndarray(pixels, format="rgb24").to_image().save(tmp_path / "p.png")
    with pytest.raises(LabelError, match=r"PyTorch gives other answers for n .*use --black-box N"):
        label(card, tmp_path / "p.png", tmp_path / "labels")


def test_segmentation_has_no_objects(segmenter_card, stills, tmp_path):
    label(segmenter_card, stills, tmp_path / "labels")
    stored = read_labels(tmp_path / "labels").items[0].load()
    assert stored.objects is None
    assert stored.result["classes"].dtype == np.uint8


def test_videos_are_sampled(segmenter_card, textured, tmp_path):
    with av.open(tmp_path / "clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for seed in range(23):
            frame = textured(seed=seed)
            frame.pts = seed
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    seen = []
    out = tmp_path / "labels"
    label(
        segmenter_card,
        tmp_path / "clip.mp4",
        out,
        sampling=Sampling(every=5),
        progress=lambda *done: seen.append(done),
    )
    assert [item.frame_index for item in read_labels(out)] == [0, 5, 10, 15, 20]
    assert seen[-1] == (5, 5)
    label(segmenter_card, tmp_path / "clip.mp4", out, sampling=Sampling(every=10, limit=2))
    assert len(read_labels(out)) == 5, "frames that are already labelled are not labelled again"
    report = label(segmenter_card, tmp_path / "clip.mp4", out, sampling=Sampling(every=4, limit=2))
    assert (report.new, report.kept) == (1, 1)


def test_large_frames_are_scaled_down(segmenter_card, write_picture, tmp_path):
    write_picture(tmp_path / "wide.png", 0, 601, 203)
    label(segmenter_card, tmp_path / "wide.png", tmp_path / "labels", settings=LabelSettings(max_side_px=300))
    stored = read_labels(tmp_path / "labels").items[0].load()
    assert (stored.width_px, stored.height_px) == (300, 102)


@pytest.mark.parametrize("size_px", [(1, 1), (8192, 24), (2, 300)])
def test_frames_of_any_size_have_labels(segmenter_card, write_picture, tmp_path, size_px):
    write_picture(tmp_path / "odd.png", 0, *size_px)
    label(segmenter_card, tmp_path / "odd.png", tmp_path / "labels")
    stored = read_labels(tmp_path / "labels").items[0].load()
    assert stored.accgrad_log2.shape == MacroblockGrid(stored.width_px, stored.height_px).shape


def test_labelling_resumes_and_does_nothing_twice(segmenter_card, stills, tmp_path):
    out = tmp_path / "labels"

    def interrupt(done: int, _expected: int | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(segmenter_card, stills, out, progress=interrupt)
    assert len(read_labels(out)) == 2
    before = [item.file.stat().st_mtime_ns for item in read_labels(out)]
    report = label(segmenter_card, stills, out)
    assert (report.new, report.kept) == (1, 2)
    assert [item.file.stat().st_mtime_ns for item in read_labels(out)][:2] == before
    assert json.loads((out / "manifest.json").read_text())["counts"] == {"labels": 3, "skipped": 0}


def test_a_torn_journal_line_is_passed_over(segmenter_card, stills, tmp_path):
    out = tmp_path / "labels"
    label(segmenter_card, stills, out)
    journal = out / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20])
    assert label(segmenter_card, stills, out).new == 1
    assert len(read_labels(out)) == 3


def test_other_settings_need_another_folder_or_restart(segmenter_card, detector_card, stills, tmp_path):
    out = tmp_path / "labels"
    label(segmenter_card, stills, out)
    with pytest.raises(LabelError, match=r"qp_low 40, not 44.*--restart"):
        label(segmenter_card, stills, out, settings=LabelSettings(qp_low=44))
    with pytest.raises(LabelError, match=r"name segmenter, not detector"):
        label(detector_card, stills, out)
    report = label(segmenter_card, stills, out, settings=LabelSettings(qp_low=44), restart=True)
    assert (report.new, report.kept) == (3, 0)


def test_a_corrected_card_needs_another_folder_or_restart(segmenter_card, stills, tmp_path):
    """Labels of pictures whose colours were swapped say nothing about the DNN that reads them rightly."""
    out = tmp_path / "labels"
    label(segmenter_card, stills, out)
    as_it_was = segmenter_card.read_text()
    segmenter_card.write_text(as_it_was.replace('colour = "rgb"', 'colour = "bgr"'))
    with pytest.raises(LabelError, match=r"input\.colour rgb, not bgr.*--restart"):
        label(segmenter_card, stills, out)
    # What a card says of the DNN beside its answers may change.
    segmenter_card.write_text('licence = "MIT"\n' + as_it_was.replace('licence = ""\n', ""))
    assert label(segmenter_card, stills, out).kept == 3


def test_a_label_set_of_an_older_version_is_gone_on_with(segmenter_card, stills, tmp_path):
    out = tmp_path / "labels"
    label(segmenter_card, stills, out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["card"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert label(segmenter_card, stills, out).kept == 3


def test_one_bad_file_among_good_ones_is_named_and_passed_over(segmenter_card, stills, tmp_path):
    (stills / "empty.png").write_bytes(b"")
    (stills / "torn.mp4").write_bytes(b"not a video")
    report = label(segmenter_card, stills, tmp_path / "labels")
    assert (report.new, report.skipped) == (3, 2)
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert {Path(entry["source"]).name for entry in manifest["skipped"]} == {"empty.png", "torn.mp4"}
    assert all(entry["reason"] for entry in manifest["skipped"])
    assert manifest["counts"] == {"labels": 3, "skipped": 2}


def test_numbered_photographs_are_all_labelled(segmenter_card, write_picture, tmp_path):
    for number, size_px in enumerate([(96, 64), (64, 96), (80, 64), (96, 80)]):
        write_picture(tmp_path / "photos" / f"{number:012}.png", number, *size_px)
    report = label(segmenter_card, tmp_path / "photos", tmp_path / "labels")
    assert (report.new, report.skipped) == (4, 0)


def test_frames_of_a_clip_that_are_not_used_are_counted_and_named(segmenter_card, write_picture, tmp_path):
    for number in range(4):
        write_picture(tmp_path / "frames" / f"{number}.png", number, 96, 64)
    (tmp_path / "frames" / "2.png").write_bytes(b"damaged")
    report = label(segmenter_card, tmp_path / "frames", tmp_path / "labels", sampling=Sampling(every=1))
    assert (report.new, report.skipped) == (3, 1)
    assert "2.png" in report.reasons[0]
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert "2.png" in manifest["skipped"][0]["reason"]


def test_a_repaired_file_is_labelled_by_the_next_run(segmenter_card, stills, write_picture, tmp_path):
    (stills / "empty.png").write_bytes(b"")
    label(segmenter_card, stills, tmp_path / "labels")
    write_picture(stills / "empty.png")
    report = label(segmenter_card, stills, tmp_path / "labels")
    assert (report.new, report.kept, report.skipped) == (1, 3, 0)
    assert read_labels(tmp_path / "labels").skipped == []


def test_nan_gradients_make_no_label(nan_gradient_card, stills, tmp_path):
    with pytest.raises(LabelError, match=r"nothing could be labelled: .*not finite"):
        label(nan_gradient_card, stills, tmp_path / "labels")
    assert len(read_labels(tmp_path / "labels").skipped) == 3


def test_footage_that_has_grown_is_labelled_to_its_new_end(detector_card, write_picture, tmp_path):
    frames, out = tmp_path / "frames", tmp_path / "labels"
    for number in range(3):
        write_picture(frames / f"{number}.png", number, 96, 64)
    assert label(detector_card, frames, out, sampling=ALL).new == 3
    write_picture(frames / "3.png", 3, 96, 64)
    grown = label(detector_card, frames, out, sampling=ALL)
    assert (grown.new, grown.kept) == (1, 3)
    again = label(detector_card, frames, out, sampling=ALL)
    assert (again.new, again.kept) == (0, 4)


def test_other_footage_under_the_same_name_is_not_taken_for_the_labelled_one(
    detector_card, write_picture, tmp_path
):
    frames, out = tmp_path / "frames", tmp_path / "labels"
    for number in range(3):
        write_picture(frames / f"{number}.png", number, 96, 64)
    assert label(detector_card, frames, out, sampling=ALL).new == 3
    for number in range(4):
        write_picture(frames / f"{number}.png", 10 + number, 96, 64)
    with pytest.raises(LabelError, match=r"frames has become other footage since it was labelled.*--restart"):
        label(detector_card, frames, out, sampling=ALL)
    assert label(detector_card, frames, out, sampling=ALL, restart=True).new == 4


def test_a_full_disk_keeps_what_was_finished(segmenter_card, stills, tmp_path, monkeypatch):
    out = tmp_path / "labels"
    written = []

    def fill_up(file: Path, packed: bytes) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        write_whole(file, packed)

    monkeypatch.setattr(labelling, "write_whole", fill_up)
    with pytest.raises(LabelError, match=r"No space left on device.*kept"):
        label(segmenter_card, stills, out)
    monkeypatch.undo()
    assert len(read_labels(out)) == 1
    assert label(segmenter_card, stills, out).new == 2


def test_a_failed_write_leaves_no_half_label(tmp_path, monkeypatch):
    def fill_up(part: Path, packed: bytes) -> None:
        with part.open("wb") as file:
            file.write(packed[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "0000" / "000000.npz", b"a label")
    assert list((tmp_path / "0000").iterdir()) == []


def test_what_can_t_be_stored_without_pickling_is_no_label():
    planes = Planes(np.zeros((32, 32), np.uint8), np.zeros((2, 16, 16), np.uint8))
    damaged = Label(np.zeros((2, 2), np.float32), None, planes, 32, 32, {"bad": np.asarray([object()])})
    with pytest.raises(ValueError, match="Object arrays"):
        pack_label(damaged)


def test_damaged_and_missing_labels_say_so(segmenter_card, stills, tmp_path):
    with pytest.raises(LabelError, match="not a label set"):
        read_labels(tmp_path)
    label(segmenter_card, stills, tmp_path / "labels")
    item = read_labels(tmp_path / "labels").items[0]
    item.file.write_bytes(item.file.read_bytes()[:100])
    with pytest.raises(LabelError, match="delete it and label again"):
        item.load()
    item.file.unlink()
    report = label(segmenter_card, stills, tmp_path / "labels")
    assert (report.new, report.kept) == (1, 2)
    assert all(each.load().width_px for each in read_labels(tmp_path / "labels"))


def test_processes_give_the_same_labels(detector_card, stills, tmp_path):
    (stills / "empty.png").write_bytes(b"")
    label(detector_card, stills, tmp_path / "one")
    report = label(detector_card, stills, tmp_path / "two", workers=2)
    assert (report.new, report.skipped) == (3, 1)
    one, two = (
        {item.source: item.load() for item in read_labels(tmp_path / name)} for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for source, stored in one.items():
        np.testing.assert_allclose(stored.accgrad_log2, two[source].accgrad_log2, atol=0.02)
    # A thread each, and filed in the order of their frames: how many processes there were can't be seen.
    label(detector_card, stills, tmp_path / "three", workers=3)
    assert contents(tmp_path / "three") == contents(tmp_path / "two")


def test_footage_at_an_address_gives_the_same_labels(detector_card, stills, tmp_path):
    pytest.importorskip("fsspec")
    label(detector_card, stills, tmp_path / "path")
    (stills / "broken.png").write_bytes(b"no picture")
    report = label(detector_card, f"file://{stills}", tmp_path / "address")
    labels = read_labels(tmp_path / "address")
    assert (report.new, report.skipped) == (3, 1)
    assert labels.clips == read_labels(tmp_path / "path").clips
    assert labels.items[0].source == f"file://{stills}/picture-0.png"
    assert f"file://{stills}/broken.png is not a picture" in report.reasons[0]
    paths, addresses = (
        {name: file for name, file in contents(tmp_path / out).items() if name.endswith(".npz")}
        for out in ("path", "address")
    )
    assert paths == addresses


def test_a_card_that_does_not_load_stops_worker_processes_with_its_reason(segmenter_card, stills, tmp_path):
    segmenter_card.with_name("segmenter.onnx").unlink()
    with pytest.raises(LabelError, match=r"weights of segmenter can't be read"):
        label(segmenter_card, stills, tmp_path / "labels", workers=2)


@pytest.mark.parametrize(
    "options",
    [
        {"qp_high": 40, "qp_low": 40},
        {"at": "middle"},
        {"max_side_px": 10},
        {"black_box": 1},
    ],
)
def test_senseless_settings_are_bad_use(options):
    with pytest.raises(UsageError):
        LabelSettings(**options)


def test_senseless_sampling_is_bad_use():
    with pytest.raises(UsageError, match="--every"):
        Sampling(every=0)
    with pytest.raises(UsageError, match="--limit"):
        Sampling(limit=0)


def test_frames_cross_process_boundaries_unchanged(textured):
    frame = textured(51, 33)
    frame.time_base = Fraction(1, 25)
    job = Job.of(frame, "clip", "source", 0)
    np.testing.assert_array_equal(job.frame().to_ndarray(format="rgb24"), frame.to_ndarray(format="rgb24"))
