"""Methods of other distributions, announced by the entry point group `accmpeg.methods`.

```toml
[project.entry-points."accmpeg.methods"]
half-rate = "half_rate:HalfRate"
```
"""

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

from accmpeg.errors import MethodError, UsageError
from accmpeg.evaluation.methods.base import Method

__all__ = ["PLUGIN_GROUP", "find_plugins", "load_plugin"]

PLUGIN_GROUP = "accmpeg.methods"


def find_plugins(taken: Collection[str]) -> dict[str, EntryPoint]:
    """Announced methods by name, not loaded yet; `taken` are the names of the package's own.

    Raises UsageError where two methods have one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=PLUGIN_GROUP), key=lambda entry: (entry.name, _origin(entry))):
        if entry.name in taken or entry.name == "all":
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
    """The method behind an entry point: an object with `name`, `source` and `open`, or its class.

    Raises MethodError for one that can't be loaded or isn't a method.
    """
    where = f"the method {entry.name!r} of {_origin(entry)} ({entry.value})"
    try:
        loaded = entry.load()
        method = loaded() if isinstance(loaded, type) else loaded
    # Somebody else's module may fail in any way.
    except Exception as error:
        raise MethodError(
            f"{where} can't be loaded: {type(error).__name__}: {error}; mend or uninstall it"
        ) from error
    missing = [part for part in ("name", "source", "open") if not hasattr(method, part)]
    if missing:
        raise MethodError(f"{where} is no method: it has no {' and no '.join(missing)}")
    if method.name != entry.name:
        raise MethodError(f"{where} calls itself {method.name!r}: give it the name of its entry point")
    if not callable(method.open):
        raise MethodError(f"{where} is no method: its open can't be called")
    checked: Method = method
    return checked


def _origin(entry: EntryPoint) -> str:
    return f"the distribution {entry.dist.name}" if entry.dist is not None else "an unnamed distribution"
