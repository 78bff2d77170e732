"""`accmpeg cluster serve`: replicas on a real cluster, real cameras, and nodes that die."""

import json
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

import accmpeg
from accmpeg.cluster.scaling import SILENT_S, Scale, longest_wait_ms, replicas_wanted
from accmpeg.errors import UsageError
from accmpeg.server import ServerSettings
from accmpeg.server.cameras import CameraRecord
from tests.cluster.conftest import accmpeg_command
from tests.helpers import free_port, until
from tests.live.conftest import four_seconds
from tests.server.stubborn import write_card

CAMERAS = 6
DELIVERS_AGAIN_S = 10.0
NOTICE = {"period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 3}
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


class Deployed(Served):
    """The same by Ray Serve's own command, from a file such as a RayService holds."""

    def __init__(self, address: str, folder: Path, options: dict[str, Any]) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        file = folder / "serve.json"  # which is YAML too
        deployed = {"name": "site", "route_prefix": "/", "import_path": "accmpeg.cli.cluster_serve:app"}
        http = {"host": "127.0.0.1", "port": self.port}
        whole = {
            "proxy_location": "HeadOnly",
            "http_options": http,
            "applications": [{**deployed, "args": options}],
        }
        file.write_text(json.dumps(whole))
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "ray.serve.scripts", "run", "--address", address, str(file)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    def _is_serving(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return bool(self.replicas())
        except OSError:
            return False


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


def processes_of(node: Any) -> list[psutil.Process]:
    """Those of a node that can run replicas."""
    (raylet,) = node.all_processes["raylet"]
    found = psutil.Process(raylet.process.pid)
    return [found, *found.children(recursive=True)]


@pytest.fixture
def soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's head asks its nodes as often as the guide says; by itself it gives them half a minute."""
    for name, value in NOTICE.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("death", ["its processes end", "it falls silent"])
def test_six_cameras_deliver_again_within_ten_seconds_after_a_replicas_node_dies(
    soon_noticed: None, cluster: Any, footage: Path, tmp_path: Path, death: str
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
        if death == "it falls silent":
            silent = processes_of(victim)
            for process in silent:
                process.suspend()  # its sockets stay open, as those of a machine without power
            stack.callback(lambda: [process.kill() for process in silent if process.is_running()])
        else:
            cluster.remove_node(victim, allow_graceful=False)
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


@pytest.fixture
def tests_on_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_replica_whose_dnn_hangs_is_replaced(
    tests_on_nodes: None, cluster: Any, footage: Path, tmp_path: Path
) -> None:
    hangs = tmp_path / "hangs"
    dnn = ["--dnn", write_card(tmp_path, hang_file=hangs), "--infer-timeout", 1]
    with Served(cluster.address, tmp_path, *dnn) as served, ExitStack() as stack:
        camera = Watched(footage, served.url, "gate")
        stack.enter_context(camera.stream)
        until(lambda: len(camera.results) >= 3)
        before = set(served.replicas())
        hangs.touch()
        until(lambda: any(result.dropped == "failed" for _, result in camera.results))
        hangs.unlink()
        until(lambda: camera.connections > 1 and camera.results[-1][1].dropped is None)
        assert before.isdisjoint(served.replicas())
        sequences = [result.sequence for _, result in camera.results]
        assert sequences == list(range(len(sequences)))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deploying_again_changes_what_is_served_and_loses_no_frame(
    cluster: Any, footage: Path, tmp_path: Path
) -> None:
    port = free_port()
    options = ["cluster", "serve", "--address", cluster.address, "--port", port, "--drain-s", 2, "--detach"]
    subprocess.run(accmpeg_command(*options), check=True)
    camera = Watched(footage, f"ws://127.0.0.1:{port}", "gate")
    with camera.stream:
        until(lambda: len(camera.results) >= 3)
        subprocess.run(accmpeg_command(*options, "--max-batch", 2), check=True)
        until(lambda: camera.connections > 1)
        count = len(camera.results)
        until(lambda: len(camera.results) > count + 3)
    assert [result.sequence for _, result in camera.results] == list(range(len(camera.results)))
    assert {result.dropped for _, result in camera.results} == {None}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_another_replica_starts_for_more_cameras_than_one_is_meant_for(
    cluster: Any, footage: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("max-cameras = 8\n")
    options = {"config": str(config), "cameras-per-replica": 1.5, "max_replicas": 2}
    with Deployed(cluster.address, tmp_path, options) as served, ExitStack() as stack:
        assert len(served.replicas()) == 1
        cameras = [Watched(footage, served.url, f"camera{number}") for number in range(2)]
        for each in cameras:
            stack.enter_context(each.stream)
        until(lambda: len(served.replicas()) == 2)
        late = Watched(footage, served.url, "late")
        stack.enter_context(late.stream)
        until(lambda: len(late.results) >= 3)
        assert ["late"] in served.replicas().values(), "new cameras go where fewer are"
        assert [each.connections for each in cameras] == [1, 1], "a camera stays with its replica"


def test_replicas_follow_cameras_and_the_wait_for_the_dnn() -> None:
    def wanted(running: int, cameras: list[float], queue_ms: list[float]) -> float:
        return replicas_wanted(running, cameras, queue_ms, cameras_each=4, allowed_ms=100)

    assert wanted(1, [], []) == 0, "Ray Serve keeps --min-replicas"
    assert wanted(2, [6, 6], [5, 5]) == 3
    assert wanted(2, [2, 2], [5, 300]) == 3
    assert wanted(2, [1, 1], [5, 60]) == 2
    assert wanted(2, [1, 1], [5, 40]) == 0.5


def test_only_cameras_that_send_wait_for_the_dnn() -> None:
    slow, quick, gone = CameraRecord("slow"), CameraRecord("quick"), CameraRecord("gone")
    for record, queue_ms in ((slow, 500.0), (quick, 20.0), (gone, 900.0)):
        record.came()
        record.count_frame(1000)
        record.count_stages({"queue": queue_ms})
    gone.left("connection lost")
    now_s = slow.last_frame_s
    assert longest_wait_ms([slow, quick, gone], now_s) == 500
    quick.last_frame_s += SILENT_S
    assert longest_wait_ms([slow, quick, gone], now_s + SILENT_S) == 20
    assert longest_wait_ms([slow], now_s + SILENT_S) == 0


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
