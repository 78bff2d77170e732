"""The report's files, from rows whose answers are known by hand."""

import csv
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest
from made import LINK, curve, row
from typer.testing import CliRunner

import accmpeg
from accmpeg.cli import app
from accmpeg.errors import EvaluationError
from accmpeg.evaluation.charts import Chart, Line, chart_svg, styles
from accmpeg.evaluation.ctc import CTC_COLUMNS
from accmpeg.evaluation.report import write_report

GOLDEN = Path(__file__).parent / "golden" / "report.md"
VOID = {"meta", "input", "img", "br", "link"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up sweep with its report; not to be changed."""
    folder = make_sweep(tmp_path_factory.mktemp("sweep"))
    assert write_report(folder) == folder / "report.html"
    return folder


def make_sweep(tmp_path: Path) -> Path:
    """A small sweep: three clips and a sky, half the bytes for `graded`, a failed method, a picture."""
    rows = [row("c", "vigil", 36, 0, None, status="failed", reason="<b> & | broke", objects=None)]
    for clip, scale in (("a", 0.5), ("b", 0.5), ("c", 0.5)):
        rows += curve(clip, "constant-qp", 1.25) + curve(clip, "aq-1") + curve(clip, "graded", scale)
        rows += curve(clip, "aq-1", 1.1, role="null")
        rows.append(row(clip, "aq-1", 31, 500_000, 0.97, role="noise_floor"))
    rows += curve("sky", "aq-1", accuracies=(1.0, 1.0, 1.0), objects=0)
    (tmp_path / "cells.jsonl").write_text("".join(r.to_line() for r in rows))
    run = {
        "settings": {"preset": "veryfast", "step": 3},
        "versions": {"accmpeg": "test"},
        "links": {LINK: {"bandwidth_bps": 1_000_000, "propagation_ms": 20}},
        "methods": {"graded": {"source": "this project"}},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"not looked at")
    picture = {"clip": "a", "dnn": "tiny", "frame": 48, "images": [{"caption": "Source", "file": "a.jpg"}]}
    (tmp_path / "pictures" / "a--tiny.json").write_text(json.dumps(picture))
    return tmp_path


class Page(HTMLParser):
    """Text, addresses and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.groups: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href"}:
                self.addresses.append(value or "")
            if name == "data-m":
                self.groups.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag, attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_the_markdown_is_the_golden_one(written: Path) -> None:
    made = (written / "report.md").read_text().replace(f"accmpeg {accmpeg.__version__}", "accmpeg VERSION")
    if os.environ.get("ACCMPEG_REGENERATE"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text(), "if that is meant: ACCMPEG_REGENERATE=1 pytest"
    assert "| graded | −60 [−60, −60] % | −50 [−50, −50] % |" in made
    assert "sky: the server DNN finds nothing on the source; left out" in made


def test_the_html_is_sound_self_contained_and_has_every_figure(written: Path) -> None:
    page = Page((written / "report.html").read_text())
    assert page.open == []
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
    assert any(address.startswith("data:") for address in page.addresses)
    for line in GOLDEN.read_text().splitlines():
        if line.startswith("| ") and "---" not in line:
            for cell in line.strip("| ").replace("\\|", "/").split(" | "):
                assert cell.replace("/", "|") in [text.replace("/", "|") for text in page.text], cell
    assert {"constant-qp", "aq-1", "graded", "best-stock"} <= set(page.groups)
    assert "c, vigil: failed at quality 36: <b> & | broke" in page.text


def test_no_picture_goes_in_when_none_may(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    text = write_report(sweep, pictures=False, interpolation="pchip").read_text()
    assert "data:" not in text.replace("data-", "")
    assert not list((sweep / "figures").glob("*.jpg"))


def test_figures_are_pictures(written: Path) -> None:
    names = {path.name for path in (written / "figures").iterdir()}
    assert names == {"tiny-bytes.png", "tiny-delay-1Mbitps.png", "tiny-camera.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (written / "figures").iterdir())


def test_the_csv_has_the_columns_and_units_of_compressai_vision(written: Path) -> None:
    with (written / "ctc" / "tiny" / "aq-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CTC_COLUMNS
    first = {name: value if name == "Dataset" else float(value) for name, value in rows[0].items()}
    assert first == {
        "Dataset": "a",
        "fps": 25,
        "num_of_coded_frame": 100,
        "qp": 32,
        "bitrate (kbps)": 800,
        "end_accuracy": 95,
        "encode": pytest.approx(0.5),
        "decode": pytest.approx(0.2),
        "nn_task": pytest.approx(1.0),
    }
    assert len(rows) == 12, "neither null nor noise-floor cells"
    assert not (written / "ctc" / "tiny" / "vigil.csv").exists()


def test_pandas_loads_the_cells(written: Path) -> None:
    cells = pandas.read_json(written / "cells.jsonl", lines=True)
    best = cells[(cells["method"] == "graded") & (cells["clip"] == "a")]
    assert sorted(best["bytes"]) == [50_000, 100_000, 200_000]
    assert cells.status.value_counts()["failed"] == 1


def test_the_command_makes_the_report_again(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    done = CliRunner().invoke(app, ["report", str(sweep), "--baseline", "aq-1", "--band", "0.8", "0.99"])
    assert done.exit_code == 0, done.output
    text = (sweep / "report.md").read_text()
    assert "accuracy band: 0.8 to 0.99" in text
    assert "vs best-stock" not in text
    wrong = CliRunner().invoke(app, ["report", str(sweep), "--baseline", "av1"])
    assert wrong.exit_code == 2


def test_a_folder_without_cells_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no finished cell"):
        write_report(tmp_path)


def test_a_charts_points_lie_where_their_values_are() -> None:
    line = Line("aq-1", [100, 1000, 10000], [0.5, 0.75, 1.0], ["low", "middle", "high"])
    svg = chart_svg(Chart("name", "title", "x", "y", [line]), styles(["aq-1"]))
    path = svg.split('class="line" d="M')[1].split('"')[0]
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, pair.split())) for pair in path.split("L")]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x1
    assert y0 > y1
    assert "<title>middle</title>" in svg
