"""What a node that sees other files says; here the node is this process, after the files have changed."""

import shutil
from pathlib import Path

import pytest

from accmpeg.cluster.needs import _lacking, _Needs, check_needs
from accmpeg.demo import assets_path
from accmpeg.dnn.registry import read_checked_card
from accmpeg.errors import SourceError


@pytest.fixture
def card(tmp_path: Path) -> Path:
    for name in ("detector.card.toml", "detector.onnx"):
        shutil.copy(assets_path() / name, tmp_path)
    return tmp_path / "detector.card.toml"


def test_a_node_says_what_it_lacks(card: Path, tmp_path: Path) -> None:
    mark = tmp_path / "out" / ".shared-0"
    mark.parent.mkdir()
    mark.touch()
    needs = _Needs([str(tmp_path)], {card: read_checked_card(card)}, [mark])
    assert _lacking(needs) is None
    text = card.read_text()
    card.write_text(text.replace('name = "', 'name = "another-'))
    assert "has another" in (_lacking(needs) or "")
    card.write_text(text)
    (tmp_path / "detector.onnx").write_bytes(b"other weights")
    assert "lacks a server DNN: " in (_lacking(needs) or "")
    (tmp_path / "detector.onnx").unlink()
    assert f"{tmp_path / 'detector.onnx'} (No such file" in (_lacking(needs) or "")
    mark.unlink()
    assert f"does not share {mark.parent}" in (_lacking(needs) or "")
    shutil.rmtree(tmp_path)
    assert f"can't see {tmp_path}: put it on storage that all nodes share" in (_lacking(needs) or "")


def test_what_this_machine_can_t_see_is_said_before_any_node_is_asked(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"this machine can't see {tmp_path}/none"):
        check_needs([tmp_path / "none"], [], [])
