"""What a sweep was run with, kept for its report."""

from pathlib import Path

import pytest

from accmpeg.demo import assets_path
from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec
from accmpeg.evaluation.bench.record import RECORD_NAME, links_bps, read_record, write_record
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods import METHODS
from accmpeg.evaluation.report.tables import settings_tables
from accmpeg.evaluation.settings import SweepSettings

CARD, MODEL = (assets_path() / name for name in ("detector.card.toml", "accmodel.card.toml"))


def never(limit: int | None) -> None:
    raise AssertionError("a record needs no frames")


@pytest.fixture
def written(tmp_path: Path, small_card: Path) -> Path:
    links = {
        "2 Mbit/s": Link(bandwidth_bps=2e6, propagation_ms=20),
        "drive": Link(trace=tuple(range(1, 5001)), propagation_ms=20),
    }
    settings = SweepSettings(points=5, limit=30, links=links, server_ms=8.0, server_cores=2)
    clips = [ClipSpec("street", "cafe", never)]  # type: ignore[arg-type]
    dnns = DnnSpec.read_all([small_card], [MODEL], CARD)
    methods = [METHODS["aq-1"], METHODS["graded@dnn"]]
    write_record(tmp_path / "new" / "sweep", clips, dnns, methods, settings, primary=["graded@dnn:aq-1"])
    return tmp_path / "new" / "sweep"


def test_everything_that_a_sweep_depends_on_is_kept(written: Path) -> None:
    record = read_record(written)
    assert record["primary"] == ["graded@dnn:aq-1"]
    assert record["settings"]["server_ms"] == 8.0
    assert record["settings"]["server_cores"] == 2
    assert record["clips"] == {"street": {"sha256": "cafe"}}
    (dnn,) = record["dnns"].values()
    assert dnn["reference"] == "accmpeg-demo-detector"
    assert len(dnn["sha256"]) == len(dnn["accmodel_sha256"]) == 64
    assert {"accmpeg", "python", "pyav", "libavcodec"} <= set(record["versions"])
    assert set(record["methods"]) == {"aq-1", "graded@dnn"}
    assert links_bps(record) == {"2 Mbit/s": 2e6, "drive": None}
    # A trace may be long: how long says enough.
    assert record["links"]["drive"]["trace"] == "5000 packets"
    assert (written / RECORD_NAME).stat().st_size < 10_000


def test_the_report_s_tables_show_all_of_it(written: Path) -> None:
    tables = {table.title: table for table in settings_tables(read_record(written))}
    assert set(tables) == {"Settings", "Versions", "Server DNNs", "Clips", "Methods", "Links"}
    assert ("server_ms", "8.0") in tables["Settings"].rows
    assert tables["Clips"].rows == (("street", "cafe"),)


def test_no_record_is_no_error_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
    assert settings_tables({}) == []
    (tmp_path / RECORD_NAME).write_text("[]")
    with pytest.raises(EvaluationError, match=r"run\.json holds no JSON object: delete it"):
        read_record(tmp_path)
    (tmp_path / RECORD_NAME).write_text("{")
    with pytest.raises(EvaluationError, match=r"can't read .*run\.json"):
        read_record(tmp_path)


def test_a_folder_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match=r"can't write to .*file/sweep.*give another --output"):
        write_record(tmp_path / "file" / "sweep", [], [], [], SweepSettings())
