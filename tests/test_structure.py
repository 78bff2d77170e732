"""The structure that the design promises: imports point one way, and the camera stays light."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import accmpeg
from structure import LAYERS, circle, imports, modules, room_of, too_long, upwards

SOURCE = Path(accmpeg.__file__).parent
HEAVY = {"torch", "torchvision", "cv2", "supervision", "fastapi", "transformers", "onnx"}
# What `pip install accmpeg` asks for; docs/guides/camera.md counts its megabytes.
CAMERA = {"av", "numpy", "onnxruntime", "pydantic", "rich", "tomli-w", "typer", "websockets"}
FILES = modules()


def test_every_room_has_a_place() -> None:
    assert {room_of(name) for name in FILES} - {""} == set().union(*LAYERS)


def test_imports_point_down() -> None:
    assert upwards(imports(FILES)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imports(FILES)) == []


def test_nothing_is_longer_than_a_reader_can_hold() -> None:
    assert list(too_long(FILES)) == []


def test_a_circle_and_an_import_upwards_are_found(tmp_path: Path) -> None:
    for name, text in (
        ("media/one.py", "def late():\n    from accmpeg.media import two\n"),
        ("media/two.py", "from accmpeg.media.one import late\nfrom accmpeg.cli.verb import x\n"),
        ("cli/verb.py", "x = 1\n" + "y = 1\n" * 400),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    files = modules(tmp_path)
    assert set(circle(imports(files))) == {"accmpeg.media.one", "accmpeg.media.two"}
    assert upwards(imports(files)) == [("accmpeg.media.two", "accmpeg.cli.verb")]
    assert list(too_long(files)) == ["accmpeg.cli.verb has 401 lines"]


def test_the_camera_loads_nothing_heavy() -> None:
    program = (
        "import sys, accmpeg, accmpeg.camera, accmpeg.cli, accmpeg.media.sink, accmpeg.steering;"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_camera_installs_what_it_is_known_to_need() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {re.split("[<>=]", wanted)[0] for wanted in project["dependencies"]} == CAMERA


def test_the_camera_imports_only_what_is_installed_with_it() -> None:
    """Within functions too: what is missing there would fail on the day it is used."""
    rooms = {"camera", "steering", "accmodel", "protocol", "media"}
    extras = {"openvino", "fsspec"}  # what an error names where it is missing
    found: set[str] = set()
    for name in (name for name in FILES if room_of(name) in rooms):
        for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    assert found - sys.stdlib_module_names - {"accmpeg"} - extras <= {
        name.replace("-", "_") for name in CAMERA
    }


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
