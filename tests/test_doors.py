"""The library's public face: what the doors export, and the frozen listing of every signature.

A change that is meant: `ACCMPEG_REGENERATE=1 pytest tests/test_doors.py`, and say it in the changelog.
"""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from accmpeg.camera.options import CameraKeywords, CameraOptions
from accmpeg.media.codecs import EncoderKeywords, EncoderSettings

DOORS = ("accmpeg", "accmpeg.server", "accmpeg.training", "accmpeg.evaluation")
LISTING = Path(__file__).parent / "golden" / "doors.txt"


def listing() -> Iterator[str]:
    for door in DOORS:
        module = importlib.import_module(door)
        yield f"# {door}"
        for name in sorted(module.__all__):
            yield from described(name, getattr(module, name))
        yield ""


def described(name: str, value: object) -> Iterator[str]:
    """As it is written in the source: what Python makes of annotations differs between its versions."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        yield f"{name}: {type(value).__name__}"
        return
    source = Path(inspect.getsourcefile(value) or "").read_text(encoding="utf-8")
    (node,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == value.__name__
    )
    if isinstance(node, ast.FunctionDef):
        yield called(node)
        return
    bases = ", ".join(map(ast.unparse, node.bases))
    yield f"class {name}({bases})" if bases else f"class {name}"
    for member in node.body:
        yield from (f"    {line}" for line in member_lines(member))


def member_lines(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.AnnAssign):
        if not (name := ast.unparse(node.target)).startswith("_"):
            default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
            yield f"{name}: {kind(node.annotation)}{default}"
    elif isinstance(node, ast.FunctionDef):
        if "property" in ast.unparse(node.decorator_list[0] if node.decorator_list else ast.Constant("")):
            yield f"{node.name} -> {kind(node.returns)}"
        elif not node.name.startswith("_") or node.name in ("__init__", "__iter__", "__enter__"):
            yield called(node)


def called(node: ast.FunctionDef) -> str:
    return f"{node.name}({ast.unparse(node.args)}) -> {kind(node.returns)}"


def kind(annotation: ast.expr | None) -> str:
    """The type, without what `Annotated` says beside it."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        annotation = annotation.slice.elts[0]
    return "None" if annotation is None else ast.unparse(annotation)


def test_the_signatures_are_those_that_were_promised() -> None:
    text = "\n".join(listing())
    if os.environ.get("ACCMPEG_REGENERATE"):
        LISTING.parent.mkdir(exist_ok=True)
        LISTING.write_text(text, encoding="utf-8")
    assert text == LISTING.read_text(encoding="utf-8")


@pytest.mark.parametrize("door", DOORS)
def test_every_public_function_says_what_it_takes_and_gives(door: str) -> None:
    module = importlib.import_module(door)
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isfunction(value):
            continue
        hints = get_type_hints(value)
        for parameter in inspect.signature(value).parameters.values():
            assert parameter.name in hints, f"{door}.{name}: {parameter.name} has no type"
            assert "Any" not in str(parameter.annotation), f"{door}.{name}: {parameter.name}"
        assert "Args:" in (value.__doc__ or ""), f"{door}.{name} does not say what it takes"


@pytest.mark.parametrize("door", DOORS)
def test_a_door_loads_nothing_before_it_is_asked(door: str) -> None:
    heavy = {"av", "cv2", "fastapi", "torch", "onnxruntime", "supervision"}
    program = f"import sys, {door}; dir({door}); print(sorted({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_a_name_that_no_door_has_is_an_attribute_error() -> None:
    module = importlib.import_module("accmpeg")
    with pytest.raises(AttributeError, match="module 'accmpeg' has no attribute 'nothing'"):
        _ = module.nothing
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize(
    ("keywords", "settings"), [(CameraKeywords, CameraOptions), (EncoderKeywords, EncoderSettings)]
)
def test_keywords_are_the_fields_of_the_settings(keywords: type, settings: type) -> None:
    assert get_type_hints(keywords) == {
        name: kind
        for name, kind in get_type_hints(settings).items()
        if name in {field.name for field in fields(settings)}
    }
