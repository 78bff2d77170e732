"""`accmpeg profile` on real frames: a profile is written, goes on where it was, and says what is wrong."""

import json
import tomllib
from fractions import Fraction
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.demo import DEMO_SEED
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink
from tests.evaluation.methods.method_clips import card


def write_clip(path: Path, frames: int, size_px: tuple[int, int] = (640, 360)) -> Path:
    scene = SceneSource(SceneSpec(DEMO_SEED, *size_px, frame_rate=Fraction(15), frame_count=frames))
    settings = EncoderSettings.for_source(scene.info, crf=14.0, preset="ultrafast", steerable=False)
    with Encoder(settings) as encoder, open_sink(path, encoder) as sink:
        for frame in scene:
            for unit in encoder.encode(frame):
                sink.write(unit)
        for unit in encoder.flush():
            sink.write(unit)
    return path


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("site") / "yard.mp4", 80)


def profile(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.slow
def test_a_site_gets_its_profile_and_the_same_one_again(footage: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    asked = (footage, "--dnn", card(), "-o", site, "--minutes", "0.1", "--workers", "2", "--json")
    code, stdout, stderr = profile(*asked)
    assert code == 0, stderr
    document = json.loads(stdout)
    written = tomllib.loads(site.read_text())
    for each in (written, document["profile"]):
        del each["profile"]["made"]
    assert written == document["profile"]
    assert written["profile"]["source"] == "640x360"
    assert written["profile"]["dnn"] == "detector" or written["profile"]["dnn"]
    assert written["b-frames"] in (0, 2)
    assert document["said"][-1]
    assert (tmp_path / "site.png").stat().st_size > 10_000
    plain = next(row for row in document["streams"] if row["stream"] == "source")
    assert plain["bytes at 90%"].startswith("+0")
    cells = (tmp_path / "site.cells" / "cells.jsonl").read_bytes()
    code, again, stderr = profile(*asked)
    assert code == 0, stderr
    assert (tmp_path / "site.cells" / "cells.jsonl").read_bytes().startswith(cells)
    same = json.loads(again)
    del same["profile"]["profile"]["made"]
    assert same == document
    assert "cut the search short" in document["said"][-1]
    # Cells that were measured otherwise, such as on every second frame.
    file = tmp_path / "site.cells" / "cells.jsonl"
    rows = [json.loads(line) | {"key": "0" * 64} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, stderr = profile(*asked)
    assert code == 1
    assert "start anew with another --output" in stderr


def strong_card(folder: Path) -> Path:
    """The demo's detector as it comes: it reads 640 pixels, where `card()` reads 320."""
    path = folder / "strong.card.toml"
    path.write_text(card().read_text().replace("_px = 320", "_px = 640").replace("accmpeg-demo", "strong"))
    return path


@pytest.mark.slow
def test_a_larger_reading_finds_more_by_a_stronger_dnns_answers(footage: Path, tmp_path: Path) -> None:
    asked = (footage, "--dnn", card(), "-o", tmp_path / "site.toml", "--minutes", "0.1", "--json")
    code, stdout, stderr = profile(
        *asked, "--reference", strong_card(tmp_path), "--reading-size", "480", "--reading-size", "320"
    )
    assert code == 0, stderr
    document = json.loads(stdout)
    own, larger = document["profile"]["profile"]["readings"]
    assert (own["size"], larger["size"]) == ("320x320", "480x480")
    assert 0 < own["best-score"] < larger["best-score"] <= 1
    assert larger["bitrate-bps"] < own["bitrate-bps"]
    assert any("Reading 480x480 in place of 320x320" in sentence for sentence in document["said"])


def test_what_can_not_judge_a_reading_size_is_refused(footage: Path, tmp_path: Path) -> None:
    asked = (footage, "--dnn", card(), "-o", tmp_path / "site.toml")
    strong = strong_card(tmp_path)
    fixed = tmp_path / "fixed.card.toml"
    fixed.write_text(card().read_text().replace("size_multiple = 32\n", ""))
    for options, says in (
        (("--reading-size", "640"), "give --labels, or --reference"),
        (("--reading-size", "640", "--reference", strong), "can't judge itself"),
        (("--reading-size", "500"), "multiples of 32"),
        (("--dnn", fixed, "--reading-size", "640"), "no size_multiple"),
    ):
        code, _, stderr = profile(*asked, *options)
        assert code == 2, stderr
        assert says in stderr
        assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--keep", "0.5"), "0.80 to 0.95"),
        (("-o", "site.json"), "site.toml"),
    ],
)
def test_options_that_make_no_sense_are_one_line(footage: Path, options: tuple[str, str], says: str) -> None:
    code, _, stderr = profile(footage, "--dnn", card(), "-o", "site.toml", *options)
    assert code == 2
    assert says in stderr
    assert "Traceback" not in stderr


def test_footage_of_mixed_sizes_and_of_a_frame_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "one.mp4", 60)
    write_clip(tmp_path / "two.mp4", 60, (320, 180))
    code, _, stderr = profile(tmp_path, "--dnn", card(), "-o", tmp_path / "site.toml")
    assert code == 2
    assert "640x360" in stderr
    assert "320x180" in stderr
    short = write_clip(tmp_path / "short.mp4", 1)
    code, _, stderr = profile(short, "--dnn", card(), "-o", tmp_path / "site.toml")
    assert code == 1
    assert "longer footage" in stderr


