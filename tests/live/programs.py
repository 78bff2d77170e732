"""The real programs as processes of their own, a thin link between them, and what they leave behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from accmpeg.demo import assets_path
from accmpeg.evaluation.link.link import Link
from linklab.shaper import ShapingProxy
from tests.helpers import free_port, until

MODEL = assets_path() / "accmodel.card.toml"
WAIT_S = 240.0
"""A hung program fails a test after so long; nothing else depends on it."""


def json_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file that may still be written."""
    if not path.exists():
        return []
    *lines, _torn = path.read_text().split("\n")
    return [json.loads(line) for line in lines if line.startswith("{")]


def sequences(results: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Sequences by stream, in the order of the results; fails where one comes twice or too late."""
    found: dict[str, list[int]] = defaultdict(list)
    for each in results:
        before = found[each["stream_id"]][-1:]
        assert not before or each["sequence"] > before[0], f"{each['sequence']} came after {before[0]}"
        found[each["stream_id"]].append(each["sequence"])
    return dict(found)


class Program:
    """`accmpeg VERB …` with stdout and stderr in files; killed at the end of `with` if it still runs."""

    def __init__(
        self, folder: Path, verb: str, *arguments: str | Path, wrapper: tuple[str, ...] = ()
    ) -> None:
        number = sum(1 for _ in folder.glob(f"{verb}-*.out"))
        self.stdout, self.stderr = (folder / f"{verb}-{number}.{kind}" for kind in ("out", "err"))
        self._command = [*wrapper, sys.executable, "-m", "accmpeg", verb, *map(str, arguments)]

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=err, env=environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: it can't do anything about it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, and the end, which must be in good order."""
        self._process.send_signal(signal.SIGTERM)
        self.finish()

    def finish(self) -> None:
        """The program ends by itself, with exit code 0."""
        assert self._process.wait(WAIT_S) == 0, self.stderr.read_text()[-2000:]
        assert "Traceback" not in self.stderr.read_text()


class Serve(Program):
    """`accmpeg serve` on a port of its own, ready when `with` is entered."""

    def __init__(self, folder: Path, *arguments: str | Path, card: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.results_file = folder / "results.jsonl"
        super().__init__(
            folder, "serve", "--dnn", card, "--port", str(self.port), "--threads", "1",
            "--results", self.results_file, "--log-format", "json", *arguments,
        )  # fmt: skip

    def __enter__(self) -> Self:
        super().__enter__()
        until(self._is_ready)
        return self

    def results(self, camera: str) -> list[dict[str, Any]]:
        """What the server wrote of a camera; one file for all servers of a test."""
        return [each for each in json_lines(self.results_file) if each["camera"] == camera]

    def cameras(self) -> dict[str, dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/cameras", timeout=WAIT_S) as answer:
            found = json.load(answer)
        listed = found["cameras"] if isinstance(found, dict) else found
        return {each["name"]: each for each in listed}

    def _is_ready(self) -> bool:
        assert self.is_running, self.stderr.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=WAIT_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Stream(Program):
    """`accmpeg stream` of footage, for ever unless `--limit` is among the arguments.

    Without B-frames, because with them results come in another order than frames are sent.
    """

    def __init__(
        self, folder: Path, footage: Path, url: str, *arguments: str | Path, wrapper: tuple[str, ...] = ()
    ) -> None:
        super().__init__(
            folder, "stream", footage, "--loop", "--to", url, "--accmodel", MODEL, "--gop", "10",
            "--statistics-s", "0.3", "--b-frames", "0", "--log-format", "json", *arguments, wrapper=wrapper,
        )  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        return json_lines(self.stdout)

    def statistics(self) -> Counter[Any]:
        """The latest counters that it has logged."""
        records = json_lines(self.stderr)
        told = [each for each in records if each.get("event") in ("statistics", "camera ended")]
        return Counter(told[-1] if told else {})

    def wait_until_answered(self) -> None:
        """Until hardly more than what is on its way waits for a result."""

        def waiting() -> int:
            told = self.statistics()
            gone = sum(told[f"dropped_{reason}"] for reason in ("spool", "lost", "late"))
            return int(told["encoded"] - told["results"] - gone)

        until(lambda: waiting() <= 3)

    def wait_for_more(self, count: int, counter: str = "encoded") -> None:
        """Until a counter has risen by so many."""
        before = self.statistics()[counter]
        until(lambda: self.statistics()[counter] >= before + count)


class Thin:
    """A `ShapingProxy` in a thread: between a camera here and a server there."""

    def __init__(self, port: int, link: Link | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxy = ShapingProxy(("127.0.0.1", port), link or Link(bandwidth_bps=20e6))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result(WAIT_S)
        self.url = f"ws://127.0.0.1:{self._proxy.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = self._proxy.__aexit__(kind, error, trace)
        asyncio.run_coroutine_threadsafe(end, self._loop).result(WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing passes within; connections stay open."""
        self._loop.call_soon_threadsafe(self._proxy.cut)
        yield
        self._loop.call_soon_threadsafe(self._proxy.restore)

    def reset(self) -> None:
        """Breaks all connections."""
        self._loop.call_soon_threadsafe(self._proxy.reset)
