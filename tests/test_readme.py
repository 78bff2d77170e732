"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import pytest

from accmpeg import open_source
from accmpeg.demo import assets_path, demo_scene
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    with demo_scene(frame_count=6) as scene:
        settings = EncoderSettings.for_source(scene.info, crf=20, steerable=False)
        with Encoder(settings) as encoder, open_sink(tmp_path / "street.mp4", encoder) as sink:
            for frame in scene:
                for unit in encoder.encode(frame):
                    sink.write(unit)
    for asset in assets_path().iterdir():
        (tmp_path / asset.name.replace("accmodel", "cheap")).write_bytes(asset.read_bytes())
    card = tmp_path / "cheap.card.toml"
    card.write_text(card.read_text().replace("accmodel.onnx", "cheap.onnx"))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    with open_source(tmp_path / "steered.mp4") as steered:
        assert len(list(steered)) == 6


def test_the_commands_exist() -> None:
    import accmpeg.cli

    verbs = {command.callback.__name__ for command in accmpeg.cli.app.registered_commands if command.callback}
    named = set(re.findall(r"^\s+accmpeg (\w+)", README.read_text(), re.MULTILINE)) - {"models"}
    assert named
    assert named <= verbs
