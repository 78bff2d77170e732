"""`accmpeg cluster`: the verbs of one machine on a Ray cluster, with the same options."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from accmpeg.cli.common import TranslatingGroup, err
from accmpeg.cli.evaluate import evaluate
from accmpeg.cli.label import label
from accmpeg.cli.options import with_options
from accmpeg.cli.sources import EMBEDDED_SCENE
from accmpeg.cli.train import train, train_and_report

__all__ = ["Address", "cluster_app"]

cluster_app = typer.Typer(cls=TranslatingGroup, help="The same work on a Ray cluster.", no_args_is_help=True)

Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help="Head of the Ray cluster; 'auto' is the cluster that this machine is part of.",
    ),
]


def _on_cluster(
    verb: Callable[..., None],
    *,
    reads: Sequence[str],
    cards: Sequence[str] = (),
    writes: Sequence[str] = (),
    run_there: Callable[..., None] | None = None,
) -> Callable[..., None]:
    """A verb whose `workers` are the nodes of a cluster; every node must see what these parameters name.

    `run_there` does it in the verb's place.
    """
    signature = inspect.signature(verb)
    address = inspect.Parameter("address", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Address)

    @functools.wraps(verb)
    def run(*, address: str | None, **given: Any) -> None:
        # Ray takes half a second to import, and is not everywhere: only these verbs pay for it.
        from accmpeg.cluster.connect import connected
        from accmpeg.cluster.needs import check_needs
        from accmpeg.cluster.workers import RayWorkers

        given = {name: _absolute(value) for name, value in given.items()}
        with connected(address) as joined:
            if address == "auto":
                err.print(f"on the Ray cluster at {joined}, which this machine is part of")
            written, own_cards = (map(Path, _listed(given, names)) for names in (writes, cards))
            folders = [each.parent if each.suffix == ".onnx" else each for each in written]
            check_needs(_listed(given, reads), list(own_cards), folders)
            gpus = 0.0 if given.get("device", "cpu") == "cpu" else 1.0
            (run_there or verb)(**given, workers=RayWorkers(gpus))

    own = [
        each.replace(kind=each.KEYWORD_ONLY)
        for each in signature.parameters.values()
        if each.name != "workers"
    ]
    run.__signature__ = signature.replace(parameters=[address, *own])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (address, *own)}
    return run


def _absolute(value: Any) -> Any:
    """Paths as they are called on all nodes, whose working directories differ."""
    if isinstance(value, list):
        return [_absolute(each) for each in value]
    if isinstance(value, str) and value != EMBEDDED_SCENE and Path(value).exists():
        return str(Path(value).absolute())
    if is_dataclass(value) and not isinstance(value, type):
        paths = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(
            value, **{name: _absolute(each) for name, each in paths.items() if isinstance(each, Path)}
        )
    return value.absolute() if isinstance(value, Path) else value


def _listed(given: dict[str, Any], names: Sequence[str]) -> list[str]:
    values = (given[name] for name in names if given[name] is not None)
    paths = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return [str(each) for each in paths if each != EMBEDDED_SCENE]


cluster_app.command("label")(with_options(_on_cluster(label, reads=["footage"], cards=["dnn"])))
cluster_app.command("evaluate")(
    with_options(
        _on_cluster(
            evaluate,
            reads=["videos", "labels", "accmodel"],
            cards=["dnn", "reference"],
            writes=["output"],
        )
    )
)


def _train_together(*, workers: object, **given: Any) -> None:
    from accmpeg.cluster.train import train_together

    train_and_report(**given, train=train_together)


cluster_app.command("train")(
    with_options(
        _on_cluster(train, reads=["labels", "validation"], writes=["output"], run_there=_train_together)
    )
)
