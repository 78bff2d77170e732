"""Methods of other distributions: found, checked, and the documented example runs as it stands."""

import re
import sys
from pathlib import Path

import pytest

from accmpeg.demo import assets_path
from accmpeg.errors import MethodError, UsageError
from accmpeg.evaluation import ClipSpec
from accmpeg.evaluation.bench.plan import DnnSpec, Group
from accmpeg.evaluation.methods import METHODS, find_methods
from accmpeg.evaluation.settings import SweepSettings
from tests.evaluation.methods.method_clips import accuracy, moving_clip, reference_results, run, uplink_bytes

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "guides" / "add-a-method.md").read_text(encoding="utf-8")


MADE = "from accmpeg.evaluation.methods import Method\nMine = Method(source='s', open=print, {})"


class Installed:
    """Distributions in a folder that Python looks in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, entry_points: str, module: str = "", code: str = "") -> None:
        info = self._folder / f"{name.replace('-', '_')}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[accmpeg.methods]\n{entry_points}\n")
        if module:
            (self._folder / f"{module}.py").write_text(code)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield Installed(tmp_path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_the_documented_method_is_found_and_runs(installed: Installed) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    (entry,) = re.findall(r"^(half-rate) = \"(.*?)\"$", project, re.MULTILINE)
    installed.add("half-rate", " = ".join(entry), "half_rate", code)
    (method,) = find_methods("half-rate")
    assert find_methods("all")[-1].name == "half-rate"
    clip = moving_clip(6)
    session = run(method, clip, 24)
    assert session.results[3] is session.results[2]
    assert [each.of for step in session.flows[3].steps for each in step.delivers] == [2]
    assert accuracy(session, reference_results(clip)) > 0.3
    assert uplink_bytes(session) < uplink_bytes(run(METHODS["constant-qp"], clip, 24))


def test_a_plugin_is_not_loaded_unless_asked_for(installed: Installed) -> None:
    installed.add("broken", "broken = broken_method:Broken", "broken_method", "raise OSError('no camera')")
    assert [method.name for method in find_methods("constant-qp")] == ["constant-qp"]
    with pytest.raises(MethodError, match=r"'broken' of the distribution broken .*OSError: no camera"):
        find_methods("constant-qp,broken")
    with pytest.raises(MethodError, match="broken"):
        find_methods("all")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Mine:\n    name = 'mine'", r"is a type: make it an accmpeg\.evaluation\.methods\.Method"),
        (MADE.format("name='other', family='plugin'"), "calls itself 'other'"),
        (MADE.format("name='mine', family='stock'"), "family 'stock': give it 'plugin'"),
        (MADE.format("name='mine', family='plugin', chunk_frames=0"), "gathers 0 frames"),
        (MADE.format("name='my method', family='plugin'"), "without commas and spaces"),
        ("Yours = 1", "AttributeError"),
    ],
)
def test_what_is_no_method_is_named(installed: Installed, code: str, said: str) -> None:
    installed.add("mine", "mine = my_method:Mine", "my_method", code)
    with pytest.raises(MethodError, match=said) as raised:
        find_methods("mine")
    assert "my_method:Mine" in str(raised.value)


@pytest.mark.parametrize("changed", ["my_method/__init__.py", "my_method/rates.py"])
def test_what_changed_code_would_measure_is_not_taken_for_what_the_old_did(
    installed: Installed, tmp_path: Path, changed: str
) -> None:
    installed.add("mine", "mine = my_method:Mine")
    (tmp_path / "my_method").mkdir()
    (tmp_path / "my_method" / "__init__.py").write_text(MADE.format("name='mine', family='plugin'"))
    (tmp_path / "my_method" / "rates.py").write_text("EVERY = 2")
    (dnn,) = DnnSpec.read_all([assets_path() / "detector.card.toml"], [])

    def keys(*others: str) -> list[str]:
        group = Group(ClipSpec("clip", "ab" * 32, lambda limit: moving_clip(6)), dnn, ("mine", *others))
        return [group.cell_key(name, 24, "method", SweepSettings()) for name in ("mine", "aq-1")]

    before = keys()
    assert keys("aq-1") == before, "read anew, the same code is the same method"
    (tmp_path / changed).write_text((tmp_path / changed).read_text() + "\nWIDTH = 3")
    mine, plain = keys("aq-2")
    assert mine != before[0]
    assert plain == before[1]


def test_a_name_of_the_package_is_taken(installed: Installed) -> None:
    installed.add("rival", "graded = rival:Graded")
    with pytest.raises(UsageError, match="rival brings a method 'graded'"):
        find_methods("constant-qp")


def test_two_distributions_with_one_name_are_both_named(installed: Installed) -> None:
    installed.add("one", "mine = one:Mine")
    installed.add("two", "mine = two:Mine")
    with pytest.raises(UsageError, match=r"one and the distribution two both bring a method 'mine'"):
        find_methods("all")


def test_an_unknown_name_lists_plugins_too(installed: Installed) -> None:
    installed.add("mine", "mine = my_method:Mine")
    with pytest.raises(UsageError, match=r"'yours': choose one of .*, mine, primary, all"):
        find_methods("yours")
    with pytest.raises(UsageError, match="'grade': did you mean 'graded'"):
        find_methods("grade")


def test_every_method_is_in_the_table_with_its_family() -> None:
    table = (ROOT / "docs" / "concepts" / "methods.md").read_text(encoding="utf-8")
    listed = {
        name: line.split("|")[2].strip()
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert listed == {name: method.family for name, method in METHODS.items()}


def test_every_method_says_where_it_comes_from() -> None:
    assert all(method.source for method in METHODS.values())
