"""A server that offers a profile and an AccModel, and a camera that needs only its address and a token."""

from pathlib import Path
from typing import Any

from accmpeg.camera import Camera, CameraOptions
from accmpeg.camera.options import ADOPTABLE
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.demo import assets_path
from accmpeg.server.run import ServerThread
from accmpeg.server.settings import ServerSettings
from accmpeg.server.tokens import Tokens
from tests.camera.conftest import HEIGHT_PX, WIDTH_PX
from tests.helpers import until

DETECTOR = assets_path() / "detector.card.toml"
ACCMODEL = assets_path() / "accmodel.card.toml"
TOKEN = "gate-token-0123456789"
PROFILE = f"""
size = "160x90"
b-frames = 2
mbtree-frames = 0
policy = "graded"
preset = "superfast"
aq-mode = 1
crf = 24.0
every = 5
map-strength = 1.5
map-margin = 1
max-bitrate = "700k"

[profile]
dnn = "accmpeg-demo-detector"
dnn-sha256 = ""
source = "{WIDTH_PX}x{HEIGHT_PX}"
"""


def written(folder: Path, text: str = PROFILE) -> Path:
    file = folder / "site.toml"
    file.write_text(text)
    return file


def settings(folder: Path, **changes: Any) -> ServerSettings:
    tokens = Tokens({"cameras": {"*": TOKEN}})
    given = {"accmodel": ACCMODEL, "port": 0, "tokens": tokens} | changes
    if "site_profile" not in given:
        given["site_profile"] = written(folder)
    return ServerSettings(dnns=(DETECTOR,), **given)


def camera(
    scene: Any,
    url: str,
    cache: Path,
    *,
    frames: int = 400,
    frame_rate: int = 20,
    token: str = TOKEN,
    **options: Any,
) -> Camera:
    """As the command line makes it of an address and a token."""
    own = CameraOptions(
        **{
            "policy": "feedback",
            "adopts": ADOPTABLE,
            "cache": cache,
            "gop_frames": 50,
            "name": "gate",
            **options,
        }
    )
    return Camera(scene(frames, frame_rate), ServerAddress.parse(url, token=token), None, own)


def size_at(server: ServerThread) -> tuple[int, int]:
    record = server.running.core.book.records["gate"]
    return record.width_px, record.height_px


def more(running: Camera) -> None:
    """Waits for further results."""
    results = running.stats.get("results")
    until(lambda: running.stats.get("results") > results + 5)
