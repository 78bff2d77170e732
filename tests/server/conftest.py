"""A real encoder's stream of the embedded scene, and real servers with the real detector."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from accmpeg.demo import assets_path
from accmpeg.server import Limits, ServerThread
from tests.server.clients import Recorded, record, settings_of


@pytest.fixture(scope="session")
def recorded() -> Recorded:
    return record()


@pytest.fixture(scope="session")
def card() -> Path:
    return assets_path() / "detector.card.toml"


@pytest.fixture
def start(card: Path) -> Iterator[Callable[..., ServerThread]]:
    """Starts servers with changed settings, and stops them."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(ServerThread(settings_of(card, **changes)))


@pytest.fixture(scope="module")
def server(card: Path) -> Iterator[ServerThread]:
    """One server for tests that leave it as it was: one hostile client must not harm the next test."""
    limits = Limits(handshake_s=2, idle_s=20, max_frame_pixels=1920 * 1080, damaged_in_a_row=10)
    with ServerThread(settings_of(card, limits=limits)) as running:
        yield running


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    paths = tmp_path / "server.pem", tmp_path / "server.key"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    options += " -addext subjectAltName=IP:127.0.0.1"
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(["openssl", *options.split(), *files], check=True, capture_output=True)
    return paths
