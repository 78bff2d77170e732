"""Doors that open slowly: a package's public names are imported when they are first asked for.

```python
if TYPE_CHECKING:
    from accmpeg.training.build import train_accmodel
else:
    __getattr__, __dir__ = lazily(__name__)
```

What type checkers read is what is imported, so every name is written once; `import accmpeg` stays as light as
a camera needs it, and PyTorch is loaded by those alone who train.
"""

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

__all__ = ["lazily"]


def lazily(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose imports stand under `if TYPE_CHECKING:`."""

    def load(name: str) -> object:
        home = _homes(package).get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = import_module(f"{home}.{name}") if home == package else getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *_homes(package)})

    return load, listed


@cache
def _homes(package: str) -> dict[str, str]:
    """The module that each name is imported from; the package itself for its own modules."""
    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    (guarded,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = (node for node in guarded.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}
