"""Names that go over the wire, and a default that no other machine has."""

import os
import platform
from typing import Any

import pytest

from accmpeg.camera import Camera, CameraOptions
from accmpeg.camera.naming import address_name, checked_name, default_name
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.cli.doctor_server import examine_server
from accmpeg.errors import UsageError
from accmpeg.protocol.wire import is_name

SERVER = ServerAddress.parse("ws://127.0.0.1:9")


@pytest.mark.parametrize("name", ["front door", "", "a" * 65, "-gate", "gate\n", "garten-tür", "a/b"])
def test_a_name_that_none_can_have_is_one_sentence(name: str, scene: Any) -> None:
    for use in (
        lambda: checked_name(name, "--name"),
        lambda: Camera(scene(4, 5), SERVER, None, CameraOptions(name=name)),
        lambda: Camera(scene(4, 5), SERVER, None, CameraOptions(dnn=name)),
        lambda: examine_server(SERVER, name),
    ):
        with pytest.raises(UsageError, match="letters, digits") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_the_message_offers_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"such as front-door$"):
        checked_name("front door", "--name")


def test_the_default_differs_between_machines_and_sources_and_stays() -> None:
    names = [default_name(source, machine) for source in ("/dev/video0", "/dev/video2") for machine in "ab"]
    assert len(set(names)) == 4
    assert names == [default_name(s, m) for s in ("/dev/video0", "/dev/video2") for m in "ab"]
    assert default_name("/dev/video0") == default_name("/dev/video0")
    assert all(is_name(name) for name in names)


def test_the_channels_of_a_recorder_differ_and_its_passwords_do_not() -> None:
    address = "rtsp://me:{0}@nvr/cam/realmonitor?channel={1}&password={0}"
    names = [address_name(address.format(*each)) for each in (("s3cret", 1), ("s3cret", 2), ("other", 1))]
    assert names[0] != names[1]
    assert names[0] == names[2]
    assert address_name("clip.mp4") is None


def test_a_file_whose_name_is_no_utf8_has_a_name() -> None:
    assert is_name(default_name(os.fsdecode(b"caf\xe9.mp4")))


@pytest.mark.parametrize("host", ["raspberrypi", "küche.lan", "", "-", "h" * 200, "my host"])
def test_any_host_gives_a_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: host)
    assert is_name(default_name("rtsp://user:secret@camera/stream"))


def test_what_a_server_can_not_take_is_one_sentence(scene: Any) -> None:
    camera = Camera(scene(4, 5), SERVER, None, CameraOptions(size_px=(12, 12)))
    with pytest.raises(UsageError, match="width_px is 12") as caught:
        camera.start()
    assert "\n" not in str(caught.value)
