"""The way into a cluster: what is wrong with it is one line that says the way out."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from accmpeg.cluster.connect import check_nodes, connected
from accmpeg.errors import ClusterError, UsageError
from tests.cluster.conftest import SOURCE, STORE_BYTES, accmpeg_command
from tests.helpers import free_port


def no_footage() -> str:
    return "can't see /footage"


def of_another_state() -> str:
    raise AttributeError("no such field")


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (
            None,
            UsageError,
            "^which Ray cluster[?] give --address HOST:PORT of its head or RAY_ADDRESS, or --a",
        ),
        ("nonsense", UsageError, "give HOST:PORT"),
        ("ray://10.0.0.1:10001", UsageError, "on a node of the cluster"),
        pytest.param(
            f"127.0.0.1:{free_port()}", ClusterError, "Connection refused", id="a port where nothing listens"
        ),
    ],
)
def test_what_is_no_cluster_s_address_is_said_at_once(
    address: str | None, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(error, match=said) as caught, connected(address):
        pass
    assert "\n" not in str(caught.value)


def test_without_ray_the_commands_say_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray', name='ray')")
    done = subprocess.run(
        accmpeg_command("cluster", "label", "footage", "--dnn", "d.toml", "-o", "labels"),
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'accmpeg[cluster]'")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_every_node_is_asked_for_the_package_and_for_what_the_work_needs(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(cluster.address):
        check_nodes()
        with pytest.raises(ClusterError, match=r"^node [\d.]+ can't see /footage$"):
            check_nodes(no_footage)
        with pytest.raises(
            ClusterError,
            match=r"^node [\d.]+ can't say what it lacks: AttributeError: no such field; install ",
        ):
            check_nodes(of_another_state)
    shutil.copytree(SOURCE / "accmpeg", tmp_path / "accmpeg", ignore=shutil.ignore_patterns("assets"))
    (tmp_path / "accmpeg" / "version.py").write_text('__all__ = []\n__version__ = "0.0.1"\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    with connected(cluster.address), pytest.raises(ClusterError, match=r"^node [\d.]+ has accmpeg 0.0.1, "):
        check_nodes()
