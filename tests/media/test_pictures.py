"""Pictures as sources: stills, folders of them, and the footage that is found in folders."""

import io
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from accmpeg.errors import SourceError
from accmpeg.media.frames import plane_view, rgb_of
from accmpeg.media.source import find_footage, open_source, read_still


def save_picture(path, frame, codec="png", pix_fmt="rgb24"):
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, pix_fmt
    encoder.time_base = Fraction(1, 25)
    path.write_bytes(b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None)))
    return path


def test_a_folder_of_numbered_pictures(tmp_path, textured):
    for number in (10, 9, 2):
        save_picture(tmp_path / f"{number}.png", textured(64, 48, seed=number))
    (tmp_path / "11.png").write_bytes(b"damaged")
    with open_source(tmp_path) as source:
        frames = list(source)
    assert (source.info.frame_count, source.skipped_frames, source.info.frame_rate) == (4, 1, 25)
    assert [frame.pts for frame in frames] == [0, 1, 2]
    for frame, number in zip(frames, (2, 9, 10), strict=True):
        assert (
            np.abs(plane_view(frame, 0).astype(int) - plane_view(textured(64, 48, seed=number), 0)).mean()
            < 12
        )


def test_pictures_of_several_sizes_are_no_clip(tmp_path, textured):
    save_picture(tmp_path / "1.png", textured(64, 48))
    save_picture(tmp_path / "2.png", textured(48, 64))
    with open_source(tmp_path) as source, pytest.raises(SourceError, match=r"2\.png has 48x64"):
        list(source)


def test_masks_beside_their_pictures_are_no_frames(tmp_path, textured):
    for name in ("1.png", "2.png", "2.webp"):
        save_picture(tmp_path / name, textured(64, 48))
    with (
        open_source(tmp_path) as source,
        pytest.raises(SourceError, match=r"2\.png and 2\.webp are one frame"),
    ):
        list(source)


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(SourceError, match="no pictures"):
        open_source(tmp_path)


def test_one_picture_is_one_frame(tmp_path, textured):
    with open_source(save_picture(tmp_path / "a%03d.png", textured(65, 47))) as source:
        (frame,) = source
    assert (frame.width, frame.height, frame.format.name) == (65, 47, "yuv420p")


