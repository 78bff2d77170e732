"""What becomes of work whose worker dies: tried again, and at last named."""

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from accmpeg.cluster.connect import TRIES, connected
from accmpeg.cluster.workers import RayWorkers
from accmpeg.errors import ClusterError, LabelError
from tests.cluster.conftest import accmpeg_command, lines
from tests.cluster.greedy import take_memory
from tests.helpers import until

pytestmark = pytest.mark.slow


def count_to(last: int) -> Iterator[int]:
    yield from range(last)


def doubled(number: int, *, killed: Path, at: int, deaths: int) -> int:
    """Dies `deaths` times at one number, as a process does that the kernel ends for its memory."""
    if number == at and len(list(killed.iterdir())) < deaths:
        (killed / f"{len(list(killed.iterdir()))}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def greedy(last: int) -> Iterator[int]:
    """Reads two, and takes memory without end for the third."""
    yield from range(2)
    take_memory()


def refusing(number: int) -> int:
    raise LabelError(f"{number} can't be labelled")


def streamed(last: int, known: frozenset[int], killed: Path, deaths: int) -> Iterator[int]:
    for number in range(last):
        if number not in known:
            yield doubled(number, killed=killed, at=2, deaths=deaths)


def test_work_is_tried_again_and_then_named(cluster: Any, tmp_path: Path) -> None:
    few, many, streams = (tmp_path / name for name in ("few", "many", "streams"))
    for folder in (few, many, streams):
        folder.mkdir()
    taken: list[int] = []
    with connected(cluster.address):
        workers = RayWorkers()
        workers.in_order([3, 4], count_to, partial(doubled, killed=few, at=2, deaths=1), taken.append)
        assert taken == [0, 2, 4, 0, 2, 4, 6]
        with pytest.raises(
            ClusterError, match=rf"^2: its worker died.* {TRIES} times; what came before is kept"
        ):
            workers.in_order([4], count_to, partial(doubled, killed=many, at=2, deaths=99), taken.append)
        assert taken[7:] == [0, 2]
        # What the work itself refuses is no reason to try again.
        with pytest.raises(LabelError, match=r"^0 can't be labelled$"):
            workers.in_order([4], count_to, refusing, taken.append)

        kept: list[int] = []

        def arguments(last: int) -> tuple[Any, ...]:
            return last, frozenset(number // 2 for number in kept), streams, 1

        workers.as_finished([5], streamed, arguments, kept.append, lambda done: None)
        assert kept == [0, 2, 4, 6, 8]


@pytest.mark.timeout(600)
def test_footage_whose_reader_takes_too_much_memory_is_named(little_memory: None, cluster: Any) -> None:
    """By itself Ray begins such a task again without end."""
    taken: list[int] = []
    with (
        connected(cluster.address),
        pytest.raises(
            ClusterError, match=rf"^7: its worker ran out of memory, {TRIES} times; what came before is kept"
        ),
    ):
        RayWorkers().in_order([7], greedy, abs, taken.append)
    assert taken in ([], [0], [0, 1])  # with what comes after them in one task


def test_bad_input_is_one_line_and_ctrl_c_keeps_what_is_finished(
    cluster: Any, small_card: Path, render_video: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    (tmp_path / "footage").mkdir()
    video = render_video(tmp_path / "footage" / "street.mp4", 2001, 30)

    def fails(*arguments: object) -> str:
        done = subprocess.run(accmpeg_command("cluster", *arguments), capture_output=True, text=True)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        return line

    card = tmp_path / "lost.card.toml"
    card.write_text(small_card.read_text().replace("detector.onnx", "lost.onnx"))
    asked = ("label", video.parent, "-o", tmp_path / "labels", "--every", 1, "--dnn")
    assert "this machine can't see" in fails(
        "label", tmp_path / "no", "-o", tmp_path / "labels", *asked[-1:], card
    )
    assert "the weights of" in fails(*asked, card)
    assert "Protocol not known" in fails("label", "nope://x", "-o", tmp_path / "labels", "--dnn", small_card)

    journal = tmp_path / "labels" / "journal.jsonl"
    with subprocess.Popen(
        accmpeg_command("cluster", *asked, small_card), stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: process.poll() is not None or lines(journal) >= 3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.strip().splitlines()[-1] == "error: interrupted: what was finished is kept"
    assert len(list((tmp_path / "labels").glob("*/*.npz"))) == lines(journal) >= 3
