"""The dashboard in a real browser, with real streams running."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accmpeg.server import ServerThread
from tests.helpers import WAIT_S
from tests.server.clients import VIEWER, Camera, Recorded, tokens, unit_message

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
WAIT_MS = 2000 * WAIT_S


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here: install Debian's chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, headless=True, args=FLAGS.split())
        yield opened
        opened.close()


class Streaming:
    """Cameras that stream the recording round and round, in threads."""

    def __init__(self, server: ServerThread, recorded: Recorded, names: dict[str, str | None]) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._stream, args=(server, recorded, name, token))
            for name, token in names.items()
        ]

    def _stream(self, server: ServerThread, recorded: Recorded, name: str, token: str | None) -> None:
        with Camera(server, recorded, camera=name, token=token) as camera:
            camera.welcome()
            sequence = 0
            while not self._stop.wait(0.1):
                unit = recorded.units[sequence % len(recorded.units)]
                camera.send(unit_message(sequence, unit, camera_ms={"encode": 5.0}), unit.data)
                camera.results(1)
                sequence += 1

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def open_page(browser: Any, server: ServerThread, width_px: int) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": width_px, "height": 844})
    page.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text) if message.type == "error" and "401" not in message.text else None
        ),
    )
    own = (server.url, server.websocket_url, "data:")
    page.on("request", lambda request: problems.extend([] if request.url.startswith(own) else [request.url]))
    page.goto(server.url)
    return page, problems


def test_cameras_are_seen_live_on_a_desk_and_a_phone(
    browser: Any, start: Callable[..., ServerThread], recorded: Recorded, tmp_path: Path
) -> None:
    server = start()
    with Streaming(server, recorded, {"gate": None, "roof": None}):
        for width_px in (1280, 390):
            page, problems = open_page(browser, server, width_px)
            page.locator("article.camera").nth(1).wait_for()
            page.wait_for_function("() => [...document.querySelectorAll('.waiting')].every(e => e.hidden)")
            page.locator("article.camera .map").first.check()
            page.wait_for_function("() => document.querySelector('.map-note').textContent.includes('median')")
            assert page.locator("h2").all_text_contents() == ["gate", "roof"]
            # Facts come once a second, after the first pictures.
            page.locator(".health.live").nth(1).wait_for()
            page.locator(".stages", has_text="infer").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px, "no sideways scrolling"
            colours = page.evaluate(
                "() => { const c = document.querySelector('canvas'); const d = c.getContext('2d')"
                ".getImageData(0, 0, c.width, c.height).data; return new Set(d).size; }"
            )
            assert colours > 50, "a picture, not a blank"
            page.screenshot(path=tmp_path / f"dashboard-{width_px}.png", full_page=True)
            assert problems == []
            page.close()


def test_several_workers_are_shown_with_their_cameras(
    browser: Any, start: Callable[..., ServerThread], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    server = start(workers=2)
    with Streaming(server, recorded, {"gate": None, "roof": None}):
        for width_px in (1280, 390):
            page, problems = open_page(browser, server, width_px)
            page.locator("#workers tbody tr", has_text="cpu#2").get_by_text("answers").wait_for()
            page.locator(".facts", has_text="cpu#2").wait_for()
            assert page.locator("#workers tbody td:nth-child(2)").all_text_contents() == ["1", "1"]
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px, "no sideways scrolling"
            assert problems == []
            page.close()


def test_a_dead_server_is_not_shown_as_live(
    browser: Any, start: Callable[..., ServerThread], recorded: Recorded
) -> None:
    server = start()
    with Streaming(server, recorded, {"gate": None}):
        page, _ = open_page(browser, server, 390)
        page.locator(".health.live").wait_for()
    server.stop()
    page.get_by_text("no contact since").first.wait_for()
    page.locator(".health", has_text="no contact since").wait_for()
    assert "live" not in page.inner_text(".health")
    assert " ago" not in page.inner_text(".facts")
    assert page.evaluate("getComputedStyle(document.querySelector('main')).filter") == "grayscale(1)"
    page.close()


def test_a_camera_that_is_away_says_so_and_can_be_forgotten(
    browser: Any, start: Callable[..., ServerThread], recorded: Recorded
) -> None:
    server = start()
    with Streaming(server, recorded, {"gate": None}):
        page, problems = open_page(browser, server, 390)
        page.locator(".health.live").wait_for()
        assert page.locator(".forget").is_hidden()
    page.locator(".health.away").wait_for()
    page.get_by_text("connection lost").wait_for()
    page.click(".forget")
    page.get_by_text("No camera is here yet.").wait_for()
    assert problems == []
    page.close()


def test_a_token_opens_the_dashboard(
    browser: Any, start: Callable[..., ServerThread], recorded: Recorded
) -> None:
    token = "gate-token-0123456789"
    server = start(tokens=tokens(gate=token))
    with Streaming(server, recorded, {"gate": token}):
        page, _ = open_page(browser, server, 390)
        page.locator("#log-in").wait_for(state="visible")
        page.fill("#token", "wrong-token-0123456789")
        page.click("#log-in button")
        page.get_by_text("That token is not a viewer's.").wait_for()
        assert page.locator("article.camera").count() == 0
        page.fill("#token", VIEWER)
        page.click("#log-in button")
        page.locator("article.camera").wait_for()
        page.wait_for_function("() => [...document.querySelectorAll('.waiting')].every(e => e.hidden)")
        page.close()
