"""`accmpeg cluster serve`: replicas on a real cluster, real cameras, and nodes that die."""

import json
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import accmpeg
from accmpeg.cluster.scaling import Scale, replicas_wanted
from accmpeg.errors import UsageError
from accmpeg.server import ServerSettings
from tests.cluster.conftest import accmpeg_command
from tests.helpers import free_port, until
from tests.live.conftest import four_seconds

CAMERAS = 6
DELIVERS_AGAIN_S = 10.0
CARD = Path("detector.card.toml")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four_seconds(tmp_path_factory.mktemp("footage") / "scene.mp4", 2)


class Served:
    """`accmpeg cluster serve` as a process, and what it says of its cameras."""

    def __init__(self, address: str, folder: Path, *arguments: object) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                accmpeg_command(
                    "cluster", "serve", "--address", address, "--port", self.port, "--log-format", "json",
                    *arguments,
                ),
                stderr=log,
            )  # fmt: skip

    def __enter__(self) -> "Served":
        until(self._is_serving)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def replicas(self) -> dict[str, list[str]]:
        """The cameras of each."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/cameras", timeout=30) as answer:
            return {each["worker"]: each["cameras"] for each in json.load(answer)["workers"]}

    def _is_serving(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return '"serving"' in self.log.read_text()


class Watched:
    """A real camera of which every frame counts, and when its results came."""

    def __init__(self, footage: Path, url: str, name: str) -> None:
        self.results: list[tuple[float, accmpeg.FrameResult]] = []
        options: dict[str, Any] = {"name": name, "drop": "none", "loop": True, "drain_s": 120}
        self.stream = accmpeg.stream(footage, url, on_result=self._take, **options)

    def _take(self, result: accmpeg.FrameResult) -> None:
        self.results.append((time.monotonic(), result))

    def first_after(self, when_s: float) -> float | None:
        return next((at_s for at_s, _ in self.results if at_s > when_s), None)

    def longest_gap_s(self, since_s: float) -> float:
        """The longest time without a result that has not ended at that time."""
        times = [at_s for at_s, _ in self.results]
        return max(later - earlier for earlier, later in pairwise(times) if later > since_s)

    @property
    def connections(self) -> int:
        return self.stream.snapshot().get("connections", 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_six_cameras_deliver_again_within_ten_seconds_after_a_replicas_node_dies(
    cluster: Any, footage: Path, tmp_path: Path
) -> None:
    with (
        Served(cluster.address, tmp_path, "--min-replicas", 2, "--max-replicas", 2) as served,
        ExitStack() as stack,
    ):
        until(lambda: len(served.replicas()) == 2)
        cameras = {}
        for number in range(CAMERAS):
            name = f"camera{number}"
            cameras[name] = Watched(footage, served.url, name)
            stack.enter_context(cameras[name].stream)
        until(lambda: all(len(each.results) >= 5 for each in cameras.values()))
        before = served.replicas()
        assert sorted(name for each in before.values() for name in each) == sorted(cameras)
        assert all(before.values()), "Ray Serve spreads sockets over the replicas"

        victim = next(iter(cluster.worker_nodes))
        killed_s = time.monotonic()
        cluster.remove_node(victim, allow_graceful=False)
        until(lambda: len(served.replicas()) == 1)
        until(lambda: sum(each.connections > 1 for each in cameras.values()) in map(len, before.values()))
        hit = {name for name, each in cameras.items() if each.connections > 1}
        assert hit in list(map(set, before.values())), "only the cameras of the dead replica came anew"
        again_s = time.monotonic()
        until(lambda: all(each.first_after(again_s) for each in cameras.values()))
        waited = {name: round(each.longest_gap_s(killed_s), 1) for name, each in cameras.items()}
        print("longest times without a result:", waited, "came anew:", sorted(hit))
        assert max(waited.values()) < DELIVERS_AGAIN_S
        for each in cameras.values():
            each.stream.stop()
        for name, each in cameras.items():
            each.stream.wait()
            told = each.stream.snapshot()
            assert [result.sequence for _, result in each.results] == list(range(told["encoded"])), name
            assert {result.dropped for _, result in each.results} == {None}, name
        served.process.terminate()
        assert served.process.wait(120) == 0, served.log.read_text()[-2000:]


def test_replicas_follow_cameras_and_the_wait_for_the_dnn() -> None:
    def wanted(running: int, cameras: list[float], queue_ms: list[float]) -> float:
        return replicas_wanted(running, cameras, queue_ms, cameras_each=4, allowed_ms=100)

    assert wanted(1, [], []) == 0, "Ray Serve keeps --min-replicas"
    assert wanted(2, [6, 6], [5, 5]) == 3
    assert wanted(2, [2, 2], [5, 300]) == 3
    assert wanted(2, [1, 1], [5, 60]) == 2
    assert wanted(2, [1, 1], [5, 40]) == 0.5


@pytest.mark.parametrize(
    ("scale", "settings", "said"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, {}, "--max-replicas 2: give 3 or more"),
        ({}, {"device": "cuda"}, "--device cuda needs --gpus"),
        ({"gpus": 0.5}, {}, "--gpus 0.5 with --device cpu: give --device cuda"),
        ({}, {"results": Path("results.jsonl")}, "--results is not for a cluster"),
        ({}, {"inputs": (("gate", "rtsp://camera/stream"),)}, "--input is not for a cluster"),
        ({}, {"dnn_folder": Path()}, "--dnn-folder is not for a cluster"),
    ],
)
def test_what_a_cluster_can_not_serve_is_said(
    scale: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Scale(**scale).check(ServerSettings(dnns=(CARD,), **settings))
