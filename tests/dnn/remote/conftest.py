"""Inference servers of both protocols on real sockets, with the demo's detector behind them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from av import VideoFrame

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.dnn.card import read_card, write_card
from accmpeg.protocol.backoff import Backoff
from tests.dnn.inference_servers import DETECTOR, HttpServer, Model, remote_card
from tests.dnn.remote.checks import PROTOCOLS, WriteCard


@pytest.fixture(scope="module")
def frames() -> list[VideoFrame]:
    """Four of the embedded scene, with cars in them."""
    return list(SceneSource(SceneSpec(87, 320, 180, frame_count=4)))


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest, model: Model) -> Iterator[Any]:
    """A server of either protocol."""
    with PROTOCOLS[request.param](model) as running:
        yield running


@pytest.fixture
def http(model: Model) -> Iterator[HttpServer]:
    with HttpServer(model) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector here, reading small pictures: a busy machine must keep pace with their text."""
    card = read_card(DETECTOR)
    small = card.input.model_copy(update={"width_px": 320, "height_px": 192})
    path = tmp_path_factory.mktemp("local") / "detector.card.toml"
    model = str(DETECTOR.parent / card.model)
    write_card(card.model_copy(update={"model": model, "input": small}), path)
    return path


@pytest.fixture
def write(tmp_path: Path, local: Path) -> WriteCard:
    """Writes that card as a remote one, with changed keys and options."""
    return lambda address, **changes: remote_card(
        tmp_path, address, like=local, **{"timeout_ms": 60_000, **changes}
    )


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.05)
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):  # nothing goes through one
        monkeypatch.setenv(name, "http://127.0.0.1:9")