SITE = """size = "320x180"
b-frames = 2
mbtree-frames = 0
policy = "{policy}"
preset = "superfast"
aq-mode = 0
crf = 35.5
every = 5
map-strength = 1.5
map-margin = 1
max-bitrate = "300k"
[profile]
dnn = "yard-dnn"
dnn-sha256 = ""
source = "{source}"
"""


def encode(footage: Path, out: Path, *options: str | Path) -> tuple[int, str, str]:
    arguments = ("encode", footage, "-o", out, "--json", *options)
    done = CliRunner().invoke(app, [*map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_encode_takes_a_profile_and_flags_win(footage: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(policy="feedback", source="640x360"))
    for options, size_px in (((), (320, 180)), (("--size", "480x270"), (480, 270))):
        out = tmp_path / "out.mp4"
        code, _, stderr = encode(footage, out, "--profile", site, *options)
        assert code == 0, stderr
        with av.open(out) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == size_px
            order = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        assert order != sorted(order), "it has B-frames"
    by_rate = tmp_path / "rate.mp4"
    code, _, stderr = encode(footage, by_rate, "--profile", site, "--bitrate", "100k")
    assert code == 0, stderr


def test_a_profile_for_another_camera_is_refused(footage: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    for text, says in (
        (SITE.format(policy="none", source="1280x720"), "for frames of 1280x720, not 640x360"),
        ("size = 3 4", "not valid TOML"),
        ('size = "320x180"', "no [profile] table"),
        ("b-frame = 2\n" + SITE.format(policy="none", source="640x360"), "did you mean 'b-frames'?"),
    ):
        site.write_text(text)
        code, _, stderr = encode(footage, tmp_path / "out.mp4", "--profile", site, "--policy", "none")
        assert code == 2
        assert says in " ".join(stderr.split())
        assert not (tmp_path / "out.mp4").exists()
    site.write_text(SITE.format(policy="none", source="640x360"))
    arguments = ["stream", str(footage), "--to", "ws://127.0.0.1:1", "--profile", str(site), "--dnn", "other"]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert "for the server DNN yard-dnn, not other" in " ".join(done.output.split())


@pytest.mark.slow
def test_a_budget_that_nothing_meets_names_the_nearest(footage: Path, tmp_path: Path) -> None:
    code, _, stderr = profile(
        footage, "--dnn", card(), "-o", tmp_path / "site.toml", "--camera-budget", "0.05", "--minutes", "0.1"
    )
    assert code == 1
    assert "The cheapest" in stderr
    assert not (tmp_path / "site.toml").exists()
