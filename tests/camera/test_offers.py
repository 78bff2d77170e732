"""A camera that needs only an address: what the server offers is taken, kept, and refused where it is bad."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest
from typer.testing import CliRunner

from accmpeg.accmodel.runtime import AccModel
from accmpeg.camera import Camera, CameraOptions
from accmpeg.camera.cache import MOST_ACCMODELS, OfferCache
from accmpeg.camera.encode_loop import PlannedEncoder
from accmpeg.camera.options import ADOPTABLE
from accmpeg.camera.uplink import fetch as fetching
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.cli import app
from accmpeg.errors import AccmpegError, LinkError, UsageError, WireError
from accmpeg.protocol.wire import Offer
from accmpeg.server.announcement import Announcement
from accmpeg.server.run import ServerThread
from tests.accmodel.test_trial import doubling
from tests.camera.conftest import HEIGHT_PX, WIDTH_PX
from tests.camera.offering import ACCMODEL, PROFILE, TOKEN, camera, more, settings, size_at, written
from tests.helpers import free_port, until


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What cameras fetch."""
    names: list[str] = []
    plain = fetching.fetch

    def noted(server: ServerAddress, name: str, size_bytes: int, **limits: Any) -> bytes:
        names.append(name)
        return plain(server, name, size_bytes, **limits)

    monkeypatch.setattr("accmpeg.camera.offers.fetch", noted)
    return names


def test_the_first_start_fetches_and_the_second_has_it(
    scene: Any, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, adopted, adopt = free_port(), [], PlannedEncoder.adopt

    def noted(encoder: PlannedEncoder, *setup: Any) -> None:
        adopted.append(setup[-1])
        adopt(encoder, *setup)

    monkeypatch.setattr(PlannedEncoder, "adopt", noted)
    with ServerThread(settings(tmp_path, port=port)) as server:
        for _ in range(2):
            with camera(scene, server.websocket_url, tmp_path / "cache", drop="none") as running:
                until(lambda: running.snapshot().get("map") == "accmodel" and size_at(server) == (160, 90))
                more(running)
                said = running.snapshot()
            assert said["offer"] == "adopted"
            assert said["ceiling_bps"] <= 700_000
            assert not [name for name in said if name.startswith("dropped_") and said[name]], "no frame lost"
        assert len(asked) == 1, "the second start has it in its cache"
        options: CameraOptions = adopted[-1]
        assert (options.every, options.map_strength, options.map_margin) == (5, 1.5, 1)
        url = server.websocket_url
    # Without its server, it begins with what that one said last.
    with camera(scene, url, tmp_path / "cache", spool=tmp_path / "spool") as running:
        until(lambda: running.snapshot().get("map") == "accmodel")
        assert running.stats.get("connections") == 0
        running.stop()
    assert len(asked) == 1


def test_what_flags_say_stays(scene: Any, tmp_path: Path) -> None:
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(
            scene,
            server.websocket_url,
            tmp_path / "cache",
            size_px=(240, 136),
            adopts=ADOPTABLE - {"size_px"},
        ) as running,
    ):
        until(lambda: running.snapshot().get("map") == "accmodel")
        until(lambda: running.stats.get("results") > 5)
        assert size_at(server) == (240, 136)


def test_a_camera_with_settings_of_its_own_ignores_the_offer(
    scene: Any, tmp_path: Path, asked: list[str]
) -> None:
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache", adopts=frozenset()) as running,
    ):
        until(lambda: running.stats.get("results") > 10)
        assert running.snapshot()["offer"] == "ignored"
        assert size_at(server) == (WIDTH_PX, HEIGHT_PX)
    assert not asked
    assert not (tmp_path / "cache").exists()


