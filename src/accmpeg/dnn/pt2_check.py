"""Refuses `torch.export` files that could run code while they are loaded.

`torch.export.load` unpickles weights and sample inputs, evaluates size expressions, looks operators up by
dotted name anywhere in PyTorch, and compiles Python source in which names from the file are pasted. A file
written by `torch.export.save` from an ordinary network needs none of these powers: its weights are plain
bytes, its sample inputs plain tensors, its operators come from a few namespaces, its names are identifiers.
Exactly that is let through. It is a filter over today's format, not a sandbox.
"""

import ast
import io
import json
import re
from typing import Any

import torch

from accmpeg.errors import WeightsError

__all__ = ["check_archive"]

PLAIN_MEMBER = re.compile(
    r"models/model\.json|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|\.data/\w+|version"
)
OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_set_grad_enabled|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)",
    re.ASCII,
)
NAME = re.compile(r"[\w.@:+<>/ -]*", re.ASCII)
"""Without quotes, brackets, commas and line ends, text pasted into source can't call anything."""

NEVER_COMPILED = ("metadata", "guards_code", "as_string", "stack_trace")
FUNCTION_OR_OBJECT = ("as_operator", "as_custom_obj")
TREE = ("in_spec", "out_spec", "treespec_namedtuple_fields", "treespec_json")
EXPRESSION_NODES = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.Tuple),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.Compare, ast.cmpop),
)


def check_archive(content: bytes, name: str) -> None:
    """Raises `WeightsError` unless the file holds only plain tensors and known operators."""
    from torch.export.pt2_archive import PT2ArchiveReader

    try:
        with PT2ArchiveReader(io.BytesIO(content)) as archive:
            files = {member: archive.read_bytes(member) for member in archive.get_file_names()}
    except (RuntimeError, AssertionError, ValueError) as error:
        raise WeightsError(
            f"{name} is no torch.export file of PyTorch 2.9 or newer: write it anew with torch.export.save"
        ) from error
    try:
        _check_members(files)
    except (_UnsafeError, KeyError, TypeError, ValueError, SyntaxError, RecursionError) as error:
        reason = error if isinstance(error, _UnsafeError) else "its description is damaged"
        raise WeightsError(
            f"{name} is not loaded because that could run code: {reason}; export the network to ONNX, "
            "or give it as 'package.module:callable'"
        ) from error


class _UnsafeError(Exception):
    """What the file asks for beyond plain tensors and known operators."""


def _check_members(files: dict[str, bytes]) -> None:
    for member, data in files.items():
        if not PLAIN_MEMBER.fullmatch(member):
            raise _UnsafeError(f"it contains '{member[:80]}'")
        if member.endswith("_config.json"):
            for key, entry in json.loads(data)["config"].items():
                if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                    raise _UnsafeError(f"'{key[:80]}' is pickled")
    _check(json.loads(files["models/model.json"]))
    samples = files["data/sample_inputs/model.pt"]
    if samples:
        try:
            torch.load(io.BytesIO(samples), weights_only=True)
        # The restricted unpickler raises its own and many other classes.
        except Exception as error:
            raise _UnsafeError("its sample inputs are more than tensors") from error


def _check(value: Any, key: str = "") -> None:
    """Walks the program's JSON; every text in it must be harmless where the loader uses it."""
    if isinstance(value, dict):
        target = value.get("target")
        if "inputs" in value and target is not None and not OPERATOR.fullmatch(str(target)):
            raise _UnsafeError(f"it uses {str(target)[:80]}")
        for name, entry in value.items():
            if name in FUNCTION_OR_OBJECT:
                raise _UnsafeError("it passes functions or objects to operators")
            if not NAME.fullmatch(name):
                raise _UnsafeError(f"it has the name {name[:80]!r}")
            if name not in NEVER_COMPILED:
                _check(entry, name)
    elif isinstance(value, list):
        for entry in value:
            _check(entry, key)
    elif isinstance(value, str):
        if key == "expr_str":
            _check_expression(value)
        elif key in TREE:
            _check_tree(value)
        elif not NAME.fullmatch(value):
            raise _UnsafeError(f"it has the text {value[:80]!r}")


def _check_tree(text: str) -> None:
    """Describes how outputs nest: JSON whose texts are names, or JSON again."""
    if NAME.fullmatch(text):
        return
    try:
        nested = json.loads(text)
    except ValueError:
        raise _UnsafeError(f"it has the name {text[:80]!r}") from None
    _check_nested(nested)


def _check_nested(value: Any) -> None:
    if isinstance(value, str):
        _check_tree(value)
    elif isinstance(value, list):
        for entry in value:
            _check_nested(entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            _check_tree(name)
            _check_nested(entry)


def _check_expression(text: str) -> None:
    """A size such as `Add(Symbol('s0', integer=True), Integer(1))`: constructors over names and numbers."""
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        fine = isinstance(node, EXPRESSION_NODES)
        if isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name) and node.func.id[0].isupper()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            fine = re.fullmatch(r"[\w.]*", node.value, re.ASCII) is not None
        if isinstance(node, ast.Name):
            fine = not node.id.startswith("_")
        if not fine:
            raise _UnsafeError(f"it evaluates '{text[:80]}'")
