"""Fixtures shared by all tests."""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says what else the machine does.
hypothesis.settings.register_profile("accmpeg", deadline=None)
hypothesis.settings.load_profile("accmpeg")

# Small networks on few cores: PyTorch's threads would only fight for them. Set before it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests started in the background (`make test &`, `nohup`) have Ctrl-C or the closing of a terminal ignored,
# as would the commands that they try.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

DATA_FOLDER = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, photographs and networks; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("ACCMPEG_DATA", DATA_FOLDER))
    if not (folder / "models").is_dir():
        pytest.skip(
            f"no real data at {folder}: set ACCMPEG_DATA to a folder with videos/, images/ and models/"
        )
    return folder


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A verb run inside a test sends logs to that test's stderr, which is closed when the next one logs."""
    root, own = logging.getLogger(), logging.getLogger("accmpeg")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


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
