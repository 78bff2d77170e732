"""Server DNNs on real inference servers: the same answers, and what cameras see of one that is killed."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from accmpeg.demo import assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.base import load_dnn
from tests.dnn.inference_servers import remote_card
from tests.helpers import free_port, until
from tests.live.conftest import four_seconds
from tests.live.programs import Serve, Stream, sequences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

VERSIONS = {"mlserver": "1.7.1", "kserve": "0.21.0"}
INSTALL_S = 1800.0


class InferenceServer:
    """MLServer or KServe with the demo's detector, ready when `with` is entered; killed at its end."""

    def __init__(self, kind: str, environment: Path, folder: Path) -> None:
        self.kind = kind
        self.ports = {"http": free_port(), "grpc": free_port()}
        self._folder = folder
        shutil.copytree(Path(__file__).parent / f"{kind}_runtime", folder, dirs_exist_ok=True)
        shutil.copy(assets_path() / "detector.onnx", folder)
        settings = {
            "host": "127.0.0.1",
            "http_port": self.ports["http"],
            "grpc_port": self.ports["grpc"],
            "metrics_port": free_port(),
            "grpc_max_message_length": 64 << 20,
            "parallel_workers": 0,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        programs = environment / "bin"
        self._command = {
            "mlserver": [programs / "mlserver", "start", "."],
            "kserve": [programs / "python", "detector.py", *map(str, self.ports.values())],
        }[kind]

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, env=environment
            )
        until(self._is_ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def card(self, like: Path, folder: Path, protocol: str, **options: Any) -> Path:
        """The card of its model, which is else like another card."""
        address = f"{protocol}://127.0.0.1:{self.ports[protocol]}"
        return remote_card(folder, address, like=like, timeout_ms=60_000, **options)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        url = f"http://127.0.0.1:{self.ports['http']}/v2/models/detector/ready"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
        return False


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InferenceServer]:
    kind = getattr(request, "param", "mlserver")
    with InferenceServer(kind, environment_of(kind), tmp_path / kind) as server:
        yield server


def environment_of(kind: str) -> Path:
    """An environment of its own, which is kept: such servers pin versions that differ from ours.

    `ACCMPEG_MLSERVER` and `ACCMPEG_KSERVE` name one that is there.
    """
    given = os.environ.get(f"ACCMPEG_{kind.upper()}")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "accmpeg-tests" / f"{kind}-{VERSIONS[kind]}-{sys.version_info[0]}.{sys.version_info[1]}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        for command in (
            [sys.executable, "-m", "venv", folder],
            [*pip, f"{kind}=={VERSIONS[kind]}", "onnxruntime"],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
            except (subprocess.SubprocessError, OSError) as error:
                said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
                pytest.skip(f"no {kind} here, it can't be installed: {said}")
        (folder / "installed").touch()
    return folder


@pytest.mark.parametrize(
    ("running", "protocol", "options"),
    [
        ("mlserver", "http", {}),
        ("mlserver", "grpc", {}),
        ("kserve", "http", {"binary": True}),
        ("kserve", "grpc", {}),
    ],
    indirect=["running"],
    ids=str,
)
def test_the_same_detections_as_here(
    running: InferenceServer, card: Path, tmp_path: Path, protocol: str, options: dict[str, Any]
) -> None:
    here, there = load_dnn(card, threads=1), load_dnn(running.card(card, tmp_path, protocol, **options))
    frames = list(SceneSource(SceneSpec(87, 640, 360, frame_count=4)))
    for ours, theirs in zip(there.infer_many(frames), here.infer_many(frames), strict=True):
        assert len(theirs) > 0
        np.testing.assert_array_equal(ours.xyxy, theirs.xyxy)
        np.testing.assert_array_equal(ours.confidence, theirs.confidence)
        np.testing.assert_array_equal(ours.class_id, theirs.class_id)


@pytest.mark.parametrize(("protocol", "frame_rate"), [("http", 3), ("grpc", 10)])
def test_a_killed_inference_server_disconnects_no_camera(
    running: InferenceServer, card: Path, tmp_path: Path, protocol: str, frame_rate: int
) -> None:
    footage = four_seconds(tmp_path / "scene.mp4", frame_rate)
    with (
        Serve(tmp_path, card=running.card(card, tmp_path, protocol)) as server,
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
    assert found == list(range(len(found)))  # in order, and none is left out
    errors = server.stderr.read_text()
    assert f"nothing listens at 127.0.0.1:{running.ports[protocol]}" in errors
    reached = [json.loads(line) for line in errors.splitlines() if "inference server reached" in line]
    assert len(reached) >= 2
    assert reached[-1]["server"] == f"mlserver {VERSIONS['mlserver']}"
    assert reached[-1]["time"] > reached[0]["time"]
