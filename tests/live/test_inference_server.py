"""Server DNNs on a real MLServer: the same answers, and frames while it is killed and started again."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from accmpeg.demo import assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.base import load_dnn
from tests.dnn.inference_servers import DETECTOR, remote_card
from tests.helpers import free_port, until
from tests.live.conftest import four_seconds
from tests.live.programs import Serve, Stream, sequences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PACKAGES = ("mlserver==1.7.1", "onnxruntime")
INSTALL_S = 1200.0
RUNTIME = Path(__file__).parent / "mlserver"


@pytest.fixture(scope="session")
def mlserver() -> Path:
    """The program, in an environment of its own that is kept: it pins versions that differ from ours.

    `ACCMPEG_MLSERVER` names one that is there.
    """
    given = os.environ.get("ACCMPEG_MLSERVER")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "accmpeg-tests" / f"mlserver-1.7.1-py{sys.version_info[0]}{sys.version_info[1]}"
    done = home / "installed"
    if not done.exists():
        shutil.rmtree(home, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", home],
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
            except (subprocess.SubprocessError, OSError) as error:
                said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
                pytest.skip(f"no MLServer here: it can't be installed ({said})")
        done.touch()
    return home / "bin" / "mlserver"


class MlServer:
    """MLServer with the demo's detector, ready when `with` is entered; killed at its end."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.http, self.grpc, metrics = free_port(), free_port(), free_port()
        self._program, self._folder = program, folder
        shutil.copytree(RUNTIME, folder, dirs_exist_ok=True)
        shutil.copy(assets_path() / "detector.onnx", folder)
        settings = {
            "host": "127.0.0.1",
            "http_port": self.http,
            "grpc_port": self.grpc,
            "metrics_port": metrics,
            "grpc_max_message_length": 64 << 20,
            "parallel_workers": 0,
        }
        (folder / "settings.json").write_text(json.dumps(settings))

    def __enter__(self) -> "MlServer":
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        with (self._folder / "mlserver.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "start", "."],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                env=environment,
            )
        until(self._is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "mlserver.log").read_text()[-2000:]
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.http}/v2/models/detector/ready"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        return False

    def card(self, like: Path, folder: Path, protocol: str) -> Path:
        """The card of its model, which is else like another card."""
        port = self.grpc if protocol == "grpc" else self.http
        return remote_card(folder, f"{protocol}://127.0.0.1:{port}", like=like)


@pytest.fixture
def running(mlserver: Path, tmp_path: Path) -> Iterator[MlServer]:
    with MlServer(mlserver, tmp_path / "mlserver") as server:
        yield server


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_same_detections_as_here(running: MlServer, tmp_path: Path, protocol: str) -> None:
    here, there = load_dnn(DETECTOR, threads=1), load_dnn(running.card(DETECTOR, tmp_path, protocol))
    frames = list(SceneSource(SceneSpec(87, 640, 360, frame_count=4)))
    for ours, theirs in zip(there.infer_many(frames), here.infer_many(frames), strict=True):
        assert len(theirs) > 0
        np.testing.assert_array_equal(ours.xyxy, theirs.xyxy)
        np.testing.assert_array_equal(ours.confidence, theirs.confidence)
        np.testing.assert_array_equal(ours.class_id, theirs.class_id)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_killed_inference_server_disconnects_no_camera(
    running: MlServer, card: Path, tmp_path: Path, protocol: str
) -> None:
    footage = four_seconds(tmp_path / "scene.mp4", 10)
    remote = running.card(card, tmp_path, protocol)
    with (
        Serve(tmp_path, card=remote) as server,
        Stream(tmp_path, footage, server.url, "--name", "gate", "--drop", "none") as camera,
    ):

        def answers(dropped: str | None, after: int = -1) -> list[int]:
            return [
                each["sequence"]
                for each in camera.results()
                if each["dropped"] == dropped and each["sequence"] > after
            ]

        until(lambda: len(answers(None)) >= 10)
        running.kill()
        until(lambda: len(answers("failed")) >= 5)
        with running:
            lost = answers("failed")[-1]
            until(lambda: len(answers(None, lost)) >= 10)
            camera.terminate()
        told = camera.statistics()
        server.terminate()
    assert told["connections"] == 1
    (found,) = sequences(camera.results()).values()
    assert found == list(range(told["encoded"]))  # all are answered, in order
    errors = server.stderr.read_text()
    assert f"nothing listens at 127.0.0.1:{running.grpc if protocol == 'grpc' else running.http}" in errors
    reached = [line for line in errors.splitlines() if "inference server reached" in line]
    assert len(reached) >= 3  # by both connections at the start, and by one of them at least when it was back
    assert json.loads(reached[-1])["server"].startswith("mlserver")
