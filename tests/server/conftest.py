"""A real encoder's stream of the embedded scene, and real servers with the real detector."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from accmpeg.demo import assets_path
from accmpeg.server import Limits, ServerThread
from tests.server.clients import Recorded, record, settings_of


@pytest.fixture(scope="session")
def recorded() -> Recorded:
    return record()


@pytest.fixture(scope="session")
def card() -> Path:
    return assets_path() / "detector.card.toml"


@pytest.fixture
def start(card: Path) -> Iterator[Callable[..., ServerThread]]:
    """Starts servers with changed settings, and stops them."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(ServerThread(settings_of(card, **changes)))


@pytest.fixture(scope="module")
def server(card: Path) -> Iterator[ServerThread]:
    """One server for tests that leave it as it was: one hostile client must not harm the next test."""
    limits = Limits(handshake_s=2, idle_s=20, max_frame_pixels=1920 * 1080, damaged_in_a_row=10)
    with ServerThread(settings_of(card, limits=limits)) as running:
        yield running
