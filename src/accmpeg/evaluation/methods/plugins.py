"""Methods of other distributions, announced by the entry point group `accmpeg.methods`.

```toml
[project.entry-points."accmpeg.methods"]
half-rate = "half_rate:HALF_RATE"
```
"""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from accmpeg.errors import MethodError, UsageError
from accmpeg.evaluation.methods.base import Method

__all__ = ["GROUPS", "PLUGIN_GROUP", "find_plugins", "load_plugin"]

PLUGIN_GROUP = "accmpeg.methods"

GROUPS = ("primary", "all")
"""Names that stand for several methods."""


def find_plugins(taken: Collection[str]) -> dict[str, EntryPoint]:
    """Announced methods by name, not loaded yet; `taken` are the names of the package's own.

    Raises UsageError where two methods have one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=PLUGIN_GROUP), key=lambda entry: (entry.name, _origin(entry))):
        if entry.name in taken or entry.name in GROUPS:
            raise UsageError(
                f"{_origin(entry)} brings a method {entry.name!r}, a name that accmpeg uses itself: "
                "rename or remove it"
            )
        if entry.name in found:
            raise UsageError(
                f"{_origin(found[entry.name])} and {_origin(entry)} both bring a method {entry.name!r}: "
                "remove one of them"
            )
        found[entry.name] = entry
    return found


def load_plugin(entry: EntryPoint) -> Method:
    """The `Method` behind an entry point; raises MethodError where there is none or it can't be loaded."""
    where = f"the method {entry.name!r} of {_origin(entry)} ({entry.value})"
    try:
        method = entry.load()
    # Somebody else's module may fail in any way.
    except Exception as error:
        raise MethodError(
            f"{where} can't be loaded: {type(error).__name__}: {error}; mend or uninstall it"
        ) from error
    if not isinstance(method, Method):
        raise MethodError(
            f"{where} is a {type(method).__name__}: make it an accmpeg.evaluation.methods.Method"
        )
    if method.name != entry.name:
        raise MethodError(f"{where} calls itself {method.name!r}: give it the name of its entry point")
    if method.family != "plugin":
        raise MethodError(f"{where} says it is of the family {method.family!r}: give it 'plugin'")
    return replace(method, code=_code_hash(entry))


def _code_hash(entry: EntryPoint) -> str:
    """Of the module that an entry point leads into, or of the whole package that the module is in."""
    spec = find_spec(entry.module.partition(".")[0])
    digest = hashlib.sha256()
    if spec is not None:
        folders = spec.submodule_search_locations or ()
        files = sorted(file for folder in folders for file in Path(folder).rglob("*.py"))
        for file in files or [Path(spec.origin or "")]:
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _origin(entry: EntryPoint) -> str:
    return f"the distribution {entry.dist.name}" if entry.dist is not None else "an unnamed distribution"
