"""Devices of this machine, with a stand-in for the driver where there is no camera (`fake_camera.c`)."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from accmpeg.errors import SourceError
from accmpeg.media.source import open_source
from accmpeg.media.v4l2 import is_device, look_at

DEVICE = "/dev/video42"


def test_devices_are_known_through_links_and_while_unplugged(tmp_path: Path) -> None:
    link = tmp_path / "front-door"
    link.symlink_to(DEVICE)
    (tmp_path / "again").symlink_to("front-door")
    for path in (DEVICE, "/dev/v4l/by-id/usb-Maker_Camera-video-index0", link, tmp_path / "again"):
        assert is_device(Path(path))
        with pytest.raises(SourceError, match="no such camera is plugged in") as caught:
            open_source(path)
        assert str(path) in str(caught.value)


def test_other_files_are_no_devices(tmp_path: Path) -> None:
    clip = tmp_path / "video0"
    clip.touch()
    assert not is_device(clip)
    assert not is_device(Path("/dev/null"))
    assert not is_device(tmp_path / "none")


def test_a_device_node_of_any_name(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "camera", stat.S_IFCHR | 0o600, os.makedev(81, 63))
    except PermissionError:
        pytest.skip("only root makes device nodes")
    (tmp_path / "link").symlink_to("camera")
    assert is_device(tmp_path / "camera")
    assert is_device(tmp_path / "link")
    with pytest.raises(OSError, match="No such device"):
        look_at(tmp_path / "camera")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which programs find a camera at /dev/video42, and at /dev/v4l/by-… names of it."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for the stand-in camera")
    folder = tmp_path_factory.mktemp("driver")
    library, picture = folder / "camera.so", folder / "picture.jpg"
    source = Path(__file__).with_name("fake_camera.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(picture)
    return os.environ | {
        "LD_PRELOAD": str(library),
        "FAKE_CAMERA": DEVICE,
        "FAKE_CAMERA_JPEG": str(picture),
        "FAKE_CAMERA_UNPLUGGED": str(folder / "unplugged"),
    }


Run = Callable[[str], list[str]]


@pytest.fixture
def run(driver: dict[str, str], tmp_path: Path) -> Run:
    """Runs lines of Python beside the camera; returns the lines that they print."""
    before = (
        "import sys\nfrom fractions import Fraction\nfrom pathlib import Path\n"
        "from accmpeg.errors import SourceError\nfrom accmpeg.media.inputs import InputOptions\n"
        "from accmpeg.media.source import open_source\nfrom accmpeg.media.v4l2 import devices\n"
        "def show(path, **asked):\n"
        "    try:\n"
        "        with open_source(path, InputOptions(**asked)) as source:\n"
        "            frames = [frame for frame, _ in zip(source, range(3))]\n"
        "            info = source.info\n"
        "            print(info.width_px, info.height_px, info.frame_rate, info.is_live, len(frames))\n"
        "    except SourceError as error:\n"
        "        print(error)\n"
    )

    def program(lines: str) -> list[str]:
        command = [sys.executable, "-c", before + lines]
        done = subprocess.run(
            command, cwd=tmp_path, env=driver, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return program


def test_what_is_asked_of_a_device_is_what_it_gives(run: Run, tmp_path: Path) -> None:
    (tmp_path / "usb-Maker_Camera-video-index0").symlink_to(DEVICE)
    assert run(
        f"show('{DEVICE}')\n"
        "show('usb-Maker_Camera-video-index0')\n"
        f"show('{DEVICE}', pixel_format='MJPG', frame_rate=Fraction(15))\n"
        f"show('{DEVICE}', pixel_format='mjpeg', size_px=(320, 240))\n"
        f"show('{DEVICE}', pixel_format='yuyv', size_px=(160, 120), frame_rate=Fraction(30))\n"
    ) == [
        "320 240 30 True 3",
        "320 240 30 True 3",
        "320 240 15 True 3",
        "320 240 30 True 3",
        "160 120 30 True 3",
    ]


def test_what_a_device_does_not_offer_is_refused_with_its_offers(run: Run) -> None:
    size, form, rate = run(
        f"show('{DEVICE}', size_px=(640, 480))\n"
        f"show('{DEVICE}', pixel_format='nv12')\n"
        f"show('{DEVICE}', pixel_format='yuyv422', frame_rate=Fraction(15))\n"
    )
    assert "it gives 320x240, not --input-size 640x480" in size
    assert "it gives yuyv422, not --input-format nv12" in form
    assert "it gives 30 frames/s, not --input-rate 15" in rate
    for said in (size, form, rate):
        assert "it offers mjpeg 320x240 at 30, 15/s; yuyv422 320x240 at 30/s; yuyv422 160x120" in said


def test_the_list_of_devices_has_their_offers_and_lasting_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "video7").symlink_to(DEVICE)
    (tmp_path / "video8").mkdir()  # a device that can't be asked
    names = tmp_path / "v4l" / "by-path"
    names.mkdir(parents=True)
    (names / "platform-usb-0:1.2").symlink_to("../../video7")
    first, second = run("for each in devices(Path('.')): print(each)\n")
    assert "card='Stand-in Camera'" in first
    assert "by-path/platform-usb-0:1.2" in first
    assert "Mode(format='yuyv422', size_px=(160, 120), rates=(Fraction(30, 1),))" in first
    assert "Is a directory" in second


def test_a_camera_goes_on_when_it_is_plugged_in_again(run: Run) -> None:
    said = run(
        "import os, threading\n"
        "from accmpeg.camera import Camera, CameraOptions\n"
        "from accmpeg.protocol.backoff import Backoff\n"
        "Backoff.FIRST_S = 0.2\n"
        "plug = Path(os.environ['FAKE_CAMERA_UNPLUGGED'])\n"
        "options = CameraOptions(publish=('out.ts',), limit=30)\n"
        f"with Camera('{DEVICE}', None, None, options) as camera:\n"
        "    while camera.stats.get('captured') < 5: threading.Event().wait(0.01)\n"
        "    plug.touch()\n"
        "    threading.Event().wait(0.5)\n"
        "    plug.unlink()\n"
        "    camera.wait()\n"
        "    print(camera.stats.get('captured'), camera.stats.get('source_reopened'))\n"
        "show('out.ts')\n"
    )
    assert said[0] == "30 1"
    assert said[1].startswith("320 240")
