"""`accmpeg fleet` against real servers with real cameras."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accmpeg.demo import assets_path
from accmpeg.server import ServerThread
from tests.helpers import free_port
from tests.server.clients import VIEWER, Camera, Recorded, record, settings_of, tokens

CARD = assets_path() / "detector.card.toml"
TOKEN = "gate-token-0123456789"


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return record(frames=10)


def stream(server: ServerThread, recorded: Recorded, name: str, **options: Any) -> Camera:
    """A camera that has had ten results, and is still there."""
    camera = Camera(server, recorded, camera=name, **options)
    camera.welcome()
    camera.send_frames(0, 10)
    camera.results(10)
    return camera


def test_two_servers_are_one_view_and_one_that_is_down_is_named(
    accmpeg: Callable[..., Any], recorded: Recorded
) -> None:
    down = f"ws://127.0.0.1:{free_port()}"
    with ServerThread(settings_of(CARD)) as first, ServerThread(settings_of(CARD)) as second:
        stream(first, recorded, "moved").close()
        with (
            stream(first, recorded, "gate"),
            stream(second, recorded, "roof"),
            stream(second, recorded, "moved"),
        ):
            done = accmpeg("fleet", first.url, second.websocket_url, "--json")
            document = json.loads(done.stdout)
            assert done.returncode == 0, done.stderr
            places = {each["name"]: each["server"] for each in document["cameras"]}
            assert places == {
                "gate": first.websocket_url,
                "moved": second.websocket_url,
                "roof": second.websocket_url,
            }
            assert all(each["connected"] for each in document["cameras"])
            assert [each["down"] for each in document["servers"]] == ["", ""]
            done = accmpeg("fleet", first.websocket_url, down, second.websocket_url)
    assert done.returncode == 1, done.stderr
    assert f"{down}" in done.stdout
    assert "down: nothing listens at" in done.stdout
    assert "of 3 cameras live on 2 of 3 servers" in done.stdout


def test_a_token_is_asked_for_by_name_and_never_shown(
    accmpeg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ServerThread(settings_of(CARD, tokens=tokens(gate=TOKEN))) as server:
        done = accmpeg("fleet", server.websocket_url)
        assert done.returncode == 1
        assert "wants a token (HTTP 401): give --token-file" in done.stdout
        file = tmp_path / "viewer.token"
        file.write_text(VIEWER)
        done = accmpeg("fleet", server.websocket_url, "--token-file", str(file))
        assert done.returncode == 0, done.stderr
        assert VIEWER not in done.stdout + done.stderr
        monkeypatch.setenv("ACCMPEG_FLEET_TOKEN", VIEWER)
        assert accmpeg("fleet", server.websocket_url, "--json").returncode == 0


def test_a_server_that_is_named_twice_is_one(accmpeg: Callable[..., Any]) -> None:
    host = f"127.0.0.1:{free_port()}"
    done = accmpeg("fleet", f"ws://{host}", f"http://{host}/", f"ws://{host}/v1/stream", "--json")
    assert [each["url"] for each in json.loads(done.stdout)["servers"]] == [f"ws://{host}"]


def test_one_document_does_not_go_on_for_ever(accmpeg: Callable[..., Any]) -> None:
    done = accmpeg("fleet", "ws://127.0.0.1:8700", "--json", "--watch")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: --json is one document, and --watch never ends: give one of them"
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:8700", "rtsp://127.0.0.1/stream"])
def test_what_is_no_address_is_bad_use(accmpeg: Callable[..., Any], address: str) -> None:
    done = accmpeg("fleet", address)
    assert done.returncode == 2
    assert "give wss://host:8700" in done.stderr or "no server address" in done.stderr
    assert "Traceback" not in done.stderr
