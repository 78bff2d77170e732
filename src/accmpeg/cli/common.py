"""What every verb shares: consoles, the one place that turns errors into exit codes, and option parsing."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from typer.core import TyperGroup

from accmpeg.errors import AccmpegError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from accmpeg.accmodel.card import AccModelCard

__all__ = [
    "AsJson",
    "Baselines",
    "CaFile",
    "Insecure",
    "Labels",
    "Reference",
    "TranslatingGroup",
    "err",
    "interrupt_on_sigterm",
    "out",
    "print_json",
    "progress_bar",
    "warn_of",
    "whole",
]


class _Stderr:
    """Stderr of the moment. Where it is full or its terminal is gone, work of hours goes on without it."""

    def write(self, text: str) -> int:
        with self._or_nothing():
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with self._or_nothing():
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # Not only this text: what is still in the buffer would fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# No markup: it would swallow what stands in brackets, such as the extra in "accmpeg[server]".
err = Console(
    file=cast(IO[str], _Stderr()) if sys.stderr else None, stderr=True, highlight=False, markup=False
)
out = Console(highlight=False, markup=False)

FIRST_LINE_S, LINE_EVERY_S = 5.0, 30.0
"""When progress without a terminal is said: soon, so that a log shows life, and then seldom."""

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
CaFile = Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file of certificates to trust.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Let the token cross the network unencrypted.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Folder with true labels, CLIP.json in COCO's detection format."
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="Card of a stronger DNN that confirms the server DNN's answers."
    ),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="METHOD",
        help="A method to compare with; may repeat.",
        show_default="aq-1, aq-1@dnn, aq-0@dnn, b2@dnn, constant-qp",
    ),
]
"""What several verbs take, in the words of all."""

EXIT_FAILED = 1
EXIT_BAD_USE = 2
EXIT_INTERRUPTED = 130

# Which extra brings the module that turned out to be missing.
_EXTRA_OF_MODULE = {
    "cv2": "server",
    "fastapi": "server",
    "jinja2": "server",
    "PIL": "server",
    "prometheus_client": "server",
    "supervision": "server",
    "uvicorn": "server",
    "matplotlib": "evaluate",
    "scipy": "evaluate",
    "onnx": "train",
    "onnx2torch": "train",
    "safetensors": "train",
    "torch": "train",
    "torchvision": "train",
    "transformers": "huggingface",
    "openvino": "openvino",
    "aiomqtt": "mqtt",
    "ray": "cluster",
}


class TranslatingGroup(TyperGroup):
    """A command group whose failures are one clear line and the right exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _fail(str(error), EXIT_BAD_USE)
        except AccmpegError as error:
            _fail(str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            _fail("interrupted: what was finished is kept", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of our stdout has gone (`accmpeg … | head`): nothing to say and nobody to say it to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_FAILED) from None
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            _fail(str(MissingExtraError(f"this command ({error.name})", extra)), EXIT_FAILED)
        except OSError as error:
            _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", EXIT_FAILED)


def _fail(message: str, exit_code: int) -> NoReturn:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    raise typer.Exit(exit_code)


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM behave like Ctrl-C, so that a stopped service keeps what it finished."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def whole() -> Iterator[None]:
    """What is done within is done whole: a first Ctrl-C or SIGTERM waits for its end, a second does not."""
    waiting: list[int] = []

    def wait(number: int, _frame: object) -> None:
        if waiting:
            raise KeyboardInterrupt
        waiting.append(number)

    before = {number: signal.signal(number, wait) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        raise KeyboardInterrupt


def print_json(document: Any) -> None:
    """Puts one JSON document on stdout (`--json`)."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


class _ProgressLines(Progress):
    """Progress where no terminal shows a bar: a line on stderr every `LINE_EVERY_S`, and one at the end."""

    def __init__(self) -> None:
        super().__init__(console=err, disable=True)
        self._due_s = time.monotonic() + FIRST_LINE_S
        self._unsaid: TaskID | None = None
        self._begun: dict[str, tuple[float, float]] = {}
        """How much was done, and when in s, at the first word of each description: what an earlier run did
        took no time of this one."""

    def update(self, task_id: TaskID, **fields: Any) -> None:
        super().update(task_id, **fields)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def stop(self) -> None:
        super().stop()
        if self._unsaid is not None:
            self._say(self._unsaid, at_once=True)

    def _say(self, task_id: TaskID, *, at_once: bool = False) -> None:
        self._unsaid = task_id
        task = next(task for task in self.tasks if task.id == task_id)
        elapsed_s = task.elapsed or 0.0
        found, begun_s = self._begun.setdefault(task.description, (task.completed, elapsed_s))
        if not at_once and time.monotonic() < self._due_s:
            return
        total = "" if task.total is None else f"/{task.total:g}"
        left = ""
        if task.total and task.completed > found and not at_once:
            left_s = (elapsed_s - begun_s) * (task.total - task.completed) / (task.completed - found)
            left = f", about {max(0.0, left_s):.0f} s left"
        line = f"{task.description} {task.completed:g}{total}, {elapsed_s:.0f} s{left}"
        err.print(line, soft_wrap=True)
        self._due_s = time.monotonic() + LINE_EVERY_S
        self._unsaid = None


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Progress on stderr with count, elapsed and remaining time: a bar on a terminal, else lines in a log."""
    if err.is_terminal:
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
        )
    else:
        progress = _ProgressLines()
    with progress:
        yield progress


def warn_of(accmodel: "AccModelCard | Path") -> None:
    """Says on stderr why an AccModel should be trained better before it is relied on, if it should."""
    from accmpeg.accmodel.card import read_accmodel_card

    card = read_accmodel_card(accmodel) if isinstance(accmodel, Path) else accmodel
    if shortcomings := card.shortcomings():
        err.print(f"warning: {shortcomings}", style="yellow", soft_wrap=True)
