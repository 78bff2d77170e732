"""Sphinx: how the site is built. `make docs` runs it; every warning is an error, broken links included."""

import os
import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from generated import write_pages  # noqa: E402

import accmpeg  # noqa: E402
import accmpeg.server  # noqa: E402  (before autodoc looks at pydantic's models: it changes annotations)

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Repository"
]

project = "AccMPEG"
author = "The AccMPEG authors"
release = version = accmpeg.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_generated"]
myst_heading_anchors = 3

smartquotes = False  # it would make one dash of the two of an option
default_role = "code"  # docstrings are Markdown: `name` is code
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "model_config"}

html_theme = "furo"
html_show_copyright = False
html_title = f"AccMPEG {release}"

# Addresses of examples, and of the repository as long as it has none.
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost)", r"https://repository\.example"]
linkcheck_timeout = 20

_LINK = re.compile(r"(?<=\]\()\.\./[^)#\s]+")


def _point_outside(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages of the site; a broken one stays, and is told."""

    def absolute(link: re.Match[str]) -> str:
        target = Path(os.path.normpath((HERE / docname).parent / link[0]))
        if target.is_relative_to(HERE) or not target.exists():
            return link[0]
        return f"{REPOSITORY}/blob/main/{target.relative_to(ROOT).as_posix()}"

    source[0] = _LINK.sub(absolute, source[0])


def _as_rest(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """A docstring, with Markdown's fenced code and Google's sections, as reStructuredText."""
    inside = False
    made = []
    for line in lines:
        if line.strip().startswith("```"):
            inside = not inside
            indent = line[: len(line) - len(line.lstrip())]
            made += [f"{indent}.. code-block:: {line.strip('` ') or 'text'}", ""] if inside else [""]
        else:
            made.append(f"   {line}" if inside and line else line)
    # Napoleon as an extension takes what is before a colon in a field's docstring for its type.
    fields = ("attribute", "data", "property")
    lines[:] = (
        made if what in fields else GoogleDocstring(made, Config(), app, what, name, of, options).lines()
    )


def setup(app: Sphinx) -> None:
    write_pages(HERE / "_generated")
    app.connect("source-read", _point_outside)
    app.connect("autodoc-process-docstring", _as_rest)
