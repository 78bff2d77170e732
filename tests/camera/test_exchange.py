"""A DNN exchanged while cameras stream: they change over to what is offered for it, and lose no frame."""

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from accmpeg.camera.camera import Camera
from accmpeg.errors import WireError
from accmpeg.protocol.wire import NewOffer, Offer, pack, read_offer, unpack
from accmpeg.server.run import ServerThread
from accmpeg.server.tokens import Tokens
from tests.camera.conftest import HEIGHT_PX, WIDTH_PX
from tests.camera.offering import ACCMODEL, DETECTOR, TOKEN, camera, more, settings
from tests.helpers import until

ADMIN = "admin-token-0123456789"
NAME = "accmpeg-demo-detector"
FRAMES = 100
CAMERAS = ("gate", "yard", "roof")
FRAME_RATE = 1
PROFILE = f"""
size = "240x136"
policy = "graded"

[profile]
dnn = "next"
source = "{WIDTH_PX}x{HEIGHT_PX}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DNNs called next and last; for next an AccModel and a profile, all unlike those at the start."""
    folder = tmp_path / "dnns"
    folder.mkdir()
    for name in ("next", "last"):
        text = DETECTOR.read_text().replace(f'name = "{NAME}"', f'name = "{name}"')
        (folder / f"{name}.card.toml").write_text(text)
    shutil.copy(DETECTOR.parent / "detector.onnx", folder)
    # A line of documentation in the file: the same network under another hash, which no camera has yet.
    weights = (ACCMODEL.parent / "accmodel.onnx").read_bytes() + b"\x32\x04next"
    (folder / "accmodel.onnx").write_bytes(weights)
    before = hashlib.sha256((ACCMODEL.parent / "accmodel.onnx").read_bytes()).hexdigest()
    card = ACCMODEL.read_text().replace(before, hashlib.sha256(weights).hexdigest())
    (folder / "accmodel.card.toml").write_text(card)
    (folder / "site.toml").write_text(PROFILE)
    return folder


def started(tmp_path: Path, folder: Path) -> ServerThread:
    tokens = Tokens({"cameras": {"*": TOKEN}, "admins": {"a": ADMIN}})
    return ServerThread(settings(tmp_path, tokens=tokens, dnn_folder=folder))


def streaming(scene: Any, server: ServerThread, tmp_path: Path, **options: Any) -> list[Camera]:
    """Three cameras that have adopted what the server offers at the start."""
    cameras = [camera(scene, server.websocket_url, tmp_path / name, name=name, **options) for name in CAMERAS]
    for each in cameras:
        each.start()
    until(lambda: all(each.snapshot().get("map") == "accmodel" for each in cameras))
    until(lambda: sizes(server) == {(160, 90)})
    return cameras