@pytest.mark.parametrize(("codec", "pix_fmt"), [("png", "rgb24"), ("png", "gray16be"), ("mjpeg", "yuvj420p")])
def test_stills(tmp_path, textured, codec, pix_fmt):
    original = textured(33, 17)
    for index, value in enumerate((120, 110, 140)):
        plane_view(original, index)[:] = value
    still = read_still(save_picture(tmp_path / "still.jpg", original, codec, pix_fmt))
    assert (still.width, still.height, still.format.name, still.pts) == (33, 17, "yuv420p", 0)
    assert np.abs(plane_view(still, 0).astype(int) - 120).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_come_upright(tmp_path, orientation):
    coarse = np.random.default_rng(0).integers(60, 190, (5, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(coarse).resize((66, 34)).save(tmp_path / "held.png", exif=exif)
    with Image.open(tmp_path / "held.png") as photograph:
        expected = np.asarray(ImageOps.exif_transpose(photograph)).astype(int)
    seen = rgb_of(read_still(tmp_path / "held.png")).astype(int)
    assert seen.shape == expected.shape
    assert np.abs(seen - expected).mean() < 5


def test_a_still_that_is_missing(tmp_path):
    with pytest.raises(SourceError, match=r"x\.jpg"):
        read_still(tmp_path / "x.jpg")


def test_footage_is_found_in_folders(tmp_path, textured):
    for path in (
        "a/clip.MP4",
        "a/b/000001.jpg",
        "a/b/000002.jpg",
        "a/photos/cat.jpg",
        "a/photos/3.png",
        "a/photos/pair.MPO",
        "a/sphere.insv",
        "a/x.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for hidden in ("a/.trash/old.mp4", "a/._clip.mp4"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    found = find_footage([tmp_path / "a"])
    assert [(footage.kind, footage.clip) for footage in found] == [
        ("video", "a/clip"),
        ("video", "a/sphere"),
        ("frames", "a/b"),
        ("still", "a/photos/3"),
        ("still", "a/photos/cat"),
        ("still", "a/photos/pair"),
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "clip.MP4").touch()
    again = find_footage([tmp_path / "a" / "clip.MP4", str(tmp_path / "other" / "clip.MP4")])
    assert [footage.clip for footage in again] == ["clip", "clip-2"]


def test_names_that_are_no_utf8_become_names_of_clips_that_can_be_written(tmp_path):
    """As archives of other systems leave them; `train` and the report of `evaluate` ended in a traceback."""
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).touch()
    (found,) = find_footage([tmp_path])
    assert found.path.exists()
    assert found.clip == f"{tmp_path.name}/caf\\udce9"


def test_footage_that_is_given_twice_counts_once(tmp_path):
    """A comparison over clips must not count one of them twice."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link.mp4").symlink_to("b.mp4")
    found = find_footage([tmp_path / "a.mp4", tmp_path, tmp_path / "." / "a.mp4"])
    assert [footage.path.name for footage in found] == ["a.mp4", "b.mp4"]


def test_folders_behind_links_are_walked_once_and_not_in_circles(tmp_path):
    disk, site = tmp_path / "disk", tmp_path / "site"
    disk.mkdir()
    site.mkdir()
    (disk / "yard.mp4").touch()
    (tmp_path / "other.mp4").touch()
    for name, target in (("cam1", disk), ("cam2", disk), ("up", tmp_path), ("here", site)):
        (site / name).symlink_to(target)
    assert [footage.clip for footage in find_footage([site])] == ["site/cam1/yard"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path, caplog):
    (tmp_path / "site" / "lost+found").mkdir(mode=0, parents=True)
    (tmp_path / "site" / "yard.mp4").touch()
    assert len(find_footage([tmp_path / "site"])) == 1
    assert "lost+found" in caplog.text


def test_footage_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        find_footage([tmp_path / "nowhere"])
    with pytest.raises(SourceError, match="no videos or pictures"):
        find_footage([tmp_path])


def save_sizes(folder, sizes, **options):
    folder.mkdir()
    for number, size_px in enumerate(sizes, start=1):
        Image.new("RGB", size_px, (20 * number, 90, 90)).save(folder / f"{number:06}.jpg", **options)


def test_numbered_photographs_of_several_sizes_are_stills(tmp_path):
    save_sizes(tmp_path / "photos", [(160, 120)] * 11 + [(120, 160)])
    save_sizes(tmp_path / "frames", [(160, 120)] * 3)
    (tmp_path / "frames" / "4.jpg").write_bytes(b"damaged")
    found = find_footage([tmp_path])
    assert [footage.kind for footage in found] == ["frames"] + ["still"] * 12


@pytest.mark.parametrize("name", ["4.jpg", "4.png"])
def test_a_numbered_picture_cut_off_anywhere_is_passed_over(tmp_path, name):
    save_sizes(tmp_path / "frames", [(64, 48)] * 3)
    whole = io.BytesIO()
    Image.new("RGB", (64, 48)).save(whole, "JPEG" if name.endswith("jpg") else "PNG")
    head = whole.getvalue()[:200]
    frame_header = head.find(b"\xff\xc0")
    for cut in {1, 2, 5, 12, 17, 20, 23, *range(frame_header, frame_header + 10)} - {-1}:
        (tmp_path / "frames" / name).write_bytes(head[:cut])
        assert [footage.kind for footage in find_footage([tmp_path])] == ["frames"]
    with open_source(tmp_path / "frames") as source:
        assert len(list(source)) == 3
    assert name in source.skipped_pictures[0]


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_photograph_that_ends_early_is_no_picture(tmp_path, options):
    """The rest of it would be green."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    noise.save(tmp_path / "whole.jpg", quality=90, **options)
    read_still(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(SourceError, match=r"half\.jpg"):
        read_still(tmp_path / "half.jpg")


def test_a_small_photograph_may_have_a_film_behind_it(tmp_path, make_clip):
    Image.new("RGB", (128, 96), (200, 90, 30)).save(tmp_path / "still.jpg")
    moving = (tmp_path / "still.jpg").read_bytes() + make_clip().read_bytes()
    (tmp_path / "motion.jpg").write_bytes(moving)
    assert rgb_of(read_still(tmp_path / "motion.jpg"))[..., 0].mean() > 150


def test_tiff_files_that_would_come_black_are_refused_with_the_way_out(tmp_path):
    picture = Image.new("RGB", (64, 48), (200, 90, 30))
    picture.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert rgb_of(read_still(tmp_path / "lzw.tif"))[..., 0].mean() > 150
    picture.save(tmp_path / "jpeg.tif", compression="jpeg")
    with pytest.raises(SourceError, match=r"jpeg\.tif: it is a TIFF of tiles or of JPEGs.*OUT\.png"):
        read_still(tmp_path / "jpeg.tif")


def test_rendered_light_becomes_a_picture_of_the_usual_brightness(tmp_path):
    """0.216 of full light is half of full brightness, 128."""
    frame = av.VideoFrame(64, 48, "gbrpf32le")
    for plane in frame.planes:
        plane.update(np.full(plane.buffer_size // 4, 0.216, np.float32).tobytes())
    with av.open(tmp_path / "a.exr", "w", format="image2") as container:
        stream = container.add_stream("exr", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gbrpf32le"
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert abs(rgb_of(read_still(tmp_path / "a.exr")).mean() - 128) < 3


def test_a_tiff_of_luma_and_chroma_has_their_full_range(tmp_path):
    Image.new("RGB", (64, 48), (40, 60, 210)).convert("YCbCr").save(tmp_path / "a.tif")
    assert np.abs(rgb_of(read_still(tmp_path / "a.tif")).mean((0, 1)) - (40, 60, 210)).max() < 4


@pytest.mark.parametrize("tag", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_raw_files_of_cameras_are_refused_with_the_way_out(tmp_path, tag):
    """NEF and the like begin with a thumbnail; of DNG the sensor's values came, dark and in wrong colours."""
    Image.new("RGB", (160, 120), (200, 90, 30)).save(tmp_path / "a.nef", "TIFF", tiffinfo=tag)
    with pytest.raises(SourceError, match=r"a\.nef: it is a camera's raw file.* develops it"):
        read_still(tmp_path / "a.nef")


def test_photographs_held_upright_and_across_differ_in_size(tmp_path):
    save_sizes(tmp_path / "photos", [(160, 120)] * 2)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (160, 120)).save(tmp_path / "photos" / "3.jpg", exif=exif)
    assert [footage.kind for footage in find_footage([tmp_path])] == ["still"] * 3


def test_footage_is_found_in_natural_order(tmp_path):
    for number in (10, 9, 2):
        (tmp_path / f"cam{number}").mkdir()
        for part in (11, 1, 3):
            (tmp_path / f"cam{number}" / f"part{part}.mp4").touch()
    assert [f"{footage.path.parent.name} {footage.path.stem}" for footage in find_footage([tmp_path])] == [
        f"cam{number} part{part}" for number in (2, 9, 10) for part in (1, 3, 11)
    ]


def test_a_picture_without_a_decoder_is_named(tmp_path):
    path = tmp_path / "a.jxl"
    path.write_bytes(
        bytes.fromhex(
            "ff0a43060012880200e0005de5120000152aa38c1bbc9cebf9f24387c5b48deb0c6db56d6149a2c8383649277048128b20ee26c703000042ccb370007682a1292a4900"
        )
    )
    with pytest.raises(SourceError, match=r"a\.jxl: .*no decoder for it: make it a png or jpg"):
        read_still(path)


def test_unread_pictures_of_a_folder_are_named(tmp_path):
    save_sizes(tmp_path / "frames", [(64, 48)] * 3)
    (tmp_path / "frames" / "2.dng").write_bytes(b"raw")
    with open_source(tmp_path / "frames") as source:
        assert len(list(source)) == 3
    assert source.skipped_frames == 1
    assert "2.dng" in source.skipped_pictures[0]


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "I;16", "RGB", "RGBA"])
def test_pictures_without_a_matrix_of_their_own_are_tagged_as_what_they_become(tmp_path, mode):
    levels = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, axis=0)
    if mode == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(levels).convert("RGB" if mode == "P" else mode)
        picture = picture.quantize(64) if mode == "P" else picture
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        grey = saved.point(lambda value: value / 257).convert("L") if mode == "I;16" else saved.convert("L")
        expected = np.asarray(grey).astype(int)
    still = read_still(tmp_path / "a.png")
    assert (int(still.colorspace), int(still.color_range)) == (6, 1)  # BT.601, limited range
    assert np.abs(rgb_of(still).mean(axis=2) - expected).mean() < 4
