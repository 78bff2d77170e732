"""What a sweep was run with: settings, versions and hashes, kept beside its cells for the report."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy
import onnxruntime

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods import Method
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.version import __version__

__all__ = ["RECORD_NAME", "links_bps", "read_record", "write_record"]

RECORD_NAME = "run.json"


def write_record(
    folder: Path,
    clips: Sequence[ClipSpec],
    dnns: Sequence[DnnSpec],
    methods: Sequence[Method],
    settings: SweepSettings,
    *,
    primary: Sequence[str] = (),
) -> None:
    """Writes `run.json`. `primary` are the comparisons named before the sweep. Raises EvaluationError."""
    document = {
        "settings": {
            "points": list(settings.qualities) or settings.points,
            "limit": settings.limit,
            "step": settings.step,
            "every": settings.every,
            "server_ms": settings.server_ms,
            "server_cores": settings.server_cores,
            "live_link": _plain_link(settings.live_link),
        },
        "primary": list(primary),
        "versions": {
            "accmpeg": __version__,
            "python": platform.python_version(),
            "pyav": av.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": numpy.__version__,
            **{name: ".".join(map(str, number)) for name, number in av.library_versions.items()},
        },
        "dnns": {
            spec.card.name: {
                "task": spec.card.task,
                "sha256": spec.card.sha256,
                "reference": None if spec.stronger is None else spec.stronger.card.name,
                "accmodel": None if spec.accmodel is None else spec.accmodel.name,
                "accmodel_sha256": None if spec.accmodel is None else spec.accmodel.sha256,
            }
            for spec in dnns
        },
        "clips": {clip.name: {"sha256": clip.sha256} for clip in clips},
        "methods": {
            each.name: {"source": each.source, "family": each.family, "knobs": dict(each.knobs)}
            for each in methods
        },
        "links": {name: _plain_link(link) for name, link in settings.links.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD_NAME).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"can't write to {folder}: {error.strerror}; give another --output") from error


def read_record(folder: Path) -> dict[str, Any]:
    """What `write_record` kept; empty where there is none. Raises EvaluationError for a damaged file."""
    path = folder / RECORD_NAME
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"can't read {path}: {error}") from error
    if not isinstance(document, dict):
        raise EvaluationError(f"{path} holds no JSON object: delete it, and run the sweep's command again")
    return document


def links_bps(record: dict[str, Any]) -> dict[str, float | None]:
    """Bandwidth in bit/s by the link's name; None for traces."""
    return {name: link.get("bandwidth_bps") for name, link in record.get("links", {}).items()}


def _plain_link(link: Link) -> dict[str, Any]:
    # A trace may have a hundred thousand entries: their number says enough here.
    return {
        key: f"{len(value)} packets" if isinstance(value, list | tuple) else value
        for key, value in asdict(link).items()
        if value is not None
    }
