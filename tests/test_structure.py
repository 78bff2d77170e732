"""The structure that the design promises: imports point one way, and the camera stays light."""

import ast
import graphlib
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import accmpeg

SOURCE = Path(accmpeg.__file__).parent
LAYERS = (
    {"errors", "version"},
    {"wire"},
    {"media"},
    {"tasks"},
    {"policy", "dnn"},
    {"accgrad"},
    {"accmodel"},
    {"camera"},
    {"server", "evaluation"},
    {"demo"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
HEAVY = {"torch", "torchvision", "cv2", "supervision", "fastapi", "transformers", "onnx"}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def rooms() -> list[tuple[str, Path]]:
    return [(file.relative_to(SOURCE).parts[0].removesuffix(".py"), file) for file in SOURCE.rglob("*.py")]


def test_every_room_has_a_place() -> None:
    assert {room for room, _ in rooms()} - {"__init__", "__main__"} == set(LEVEL)


@pytest.mark.parametrize(("room", "file"), rooms(), ids=lambda value: getattr(value, "name", value))
def test_imports_point_one_way(room: str, file: Path) -> None:
    if room in ("__init__", "__main__"):
        return
    for module in imports_of(file):
        parts = module.split(".")
        if parts[0] == "accmpeg" and len(parts) > 1:
            assert LEVEL[parts[1]] <= LEVEL[room], f"{file} imports {module}"


def module_name(file: Path) -> str:
    parts = ("accmpeg", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = {module_name(file): file for _, file in rooms()}
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        wanted = graph.setdefault(name, set())
        # What is imported within functions, or for types alone, can't fail while the modules load.
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                within = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= (within | {node.module}) & set(files)
            elif isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names} & set(files)
        wanted.discard(name)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_camera_loads_nothing_heavy() -> None:
    program = (
        "import sys, accmpeg, accmpeg.camera, accmpeg.cli, accmpeg.media.sink, accmpeg.steering;"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.walk_packages([str(SOURCE)], "accmpeg.")], ids=str
)
def test_public_names_exist_and_are_listed(name: str) -> None:
    if name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    if all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom) for node in tree.body):
        return
    assert module.__doc__, f"{name} does not say what it is for"
    listed = getattr(module, "__all__", None)
    assert listed is not None, f"{name} has no __all__"
    assert all(hasattr(module, public) for public in listed)
