"""A site's footage cut into parts: by the frames that are there, wherever it lies, with its labels."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.plan import footage_clips
from accmpeg.evaluation.profile.parts import cut
from accmpeg.evaluation.settings import ProfileSettings
from accmpeg.media.source import find_footage, open_source


def write_video(path: Path, frames: int, rate: int = 25, **options: str) -> Path:
    with av.open(path, "w", options=options) as file:
        stream = file.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(frames):
            picture = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "yard.mkv", 80)


def test_a_file_without_its_end_is_cut_by_the_frames_that_are_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 240, movflags="faststart")
    content = whole.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content[: len(content) * 2 // 3])
    parts = cut(find_footage([broken]))
    frames = [len(part.open(None).frames) for part in (*parts.choice, *parts.judging)]
    assert max(frames) - min(frames) <= 1, "of the last frame a part is missing"


def test_a_late_part_is_the_frames_from_the_start(tmp_path: Path) -> None:
    video = write_video(tmp_path / "yard.mkv", 600)
    spec = footage_clips(find_footage([video]))[0].part("late", 503, 20, 3)
    with open_source(video) as source:
        expected = [frame.to_ndarray() for frame in list(source)[503:563:3]]
    for frame, right in zip(spec.open(None).frames, expected, strict=True):
        assert np.array_equal(frame.to_ndarray(), right)


def test_a_cover_before_the_video_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(write_video(tmp_path / "yard.mp4", 80)) as film, av.open(path, "w") as file:
        cover = file.add_stream("mjpeg", rate=25, options={"strict": "unofficial"})
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        copied = file.add_stream_from_template(film.streams.video[0])
        file.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        file.mux(cover.encode(None))
        for packet in film.demux(video=0):
            if packet.size:
                packet.stream = copied
                file.mux(packet)
    parts = cut(find_footage([path]))
    assert parts.size_px == (64, 48)
    assert [len(part.open(None).frames) for part in (*parts.choice, *parts.judging)] == [40, 40]


def test_footage_at_an_address(clip: Path) -> None:
    pytest.importorskip("fsspec")
    parts = cut(find_footage([f"file://{clip}"]))
    assert [part.name for part in (*parts.choice, *parts.judging)] == ["yard@0", "yard@40"]
    assert len(parts.judging[0].open(None).frames) == 40


@pytest.mark.parametrize(
    ("frames", "results_per_second", "lengths", "step"),
    [
        (300, 5, [30] * 4, 1),  # of every fifth frame, from four of them
        (300, None, [150], 1),
        (700, None, [116] * 3, 1),
        (900, None, [96] * 4, 1),
        (1540, 12.5, [96] * 4, 2),
    ],
)
def test_short_footage_is_used_to_its_last_frame_and_measured_on_every_one(
    frames: int, results_per_second: float | None, lengths: list[int], step: int, tmp_path: Path
) -> None:
    clip = find_footage([write_video(tmp_path / "yard.mkv", frames)])
    parts = cut(clip, results_per_second=results_per_second)
    for half in (parts.choice, parts.judging):
        assert [len(part.open(None).frames) for part in half] == lengths
    assert parts.step == step
    starts = [int(part.name.split("@")[1]) for part in (*parts.choice, *parts.judging)]
    assert starts == sorted(set(starts))


def test_the_first_parts_are_of_several_clips(tmp_path: Path) -> None:
    for name in ("north", "south"):
        write_video(tmp_path / f"{name}.mkv", 400)
    names = [part.name for part in cut(find_footage([tmp_path])).choice]
    assert names == ["north@0", "south@0", "north@104", "south@104"]


def test_clips_of_several_rates_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "north.mkv", 80, rate=25)
    write_video(tmp_path / "south.mkv", 80, rate=30)
    with pytest.raises(UsageError, match=r"north 25 frames/s, south 30 frames/s.*give one rate"):
        cut(find_footage([tmp_path]))
    # 29.97 and 30 are one, and so is what is sent of 25 and 50.
    (tmp_path / "south.mkv").unlink()
    write_video(tmp_path / "fast.mkv", 160, rate=50)
    parts = cut(find_footage([tmp_path]), results_per_second=25)
    assert parts.frame_rate == 25
    assert {len(part.open(None).frames) for part in parts.choice} == {40}


def test_labels_that_no_clip_has_are_refused_and_not_passed_over(clip: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "other.json").write_text("{}")
    for folder in (labels, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match=r"has none of yard\.json: call each file like its clip"):
            footage_clips(find_footage([clip]), folder)


def test_a_part_beyond_the_labels_keeps_its_frames(clip: Path, tmp_path: Path) -> None:
    images = [{"id": frame, "file_name": f"{frame}.png", "frame_index": frame} for frame in range(60)]
    labels = tmp_path / "labels"
    labels.mkdir()
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "car"}]}
    (labels / f"{clip.stem}.json").write_text(json.dumps(document))
    parts = cut(find_footage([clip]), labels=labels)
    opened = [part.open(None) for part in (*parts.choice, *parts.judging)]
    assert len({len(each.frames) for each in opened}) == 1
    first, *_, last = opened
    assert first.labels is None or len(first.labels) == len(first.frames)
    assert last.labels is None


def test_clips_of_one_name_have_their_own_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("north", "south"):
        (tmp_path / "site" / folder).mkdir(parents=True)
        write_video(tmp_path / "site" / folder / "cam.mkv", 4)
    labels = tmp_path / "labels" / "site" / "north"
    labels.mkdir(parents=True)
    (labels / "cam.json").write_text("{}")
    (labels.parent.parent / "cam.json").write_text("{}")
    both = footage_clips(find_footage([tmp_path / "site"]), tmp_path / "labels")
    assert [spec.open.labels for spec in both] == [labels / "cam.json", None]  # type: ignore[attr-defined]
    (told,) = caplog.messages
    assert told.endswith("labels has none of site/south/cam.json")


def test_pictures_that_are_no_clip_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a numbered folder in which one picture has another size."""
    write_video(tmp_path / "cam.mkv", 4)
    for number, side_px in enumerate((32, 32, 48)):
        Image.new("L", (side_px, 32)).save(tmp_path / f"{number}.png")
    assert len(footage_clips(find_footage([tmp_path]))) == 1
    assert caplog.messages[0].startswith(f"3 pictures, such as {tmp_path / '0.png'}, are left out")


@pytest.mark.parametrize("keep", [0.901, 0.7, 0.98, float("nan")])
def test_a_share_between_hundredths_is_refused(keep: float) -> None:
    with pytest.raises(UsageError, match=r"give 0\.80 to 0\.95"):
        ProfileSettings(keep=keep)