def exchange(server: ServerThread, query: str) -> tuple[int, str]:
    request = urllib.request.Request(
        f"{server.url}/v1/dnns/{NAME}?{query}", method="PUT", headers={"Authorization": f"Bearer {ADMIN}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["detail"]


def sizes(server: ServerThread) -> set[tuple[int, int]]:
    records = server.running.core.book.records
    return {(records[name].width_px, records[name].height_px) for name in CAMERAS}


@pytest.mark.slow
def test_cameras_change_over_under_load_and_lose_no_frame(scene: Any, tmp_path: Path, folder: Path) -> None:
    with started(tmp_path, folder) as server:
        # Time to drain on a machine that has other work.
        cameras = streaming(scene, server, tmp_path, drop="none", frames=FRAMES, frame_rate=8, drain_s=120)
        status, said = exchange(server, "card=next.card.toml&accmodel=accmodel.card.toml&profile=site.toml")
        assert (status, json.loads(said)["card"]) == (200, "next")
        until(lambda: sizes(server) == {(240, 136)})
        assert all(not each.wait(0) for each in cameras), "the change came while they streamed"
        for each in cameras:
            results = list(each)
            each.wait()
            assert sorted(one.sequence for one in results) == list(range(FRAMES))
            assert not [one.dropped for one in results if one.dropped]
            counts = each.snapshot()
            assert counts["captured"] == counts["results"] == FRAMES
            assert (counts["connections"], counts["offer"], counts["map"]) == (1, "adopted", "accmodel")
            # Fetched in the background, beside the one before.
            assert len(list((tmp_path / each.name).rglob("*.onnx"))) == 2


@pytest.mark.slow
def test_where_the_newest_frame_wins_an_exchange_costs_none(scene: Any, tmp_path: Path, folder: Path) -> None:
    """Nobody is told to send less, and no camera thinks of it as a queue."""
    with started(tmp_path, folder) as server:
        # A budget for a machine that has other work.
        cameras = streaming(
            scene, server, tmp_path, frames=10_000, frame_rate=FRAME_RATE, delay_budget_ms=5_000.0
        )
        until(lambda: all(each.stats.get("results") > 3 for each in cameras))
        for query, size in (
            ("card=next.card.toml&accmodel=accmodel.card.toml&profile=site.toml", (240, 136)),
            ("card=last.card.toml", (WIDTH_PX, HEIGHT_PX)),
        ):
            before = [each.snapshot() for each in cameras]
            assert exchange(server, query)[0] == 200
            until(lambda size=size: sizes(server) == {size})  # type: ignore[misc]
            for each in cameras:
                more(each)
                more(each)
            for each, was in zip(cameras, before, strict=True):
                now = each.snapshot()
                (batcher,) = server.running.core.dnns.first.batchers.values()
                if (batcher.frame_cost.per_s(batcher.copies) or 0.0) < 3 * FRAME_RATE * len(CAMERAS):
                    pytest.skip("the machine is too busy: its DNN can't answer these cameras anyway")
                assert "offered_per_s" not in now
                for reason in ("unanswered", "link", "offline", "late"):
                    assert now.get(f"dropped_{reason}", 0) == was.get(f"dropped_{reason}", 0), reason
        for each in cameras:
            each.close()


def test_what_is_wrong_with_an_offer_changes_neither_dnn_nor_cameras(
    scene: Any, tmp_path: Path, folder: Path
) -> None:
    other = PROFILE.replace('"next"', '"another"')
    (folder / "other.toml").write_text(other)
    with (
        started(tmp_path, folder) as server,
        camera(scene, server.websocket_url, tmp_path / "cache") as running,
    ):
        until(lambda: running.snapshot().get("map") == "accmodel")
        for query, reason in (
            ("profile=other.toml&accmodel=accmodel.card.toml", "was made for the server DNN another"),
            ("profile=site.toml", "give --accmodel"),
            ("accmodel=../site.toml", "of the server's --dnn-folder"),
            ("accmodel=missing.card.toml", "can't be read"),
        ):
            status, said = exchange(server, f"card=next.card.toml&{query}")
            assert status in (400, 422)
            assert reason in said
        assert server.running.core.dnns.first.identity.card == NAME
        assert running.stats.get("connections") == 1
        # Without an offer of its own, the next DNN has none, and the camera goes back to what it was told.
        assert exchange(server, "card=next.card.toml")[0] == 200
        until(lambda: running.snapshot()["offer"] == "none")
        until(lambda: server.running.core.book.records["gate"].width_px == WIDTH_PX)
        assert running.stats.get("connections") == 1


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [
        ({"accmodel": {"name": "x"}}, "accmodel.sha256: Field required"),
        ({"profile": {"source_px": [320, 180], "b_frames": 99}}, "profile.b_frames"),
        ({"dnn_sha256": "../../etc"}, "dnn_sha256"),
        ({"run": "this"}, "run: Extra inputs"),
        ({"profile": {"source_px": [320, 180], "policy": "graded"}}, "no AccModel is offered"),
    ],
)
def test_nonsense_is_refused_in_one_line_and_the_stream_goes_on(
    scene: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    nonsense: dict[str, Any],
    reason: str,
) -> None:
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache") as running,
    ):
        until(lambda: running.snapshot().get("map") == "accmodel")
        (session,) = server.running.sessions.values()
        session._outbox.say(NewOffer(offer=nonsense))
        until(lambda: running.snapshot()["offer"].startswith("refused"))
        assert reason in running.snapshot()["offer"]
        seen = running.stats.get("results")
        until(lambda: running.stats.get("results") > seen + 5)
        assert running.snapshot()["map"] == "accmodel", "with what it had"
        assert running.stats.get("connections") == 1
    (line,) = [record for record in caplog.records if record.message == "offer refused"]
    assert "\n" not in line.reason  # type: ignore[attr-defined]


def test_offers_that_change_without_end_are_looked_at_now_and_then(
    scene: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accmpeg.camera.offers.OFFERS_S", 2.0)
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache", preset="ultrafast") as running,
    ):
        until(lambda: running.snapshot().get("map") == "accmodel")
        (session,) = server.running.sessions.values()
        for count in range(200):
            size = [160 + 2 * (count % 50), 90]
            offer = {"profile": {"source_px": [WIDTH_PX, HEIGHT_PX], "size_px": size, "policy": "feedback"}}
            session._outbox.say(NewOffer(offer=offer))
            time.sleep(0.02)
        seen = running.stats.get("results")
        until(lambda: running.stats.get("results") > seen + 5)
        until(lambda: server.running.core.book.records["gate"].width_px == 160 + 2 * (199 % 50))
        assert running.stats.get("connections") == 1
    messages = [record.message for record in caplog.records]
    assert messages.count("offer adopted") < 30
    assert "offers change too often" in messages


def test_an_offer_is_read_as_the_welcome_has_it() -> None:
    offer = Offer.model_validate_json('{"profile": {"source_px": [320, 180], "size_px": [160, 90]}}')
    message = unpack(pack(NewOffer(offer=offer.model_dump(mode="json")))).message
    assert isinstance(message, NewOffer)
    assert read_offer(message) == offer
    assert read_offer(NewOffer()) is None
    with pytest.raises(WireError, match="profile"):
        read_offer(NewOffer(offer={"profile": 3}))
