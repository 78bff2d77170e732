"""Server DNNs as they are loaded: what each is, where it runs, and in how many copies."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.device import cuda_index
from accmpeg.dnn.registry import get_adapter
from accmpeg.dnn.weights import sha256_of
from accmpeg.server.settings import ServerSettings

__all__ = ["LoadedDnn", "ModelIdentity", "load"]

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


def load(settings: ServerSettings, card: Path, copies: int | None = None) -> LoadedDnn:
    """A DNN in so many copies; by default as many as the settings say or, if they don't, as pay here.

    Raises what `load_dnn` raises.
    """
    loaded = _copies(settings, card, copies or settings.copies)
    described = loaded[0].card
    sha256, adapter = described.sha256, get_adapter(described.adapter)
    if sha256 is None and adapter.model_is_file:
        sha256 = sha256_of(card.parent / described.model)
    gpu = cuda_index(settings.device)
    device = "cpu" if gpu is None else f"cuda:{gpu}"
    if not adapter.runs_here:
        device = str(described.options["address"])
    return LoadedDnn(loaded, ModelIdentity(described.name, sha256, device))


def _copies(settings: ServerSettings, card: Path, copies: int | None) -> list[ServerDnn]:
    threads, device = settings.threads, settings.device
    if not get_adapter(read_card(card).adapter).runs_here:
        return [load_dnn(card) for _ in range(copies or REQUESTS_AT_ONCE)]
    if copies is None and threads is None and device == "cpu":
        lone = load_dnn(card, threads=1, device=device)
        if _infer_ms(lone) > QUICK_MS:
            return [load_dnn(card, device=device)]
        cores = min(len(os.sched_getaffinity(0)), MOST_COPIES)
        return [lone, *(load_dnn(card, threads=1, device=device) for _ in range(cores - 1))]
    if threads is None and (copies or 1) > 1 and device == "cpu":
        threads = 1
    return [load_dnn(card, threads=threads, device=device) for _ in range(copies or 1)]


def _infer_ms(dnn: ServerDnn) -> float:
    """How long a frame takes: the quickest of several, because other work can only make one slower.

    The first, which also sets up the runtime, does not count.
    """
    frame = VideoFrame.from_ndarray(np.full((1080, 1280), 128, np.uint8), format="yuv420p")
    dnn.infer(frame)
    times_s: list[float] = []
    while len(times_s) < TIMED_FRAMES and sum(times_s) < TIMED_S:
        start_s = time.perf_counter()
        dnn.infer(frame)
        times_s.append(time.perf_counter() - start_s)
    return min(times_s) * 1000