def test_a_server_without_an_offer_changes_nothing_and_undoes_an_earlier_one(
    scene: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with ServerThread(settings(tmp_path, site_profile=None, accmodel=None)) as server:
        profile = Offer.model_validate_json(
            '{"profile": {"source_px": [320, 180], "size_px": [160, 90], "policy": "feedback"}}'
        )
        before = OfferCache(cache, f"{server.websocket_url}/v1/stream ")
        before.remember(profile)
        assert before.offer() == profile
        with camera(scene, server.websocket_url, cache) as running:
            until(lambda: running.snapshot().get("offer") == "none")
            until(lambda: size_at(server) == (WIDTH_PX, HEIGHT_PX) and running.stats.get("results") > 5)
        assert before.offer() is None


def lying(weights: bytes | None = None, **accmodel: Any) -> Callable[[Announcement], Announcement]:
    def change(made: Announcement) -> Announcement:
        assert made.offer.accmodel is not None
        offered = made.offer.accmodel.model_copy(update=accmodel)
        offer = made.offer.model_copy(update={"accmodel": offered})
        return replace(made, offer=offer, weights=made.weights if weights is None else weights)

    return change


GARBAGE = b"\x08\x07garbage" * 1000


def holding(weights: bytes) -> Callable[[Announcement], Announcement]:
    """All that is said of them is true."""

    def change(made: Announcement) -> Announcement:
        assert made.offer.accmodel is not None
        sha256 = hashlib.sha256(weights).hexdigest()
        card = made.offer.accmodel.card.replace(made.offer.accmodel.sha256, sha256)
        return lying(weights, sha256=sha256, size_bytes=len(weights), card=card)(made)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lying(GARBAGE), "bytes in place of"),
        (lying(size_bytes=1000), "has more bytes in place of the 1000"),
        (holding(GARBAGE), "no ONNX file"),
        (holding(doubling(30)), "takes more than 512 MiB of memory"),
        (holding(doubling(30, constant=True)), "takes more than 512 MiB of memory"),
        (lying(sha256="0" * 64), "a card for other weights"),
        (lying(card="name = ["), "not valid TOML"),
    ],
)
def test_a_bad_offer_is_refused_and_frames_are_answered(
    scene: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Announcement], Announcement],
    reason: str,
) -> None:
    with ServerThread(settings(tmp_path)) as server:
        core = server.running.core
        ((name, announced),) = core.announcements.items()
        core.announcements[name] = change(announced)
        with camera(scene, server.websocket_url, tmp_path / "cache") as running:
            until(lambda: "offer" in running.snapshot())
            more(running)
            assert reason in running.snapshot()["offer"]
            assert running.snapshot()["map"] in ("none", "answers")
            assert size_at(server) == (WIDTH_PX, HEIGHT_PX)
    assert [record.message for record in caplog.records].count("offer refused") == 1
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_the_accmodel_is_for_cameras_with_a_token_only(tmp_path: Path) -> None:
    with ServerThread(settings(tmp_path)) as server:
        (announced,) = server.running.core.announcements.values()
        assert announced.offer.accmodel is not None
        name, size = f"accmodel/{announced.offer.accmodel.sha256}", len(announced.weights)
        address = ServerAddress.parse(server.websocket_url, token=TOKEN)
        assert fetching.fetch(address, name, size) == announced.weights
        with pytest.raises(WireError, match="HTTP 404"):
            fetching.fetch(address, f"accmodel/{'0' * 64}", size)
        for token in (None, "wrong-token-0123456789"):
            with pytest.raises(WireError, match="HTTP 401"):
                fetching.fetch(ServerAddress.parse(server.websocket_url, token=token), name, size)


