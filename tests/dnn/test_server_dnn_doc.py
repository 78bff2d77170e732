"""docs/guides/server-dnn.md: its example cards and code are good, and its tables are complete."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import DnnCard, read_card
from accmpeg.dnn.heads import HEADS, get_head
from accmpeg.dnn.registry import ADAPTERS
from tests.dnn.adapter_checks import rgb_frame

DOC = (Path(__file__).parents[2] / "docs" / "guides" / "server-dnn.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)


def rows(title):
    """The cells of the table whose first heading is `title`."""
    lines = iter(DOC.splitlines())
    next(line for line in lines if line.startswith(f"| {title} |"))
    next(lines)
    table = []
    for line in lines:
        if not line.startswith("|"):
            return table
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


@pytest.mark.parametrize("text", blocks("toml"), ids=lambda text: text.split('"')[5])
def test_example_cards(tmp_path, text):
    path = tmp_path / "example.card.toml"
    path.write_text(text)
    card = read_card(path)
    assert card.adapter in ADAPTERS
    assert get_head(card)


def test_every_adapter_has_an_example():
    examples = [re.search('adapter = "(.*?)"', text)[1] for text in blocks("toml")]
    assert sorted(examples) == sorted(ADAPTERS)
    assert [row[1].strip("`") for row in rows("your network is")] == list(ADAPTERS)


def test_every_key_and_head_is_in_a_table():
    documented = [name for row in rows("key") for name in re.findall("`([^`]+)`", row[0])]
    assert sorted(documented) == sorted(card_keys(DnnCard))
    heads = {row[0].strip("`"): row[2] for row in rows("head")}
    assert sorted(heads) == sorted(HEADS)
    for name, parameters in heads.items():
        own = set(inspect.signature(HEADS[name].make).parameters) - {"classes", "keypoints"}
        assert own <= set(re.findall(r"`(\w+)`", parameters)), name


def card_keys(model, prefix=""):
    for name, field in model.model_fields.items():
        sections = [
            kind
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if sections:
            yield from card_keys(sections[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_python_example_runs(tmp_path, monkeypatch):
    (code,) = (text for text in blocks("python") if "my_networks.py" in text)
    (card,) = (text for text in blocks("toml") if "my_networks:make" in text)
    (tmp_path / "my_networks.py").write_text(code)
    (tmp_path / "mine.card.toml").write_text(card)
    monkeypatch.syspath_prepend(tmp_path)
    dnn = load_dnn(tmp_path / "mine.card.toml", threads=1)
    assert len(dnn.infer(rgb_frame())) > 0
    rgb = torch.rand(3, 64, 96, requires_grad=True)
    dnn.differentiable()(rgb).scores.sum().backward()
    assert (rgb.grad != 0).any()


def test_the_export_example_runs(tmp_path, monkeypatch):
    (code,) = (text for text in blocks("python") if "torch.export" in text)
    (card,) = (text for text in blocks("toml") if 'adapter = "torch_export"' in text)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 3, 3, stride=2, padding=1)

        def forward(self, x):
            return {"logits": self.layer(x)}

    monkeypatch.chdir(tmp_path)
    exec(code, {"network": Network()})
    (tmp_path / "street.card.toml").write_text(card)
    assert load_dnn(tmp_path / "street.card.toml", threads=1).infer(rgb_frame(640, 360)).shape == (180, 320)
