"""The `accmpeg` command: one file per verb, registered here."""

import io
import os
import sys
from pathlib import Path

import typer

from accmpeg.cli.cluster import cluster_app
from accmpeg.cli.cluster_serve import cluster_serve
from accmpeg.cli.common import TranslatingGroup, interrupt_on_sigterm
from accmpeg.cli.config import configured
from accmpeg.cli.demo import demo
from accmpeg.cli.doctor import doctor
from accmpeg.cli.encode import encode
from accmpeg.cli.evaluate import evaluate
from accmpeg.cli.fleet import fleet
from accmpeg.cli.label import label
from accmpeg.cli.models import models_app
from accmpeg.cli.options import with_options
from accmpeg.cli.profile import profile
from accmpeg.cli.report import report
from accmpeg.cli.serve import serve
from accmpeg.cli.stream import stream
from accmpeg.cli.train import train
from accmpeg.cli.version import version, version_option

__all__ = ["app", "main"]

VERBS = (
    *("demo", "doctor", "models", "label", "train", "profile", "encode"),
    *("stream", "serve", "fleet", "evaluate", "report", "cluster", "version"),
)
"""In the order in which one comes to need them."""


class _Verbs(TranslatingGroup):
    def list_commands(self, _ctx: object) -> list[str]:
        return list(VERBS)


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    # Until 0.2.0 `demo` and `evaluate` said `--out` where the other verbs say `--output`.
    context_settings={"token_normalize_func": lambda name: "output" if name == "out" else name},
)
app.callback()(version_option)
for verb in (demo, doctor, label, train, profile, encode, evaluate, report, fleet, version):
    app.command()(with_options(verb))
app.command(**configured("serve"))(with_options(serve))
app.command(**configured("stream"))(with_options(stream))
cluster_app.command("serve", **configured("cluster-serve"))(with_options(cluster_serve))
app.add_typer(models_app, name="models")
app.add_typer(cluster_app, name="cluster")


def main() -> None:
    """Runs the command that the arguments name."""
    # Python has none where a supervisor closed it (`>&-`), and what is printed would end the command.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Of names and dashes that a terminal or file can't hold, the rest is still worth reading.
        sys.stdout.reconfigure(errors="replace")
    interrupt_on_sigterm()
    app()