class Elsewhere(BaseHTTPRequestHandler):
    """Sends on to a file that is really there, drips, or breaks off."""

    def do_GET(self) -> None:
        if self.path.endswith("moved"):
            self.send_response(302)
            self.send_header("Location", "/v1/here")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path.endswith("here"):
            self.wfile.write(b"here")
        for _ in range(200 if self.path.endswith("slow") else 0):
            self.wfile.write(b".")
            if threading.Event().wait(0.05):
                return

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[ServerAddress]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ServerAddress.parse(f"ws://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_fetch_follows_no_redirection_and_ends_in_time(elsewhere: ServerAddress) -> None:
    assert fetching.fetch(elsewhere, "here", 4) == b"here"
    with pytest.raises(WireError, match="HTTP 302"):
        fetching.fetch(elsewhere, "moved", 4)
    with pytest.raises(WireError, match="has more bytes"):
        fetching.fetch(elsewhere, "here", 3)
    with pytest.raises((WireError, LinkError)):
        fetching.fetch(elsewhere, "slow", 10_000, within_s=0.3)
    with pytest.raises(LinkError, match="nothing listens"):
        fetching.fetch(ServerAddress.parse(f"ws://127.0.0.1:{free_port()}"), "here", 4)


@pytest.mark.parametrize(
    ("text", "accmodel", "reason"),
    [
        (PROFILE, None, "give --accmodel"),
        (PROFILE.replace('dnn = "accmpeg', 'dnn = "other'), ACCMODEL, "was made for the server DNN other"),
        (PROFILE.replace('sha256 = ""', f'sha256 = "{"0" * 64}"'), ACCMODEL, "other weights"),
        (PROFILE.replace("b-frames = 2", "b-frames = 99"), ACCMODEL, "b-frames: .*16"),
        (PROFILE.replace("superfast", "placebo"), ACCMODEL, "preset: "),
        (PROFILE.replace("160x90", "dnn"), ACCMODEL, "size dnn: give width x height"),
        (PROFILE.replace("b-frames", "b-frame"), ACCMODEL, "unknown key 'b-frame': did you mean 'b-frames'"),
        (PROFILE.replace("[profile]", "[other]"), ACCMODEL, "has no .profile. table"),
        ("size = ", ACCMODEL, "not valid TOML"),
        (None, Path("nowhere.card.toml"), "can't be read"),
    ],
)
def test_a_server_offers_nothing_that_can_not_be_meant(
    tmp_path: Path, text: str | None, accmodel: Path | None, reason: str
) -> None:
    profile = None if text is None else written(tmp_path, text)
    with pytest.raises(AccmpegError, match=reason) as caught:
        ServerThread(settings(tmp_path, site_profile=profile, accmodel=accmodel)).start()
    assert "\n" not in str(caught.value)


def test_an_accmodel_of_another_dnn_is_not_offered(tmp_path: Path) -> None:
    card = tmp_path / "accmodel.card.toml"
    text = ACCMODEL.read_text().replace('sha256 = "777db78e', 'sha256 = "00000000')
    card.write_text(text)
    (tmp_path / "accmodel.onnx").write_bytes(ACCMODEL.with_name("accmodel.onnx").read_bytes())
    with pytest.raises(UsageError, match="which has other weights here"):
        ServerThread(settings(tmp_path, site_profile=None, accmodel=card)).start()


def test_a_fetch_goes_by_tls_and_token(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    with ServerThread(settings(tmp_path, tls_certificate=chain, tls_key=key)) as server:
        (announced,) = server.running.core.announcements.values()
        assert announced.offer.accmodel is not None
        name, size = f"accmodel/{announced.offer.accmodel.sha256}", len(announced.weights)
        trusted = ServerAddress.parse(server.websocket_url, token=TOKEN, ca_file=chain)
        assert fetching.fetch(trusted, name, size) == announced.weights
        with pytest.raises(LinkError, match=r"certificate of .* is not trusted"):
            fetching.fetch(ServerAddress.parse(server.websocket_url, token=TOKEN), name, size)


def test_what_could_not_be_fetched_is_tried_for_again(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accmpeg.camera.offers.AGAIN_S", 0.2)
    plain, failures = fetching.fetch, iter([LinkError("did not answer in time")] * 2)

    def failing(*given: Any) -> bytes:
        if (failure := next(failures, None)) is not None:
            raise failure
        return plain(*given)

    monkeypatch.setattr("accmpeg.camera.offers.fetch", failing)
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache") as running,
    ):
        until(lambda: running.snapshot().get("offer") == "adopted")
        assert running.stats.get("connections") == 1


def test_an_accmodel_that_fails_later_ends_no_stream(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, calls = AccModel.predict, []

    def failing(self: AccModel, frame: Any) -> Any:
        calls.append(frame)
        if len(calls) > 4:
            raise ValueError("of some frames only")
        return plain(self, frame)

    monkeypatch.setattr(AccModel, "predict", failing)
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache", every=2) as running,
    ):
        until(lambda: len(calls) > 4)
        more(running)
    assert [record.message for record in caplog.records].count("offered AccModel given up") == 1


def test_a_profile_for_other_frames_is_left_out(scene: Any, tmp_path: Path) -> None:
    other = written(tmp_path, PROFILE.replace(f"{WIDTH_PX}x{HEIGHT_PX}", "1280x720"))
    with (
        ServerThread(settings(tmp_path, site_profile=other)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache") as running,
    ):
        until(lambda: running.snapshot().get("map") == "accmodel")
        more(running)
        assert size_at(server) == (WIDTH_PX, HEIGHT_PX)


def test_the_cache_keeps_few_and_believes_nothing_that_is_damaged(tmp_path: Path) -> None:
    cache = OfferCache(tmp_path, "wss://server")
    assert cache.offer() is None
    hashes = []
    for count in range(MOST_ACCMODELS + 3):
        weights = b"weights" * (count + 1)
        hashes.append(hashlib.sha256(weights).hexdigest())
        cache.keep(hashes[-1], weights)
        os.utime(tmp_path / "accmodels" / f"{hashes[-1]}.onnx", (count, count))
    assert [cache.weights(each) is not None for each in hashes] == [False] * 3 + [True] * MOST_ACCMODELS
    (tmp_path / "accmodels" / f"{hashes[-1]}.onnx").write_bytes(b"others")
    assert cache.weights(hashes[-1]) is None
    cache.remember(Offer())
    assert cache.offer() == Offer()
    assert OfferCache(tmp_path, "wss://another").offer() is None
    (file,) = (tmp_path / "offers").iterdir()
    file.write_text('{"dnn_sha256": "../../x"}')
    assert cache.offer() is None
    assert not list(tmp_path.rglob("*.part"))


def test_a_cache_that_can_not_be_written_costs_only_the_next_start(scene: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with (
        ServerThread(settings(tmp_path)) as server,
        camera(scene, server.websocket_url, tmp_path / "cache") as running,
    ):
        until(lambda: running.snapshot().get("map") == "accmodel")


@pytest.mark.parametrize(
    ("arguments", "adopts"),
    [
        ([], ADOPTABLE),
        (["--size", "320x180", "--max-bitrate", "1M"], ADOPTABLE - {"size_px", "highest_bps"}),
        (["--b-frames", "0"], ADOPTABLE - {"b_frames"}),
        (["--policy", "feedback"], frozenset()),
        (["--accmodel", str(ACCMODEL)], frozenset()),
        (["--profile", "site.toml"], frozenset()),
    ],
)
def test_what_the_command_line_leaves_open(
    arguments: list[str],
    adopts: frozenset[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(tmp_path, PROFILE.replace("graded", "feedback"))
    monkeypatch.chdir(tmp_path)
    made: list[CameraOptions] = []

    def noted(source: Any, to: Any, accmodel: Any, options: CameraOptions, **others: Any) -> Camera:
        made.append(options)
        raise UsageError("enough")

    monkeypatch.setattr("accmpeg.camera.Camera", noted)
    done = CliRunner().invoke(app, ["stream", "x.mp4", "--to", "ws://127.0.0.1", "--cache", "c", *arguments])
    assert done.exit_code == 2, done.output
    assert made, done.output
    assert (made[0].adopts, made[0].cache) == (adopts, Path("c"))


def test_an_address_and_a_token_are_enough(scene: Any, tmp_path: Path) -> None:
    """The program itself, on a video: its stream gets the size and the map that the server offers."""
    video, token = tmp_path / "street.mp4", tmp_path / "token"
    token.write_text(TOKEN)
    source = scene(60, 15)()
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height = WIDTH_PX, HEIGHT_PX
        for frame in source:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with ServerThread(settings(tmp_path)) as server:
        command = [
            sys.executable,
            "-m",
            "accmpeg",
            "stream",
            str(video),
            "--loop",
            "--limit",
            "200",
            "--json",
        ]
        command += ["--to", server.websocket_url, "--token-file", str(token)]
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["offer"], said["map"]) == ("adopted", "accmodel"), done.stderr
    assert len(list((tmp_path / "home" / "accmpeg").rglob("*.onnx"))) == 1
