"""`accmpeg serve` as a process: what it refuses to start with, what it says, and how it stops."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pytest

import accmpeg
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.errors import LinkError, UsageError
from accmpeg.server import ServerSettings, ServerThread, Tokens
from accmpeg.server.tokens import read_tokens
from tests.helpers import until
from tests.server.stubborn import write_card

COMMAND = [sys.executable, "-m", "accmpeg", "serve"]
WITH_TESTS = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
"""A PYTHONPATH on which the command finds the DNNs of the tests."""


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


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nope://x", "--input a=nope://x: the FFmpeg in this PyAV can't read nope://: give rtsp://, http://"),
        ("v4l2:///dev/video0", "can't read v4l2://"),
        (" rtsp://camera:0/live", "from 1 to 65535"),
    ],
)
def test_an_input_that_could_never_be_read_is_refused_at_the_start(address: str, said: str) -> None:
    assert said in refused("--input", f"a={address}")


def test_tokens_do_not_cross_a_network_in_the_clear(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text('gate = "gate-token-0123456789"\n')
    said = refused("--host", "0.0.0.0", "--tokens", str(file))
    assert "--tls-certificate" in said
    assert "--insecure" in said


def test_a_token_for_a_name_that_no_camera_can_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text('"front door" = "gate-token-0123456789"\n')
    assert "no camera can be named 'front door'" in refused("--tokens", str(file))


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    done = subprocess.run(
        [*COMMAND, "--device", "cuda:7", "--port", "0"],
        env={**os.environ, "COLUMNS": "400", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    assert "cuda:7" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_results_between_frames_without_the_tracker_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "trackers.py").write_text("raise ImportError\n")
    done = subprocess.run(
        [*COMMAND, "--publish-per-second", "20", "--port", "0"],
        env={**os.environ, "COLUMNS": "400", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    assert "--publish-per-second needs the 'tracking' extra: pip install 'accmpeg[tracking]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", None, "in use: another program does already, so give another --port"),
        ("192.0.2.1", 0, "give --host an address of this machine"),
        ("nobody.invalid", 0, "give --host a name or an address"),
    ],
)
def test_where_it_can_t_listen_is_said_with_the_way_out(host: str, port: int | None, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServerSettings(
            host=host,
            port=taken.getsockname()[1] if port is None else port,
            tokens=Tokens({"cameras": {"gate": "gate-token-0123456789"}}),
            insecure=True,
            dnns=(Path("never-read.card.toml"),),
        )
        with pytest.raises(OSError, match=f"can't listen on {host}, port .*{said}"):
            ServerThread(settings).start()


@pytest.mark.parametrize("host", ["http://127.0.0.1", "127.0.0.1:8700"])
def test_a_host_is_no_address(host: str) -> None:
    with pytest.raises(UsageError, match="give the address alone, and its port as --port"):
        ServerSettings(dnns=(Path("never-read.card.toml"),), host=host).check()


def test_a_file_without_tokens_opens_nothing(tmp_path: Path) -> None:
    """A disk that was full when it was written left it empty, and a reload let everybody in."""
    file = tmp_path / "tokens.toml"
    file.write_text("[viewers]\n")
    with pytest.raises(UsageError, match="there is no token in it"):
        read_tokens(file)


def test_the_names_of_the_tables_are_no_cameras(tmp_path: Path) -> None:
    """`viewers = "…"` gave a camera of that name a token, and viewers none."""
    file = tmp_path / "tokens.toml"
    file.write_text('viewers = "viewer-token-0123456789"\n')
    with pytest.raises(UsageError, match=r"viewers: write .* tables \[viewers\] and \[admins\]"):
        read_tokens(file)


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


class Server:
    """A real `accmpeg serve`, whose log lines can be waited for."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--log-format", "json", "--threads", "1", *arguments],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def url(self) -> str:
        return str(self.line("listening")["url"])

    def line(self, event: str) -> dict[str, Any]:
        """The fields of the next log line of an event."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            fields: dict[str, Any] = json.loads(text)
            if fields["event"] == event:
                return fields
        raise AssertionError(f"it ended without {event!r}")

    def status(self, path: str, token: str) -> int:
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def stream(self, *, token: str = "", frames: int = 3) -> None:
        """Sends so many frames and waits for their answers; raises `LinkError` where it is refused."""
        camera = accmpeg.stream(
            lambda: SceneSource(SceneSpec(3, frame_count=frames, width_px=320, height_px=180)),
            "ws" + self.url.removeprefix("http"),
            token=token or None,
            drop="none",
            name="gate",
        )
        with camera:
            results = list(camera)
        assert len(results) == frames

    def __enter__(self) -> Self:
        assert self.url
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_sighup_reads_tokens_inputs_and_settings_anew_and_reopens_the_results(tmp_path: Path) -> None:
    old, new = "old-token-0123456789", "new-token-0123456789"
    tokens, results, config = (tmp_path / name for name in ("tokens.toml", "results.jsonl", "serve.toml"))

    def write(token: str, settings: str) -> None:
        tokens.write_text(f'gate = "{token}"\n[viewers]\ndesk = "{token}-desk"\n')
        config.write_text(f'tokens = "{tokens}"\nresults = "{results}"\n{settings}')

    write(old, "")
    with Server("--config", str(config)) as server:
        server.stream(token=old)
        results.rename(tmp_path / "rotated.jsonl")
        write(new, 'max-batch = 3\ninput = ["yard=nosuch.mp4"]\n')
        server.process.send_signal(signal.SIGHUP)
        assert server.line("reloaded")["needs_restart"] == "max_batch"
        assert server.line("input lost, trying again")["camera"] == "yard"
        assert (server.status("/metrics", f"{old}-desk"), server.status("/metrics", f"{new}-desk")) == (
            401,
            200,
        )
        with pytest.raises(LinkError, match="token"):
            server.stream(token=old)
        server.stream(token=new)

        tokens.write_text("gate = 3")
        server.process.send_signal(signal.SIGHUP)
        assert "tokens.toml" in server.line("not reloaded, the old settings go on")["reason"]
        config.write_text("port = [")
        server.process.send_signal(signal.SIGHUP)
        assert "not valid TOML" in server.line("not reloaded, the old settings go on")["reason"]
        write(new, 'log-level = "error"\n')
        server.process.send_signal(signal.SIGHUP)
        server.stream(token=new, frames=4)
        write(new, "")
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr is not None
        assert "camera connected" not in (line := server.process.stderr.readline())
        assert json.loads(line)["needs_restart"] == "nothing"

        server.process.send_signal(signal.SIGTERM)
        server.line("server stopped")
        assert server.process.wait(60) == 0
    assert len((tmp_path / "rotated.jsonl").read_text().splitlines()) == 3
    assert len(results.read_text().splitlines()) == 3 + 4


def test_sighup_while_a_dnn_loads_is_answered_as_soon_as_it_serves(tmp_path: Path) -> None:
    old, new = "old-token-0123456789", "new-token-0123456789"
    tokens, hang = tmp_path / "tokens.toml", tmp_path / "hang"
    tokens.write_text(f'gate = "{old}"')
    hang.touch()
    card = write_card(tmp_path, hang_file=hang)
    server = Server("--dnn", str(card), "--copies", "1", "--tokens", str(tokens), PYTHONPATH=WITH_TESTS)
    status = Path(f"/proc/{server.process.pid}/status")

    def hears_sighup() -> bool:
        (caught,) = re.findall(r"SigCgt:\s*(\w+)", status.read_text())
        return bool(int(caught, 16) >> signal.SIGHUP - 1 & 1)

    until(hears_sighup)
    tokens.write_text(f'gate = "{new}"')
    server.process.send_signal(signal.SIGHUP)
    hang.unlink()
    with server:
        server.line("reloaded")
        with pytest.raises(LinkError, match="token"):
            server.stream(token=old)
        server.stream(token=new)


def test_sighup_puts_a_new_certificate_in_place(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make certificates with")
    pem, key = tmp_path / "server.pem", tmp_path / "server.key"

    def renew() -> str:
        options = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=localhost"
        )
        files = ["-out", str(pem), "-keyout", str(key)]
        subprocess.run(["openssl", *options.split(), *files], check=True, capture_output=True)
        return ssl.PEM_cert_to_DER_cert(pem.read_text()).hex()

    def served(url: str) -> str:
        host, port = url.removeprefix("https://").split(":")
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)))).hex()

    first = renew()
    with Server("--tls-certificate", str(pem), "--tls-key", str(key)) as server:
        assert served(server.url) == first
        second = renew()
        server.process.send_signal(signal.SIGHUP)
        server.line("reloaded")
        assert served(server.url) == second
        key.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        server.line("not reloaded, the old settings go on")
        assert served(server.url) == second


def test_sigterm_ends_a_server_whose_dnn_hangs(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    card = tmp_path / "stubborn.card.toml"
    card = write_card(tmp_path, hang_file=hang)
    arguments = ("--dnn", str(card), "--copies", "1", "--infer-timeout", "0.5", "--drain-s", "1")
    with Server(*arguments, PYTHONPATH=WITH_TESTS) as server:
        server.stream()
        hang.touch()
        server.stream()
        server.line("an inference hangs: its frames are answered as failed")
        server.process.send_signal(signal.SIGTERM)
        assert server.line("server stopped")["left_hanging"] is True
        assert server.process.wait(60) == 0
