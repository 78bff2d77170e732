"""`accmpeg doctor`, `version` and `--help`."""

import json
from collections.abc import Callable

import accmpeg as package


def test_doctor_proves_the_encoders(accmpeg: Callable) -> None:
    done = accmpeg("doctor", "--json")
    assert done.returncode == 0, done.stderr
    findings = {finding["part"]: finding for finding in json.loads(done.stdout)}
    assert findings["encoder libx264"]["state"] == "ok"
    assert findings["onnxruntime"]["state"] == "ok"
    assert all(finding["way_out"] for finding in findings.values() if finding["state"] != "ok")


def test_version_and_help(accmpeg: Callable) -> None:
    assert accmpeg("version").stdout.strip() == package.__version__
    assert accmpeg("--version").stdout.strip() == package.__version__
    listing = accmpeg("--help")
    assert listing.returncode == 0
    for verb in ("demo", "doctor", "models", "label", "train", "encode", "version"):
        assert verb in listing.stdout


def test_an_unknown_verb_is_bad_use(accmpeg: Callable) -> None:
    done = accmpeg("enkode")
    assert done.returncode == 2
    assert "enkode" in done.stderr
