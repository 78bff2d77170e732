"""The package's rooms: which module imports which, and what has grown too long. `make structure` prints it.

Imports within functions and for types alone count: what a reader has to know counts, not what Python runs.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["LAYERS", "circle", "imports", "modules", "room_of", "too_long", "upwards"]

SOURCE = Path(__file__).parents[1] / "src" / "accmpeg"

LAYERS = (
    {"errors", "files", "lazy", "options", "quiet", "version", "workers"},
    {"media"},
    {"protocol"},
    {"tasks"},
    {"dnn"},
    {"accmodel"},
    {"steering"},
    {"training"},
    {"camera"},
    {"server"},
    {"evaluation"},
    {"demo"},
    {"cluster"},
    {"cli"},
)
"""From the ground up; a room may import from those before it."""

FILE_LINES, FUNCTION_LINES, CLASS_LINES = 400, 80, 250
REASON = "# Long because "
"""A comment of this beginning, within what is too long, is the sentence that says why it stays so."""


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """The files of all modules by their dotted names."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = ("accmpeg", *file.relative_to(source).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """For every module those modules of the package that it imports, wherever it does."""
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        wanted = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                within = {f"{node.module}.{alias.name}" for alias in node.names} & set(files)
                wanted |= within
                if len(within) < len(node.names) and node.module in files:
                    wanted.add(node.module)
            elif isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names} & set(files)
        wanted.discard(name)
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of modules that import each other, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def room_of(module: str) -> str:
    """The room of a module; empty for the package itself and its `__main__`, which stand above all."""
    parts = module.split(".")
    return "" if len(parts) < 2 or parts[1] == "__main__" else parts[1]


def upwards(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Imports of a room from one above it."""
    level = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
    return [
        (module, wanted)
        for module, all_wanted in graph.items()
        for wanted in sorted(all_wanted)
        if room_of(module) and (not room_of(wanted) or level[room_of(wanted)] > level[room_of(module)])
    ]


def too_long(files: Mapping[str, Path]) -> Iterator[str]:
    """Files, functions and classes beyond the house's lengths that give no reason."""
    for module, file in files.items():
        text = file.read_text(encoding="utf-8")
        lines = text.split("\n")
        if (length := len(lines) - 1) > FILE_LINES and REASON not in text:
            yield f"{module} has {length} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                limit = FUNCTION_LINES
            elif isinstance(node, ast.ClassDef):
                limit = CLASS_LINES
            else:
                continue
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            own = lines[node.lineno - 1 : node.end_lineno]
            if length > limit and not any(line.strip().startswith(REASON) for line in own):
                yield f"{module}.{node.name} has {length} lines"


def main() -> int:
    """Prints the rooms, what each imports, and what is wrong; 1 if anything is."""
    files = modules()
    graph = imports(files)
    for rooms in LAYERS:
        for room in sorted(rooms):
            own = [module for module in files if room_of(module) == room]
            lines = sum(files[module].read_text(encoding="utf-8").count("\n") for module in own)
            print(f"\n{room}: {len(own)} modules, {lines} lines")
            for module in own:
                print(
                    f"  {module.removeprefix('accmpeg.')} <- {', '.join(sorted(graph[module])) or 'nothing'}"
                )
    total = sum(file.read_text(encoding="utf-8").count("\n") for file in files.values())
    print(f"\n{len(files)} modules, {total} lines")
    problems = [f"{module} imports {wanted}, which is above it" for module, wanted in upwards(graph)]
    if found := circle(graph):
        problems.append(f"a circle: {' -> '.join(found)}")
    problems += too_long(files)
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
