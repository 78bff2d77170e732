"""`accmpeg serve` as a process: what it refuses to start with, what it says, and how it stops."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "accmpeg", "serve"]


def refused(*arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "COLUMNS": "400", **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_public_address_needs_tokens() -> None:
    assert "no token is configured" in refused("--host", "0.0.0.0")


def test_a_short_token_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text('gate = "hunter2"\n')
    said = refused("--tokens", str(file))
    assert "at least 16" in said
    assert "hunter2" not in said


def test_it_says_its_configuration_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text('port = 0\nmax-batch = 4\nlog-format = "json"\n')
    environment = {
        **os.environ,
        "ACCMPEG_SERVE_VIEWER_TOKEN": "viewer-token-0123456789",
        "ACCMPEG_SERVE_MAX_BATCH": "6",
    }
    process = subprocess.Popen(
        [*COMMAND, "--config", str(config), "--threads", "1"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    url = None
    for line in process.stderr:
        said.append(line)
        if found := re.search(r'"url": "([^"]+)"', line):
            url = found.group(1)
            break
    assert url is not None, said
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/metrics", timeout=60)
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=100)
    text = "".join(said) + rest
    assert process.returncode == 0, text
    assert '"setting": "max_batch", "value": 6, "source": "environment"' in text
    assert '"setting": "threads", "value": 1, "source": "flag"' in text
    assert '"setting": "port", "value": 0, "source": "file"' in text
    assert '"setting": "viewer_token", "value": "***"' in text
    assert "viewer-token" not in text
    assert "server stopped" in text
