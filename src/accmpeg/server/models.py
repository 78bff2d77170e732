"""Server DNNs as they are loaded: what each is, where it runs, and in how many copies."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.registry import get_adapter
from accmpeg.dnn.weights import sha256_of
from accmpeg.server.machine import available_cores
from accmpeg.server.settings import ServerSettings

__all__ = ["LoadedDnn", "LoadedDnns", "ModelIdentity", "load"]

QUICK_MS = 50.0
"""A DNN that needs no more for a frame on one thread runs in copies of one thread each: they infer about half
as many frames again as one copy of all threads, whose every layer waits for the slowest of them."""
MOST_COPIES = 8
REQUESTS_AT_ONCE = 2
"""To an inference server elsewhere: one is on its way while the server works at the other."""
TIMED_FRAMES = 7
TIMED_S = 1.0


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What answers: the card's name, the SHA-256 of its weights (None without a file), and the device.

    For a DNN on an inference server, the device is that server's address.
    """

    card: str
    sha256: str | None
    device: str

    def facts(self) -> dict[str, Any]:
        """As results, logs and pages show it."""
        return asdict(self)


@dataclass(frozen=True)
class LoadedDnn:
    """Copies of one DNN, for a thread each."""

    copies: list[ServerDnn]
    identity: ModelIdentity
    frame_s: float = 0.0
    """What a frame took before any camera's came; 0 where that was not tried."""


LoadedDnns = dict[str, dict[str, LoadedDnn]]
"""By the DNN's name and the worker's."""


def load(
    settings: ServerSettings, card: Path, copies: Mapping[str, int] | None = None
) -> dict[str, LoadedDnn]:
    """A DNN for each worker, by the worker's name, in so many copies.

    By default the copies are as many as the settings say or, if they don't, as pay here. One of them infers a
    frame, unless it does that elsewhere. Where `copies` are given, cameras stream already: each then does so
    before it is handed out, because the first frame also sets up the runtime. Raises what `load_dnn` raises,
    and `DnnError` where it fails on that frame.
    """
    loaded = {
        name: _copies(settings, card, device, copies[name] if copies else settings.copies)
        for name, device in settings.places.items()
    }
    described = next(iter(loaded.values()))[0].card
    sha256, adapter = described.sha256, get_adapter(described.adapter)
    if sha256 is None and adapter.model_is_file:
        sha256 = sha256_of(card.parent / described.model)
    found = {}
    for name, each in loaded.items():
        device = settings.places[name] if adapter.runs_here else str(described.options["address"])
        frame_s = _warm_up_s(each) if copies else 0.0
        found[name] = LoadedDnn(each, ModelIdentity(described.name, sha256, device), frame_s)
    return found


def _copies(settings: ServerSettings, card: Path, device: str, copies: int | None) -> list[ServerDnn]:
    threads = settings.threads
    if not get_adapter(read_card(card).adapter).runs_here:
        return [load_dnn(card) for _ in range(copies or REQUESTS_AT_ONCE)]
    cores = max(1, available_cores() // settings.workers)
    # The runtime's own choice knows of no workers, and of no limit of a container.
    whole = cores if cores < len(os.sched_getaffinity(0)) else None
    if copies is None and threads is None and device == "cpu":
        lone = load_dnn(card, threads=1, device=device)
        if _infer_ms(lone) > QUICK_MS:
            return [load_dnn(card, threads=whole, device=device)]
        others = range(min(cores, MOST_COPIES) - 1)
        return [lone, *(load_dnn(card, threads=1, device=device) for _ in others)]
    if threads is None and device == "cpu":
        threads = 1 if (copies or 1) > 1 else whole
    found = [load_dnn(card, threads=threads, device=device) for _ in range(copies or 1)]
    _timed_s(found[0])  # one that does not fit its card says so now, and not of every frame later
    return found


def _infer_ms(dnn: ServerDnn) -> float:
    """How long a frame takes: the quickest of several, because other work can only make one slower.

    The first, which also sets up the runtime, does not count.
    """
    _timed_s(dnn)
    times_s: list[float] = []
    while len(times_s) < TIMED_FRAMES and sum(times_s) < TIMED_S:
        times_s.append(_timed_s(dnn))
    return min(times_s) * 1000


def _warm_up_s(copies: list[ServerDnn]) -> float:
    """Lets each copy infer a frame, and returns what the next one takes. Raises `DnnError`."""
    for each in copies:
        _timed_s(each)
    return _timed_s(copies[0])


def _timed_s(dnn: ServerDnn) -> float:
    frame = VideoFrame.from_ndarray(np.full((1080, 1280), 128, np.uint8), format="yuv420p")
    start_s = time.perf_counter()
    dnn.infer(frame)
    return time.perf_counter() - start_s
