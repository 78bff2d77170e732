"""Results to files and MQTT, slow subscribers, and streams that the server fetches itself."""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.errors import SinkError, UsageError
from accmpeg.media.addresses import HOW_TO_ESCAPE
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.sink import open_sink
from accmpeg.protocol.backoff import Backoff
from accmpeg.server import ServerSettings, ServerThread, mqtt, subscribers
from accmpeg.server.broker import BrokerAddress
from accmpeg.server.cameras import CameraBook
from accmpeg.server.metrics import Metrics
from accmpeg.server.mqtt import MqttOutlet
from accmpeg.server.subscribers import Hub, JsonLinesFile
from tests.helpers import WAIT_S, until
from tests.server.clients import Camera, Recorded

Start = Callable[..., ServerThread]


def new_metrics() -> Metrics:
    return Metrics(CameraBook(), dict)


def test_every_result_is_a_line_of_the_file(start: Start, recorded: Recorded, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    server = start(results=file)
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        camera.results(5)
    server.stop()
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["sequence"] for event in events] == list(range(5))


def test_a_file_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="nosuch"):
        JsonLinesFile(tmp_path / "nosuch" / "results.jsonl", new_metrics())


def test_a_file_that_vanishes_has_another_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "LOOK_EVERY_S", 0.0)
    file = tmp_path / "results.jsonl"
    outlet = JsonLinesFile(file, new_metrics())
    for text in ("1", "2"):
        outlet.offer("gate", text)
        until(lambda text=text: file.exists() and file.read_text() == f"{text}\n")
        file.unlink()
    outlet.close()


def test_a_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results")
    with pytest.raises(SinkError, match="nobody reads that pipe"):
        JsonLinesFile(tmp_path / "results", new_metrics())
    reader = os.open(tmp_path / "results", os.O_RDONLY | os.O_NONBLOCK)
    outlet = JsonLinesFile(tmp_path / "results", new_metrics())
    outlet.offer("gate", "{}")
    outlet.close()
    assert os.read(reader, 100) == b"{}\n"
    os.close(reader)


def test_a_full_disk_is_said_once_and_leaves_whole_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "results.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The kernel then refuses to write beyond 250 bytes, in the midst of a line, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, before[1]))
    try:
        outlet = JsonLinesFile(file, new_metrics())
        for i in range(10):
            outlet.offer("gate", json.dumps({"i": i, "padding": "x" * 40}))
        until(lambda: outlet._texts.empty())
        until(lambda: file.stat().st_size == 250)
        until(lambda: outlet._lost_since_failure >= 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    outlet.offer("gate", json.dumps({"i": "after"}))
    outlet.close()
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert messages == [
        "results file can't be written, results are lost until it can",
        "results file is written again",
    ]
    lines = file.read_text().splitlines()
    assert json.loads(lines[-1]) == {"i": "after"}
    assert [json.loads(line)["i"] for line in lines[:3]] == [0, 1, 2]


def test_a_dash_is_standard_output_and_no_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subscribers, "LOOK_EVERY_S", 0.0)
    outlet = JsonLinesFile(Path("-"), new_metrics())
    for text in ("1", "2"):
        outlet.offer("gate", text)
    outlet.close()
    assert capfd.readouterr().out == "1\n2\n"
    assert not Path("-").exists()


def test_what_a_full_disk_cut_costs_the_next_run_no_line(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text('{"i":0}\n{"i":')
    outlet = JsonLinesFile(file, new_metrics())
    outlet.offer("gate", '{"i":2}')
    outlet.close()
    assert file.read_text() == '{"i":0}\n{"i":\n{"i":2}\n'


def test_a_slow_subscriber_loses_the_oldest_and_is_told() -> None:
    async def scenario() -> list[str]:
        hub = Hub(new_metrics())
        subscriber = hub.subscribe(None, capacity=3)
        for i in range(5):
            hub.publish({"camera": "gate", "sequence": i})
        return [await subscriber.next() for _ in range(4)]

    texts = [json.loads(text) for text in asyncio.run(scenario())]
    assert texts[0] == {"lost": 2}
    assert [text["sequence"] for text in texts[1:]] == [2, 3, 4]


def test_a_file_is_fetched_to_its_end(
    start: Start, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock is set by three days after the server's code was loaded: results tell the right day.
    system_ns, three_days_ns = time.time_ns, 3 * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: system_ns() + three_days_ns)
    started_us = time.time_ns() // 1000
    clip = tmp_path / "clip.mp4"
    scene = SceneSource(SceneSpec(87, 320, 180, frame_count=8))
    settings = EncoderSettings.for_source(scene.info, crf=28, steerable=False)
    with Encoder(settings) as encoder, open_sink(str(clip), encoder) as sink:
        for frame in scene:
            for unit in encoder.encode(frame):
                sink.write(unit)
        for unit in encoder.flush():
            sink.write(unit)
    server = start(inputs=(("yard", str(clip)),), results=tmp_path / "results.jsonl")
    core = server.running.core
    record = core.book.record("yard")
    until(lambda: record.results == 8 and not record.connected)
    server.stop()
    events = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(event["camera"], event["sequence"]) for event in events] == [("yard", i) for i in range(8)]
    assert all(event["dropped"] is None for event in events), "of a file every frame is inferred"
    ended_us = time.time_ns() // 1000
    for event in events:
        moments = [started_us, event["captured_us"], event["received_us"], event["answered_us"], ended_us]
        assert all(later - earlier > -50_000 for earlier, later in itertools.pairwise(moments)), moments


def test_an_input_that_is_not_there_is_tried_again_and_harms_nobody(
    start: Start, recorded: Recorded, tmp_path: Path
) -> None:
    server = start(inputs=(("yard", str(tmp_path / "later.mp4")),))
    core = server.running.core
    until(lambda: "later.mp4" in core.book.record("yard").error)
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 2)
        assert [each.dropped for each in camera.results(2)] == [None, None]


class Broker:
    """A real MQTT broker in a thread, and what was published on it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.messages: list[tuple[str, str]] = []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.thread.start()
        assert self.ready.wait(WAIT_S)

    async def _run(self) -> None:
        import aiomqtt
        from amqtt.broker import Broker as RealBroker

        listener = {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}}
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        self._broker = RealBroker({"listeners": listener, "plugins": plugins})
        await self._broker.start()
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            await client.subscribe("site/#")
            self.ready.set()
            async for message in client.messages:
                self.messages.append((str(message.topic), bytes(message.payload).decode()))


@pytest.mark.filterwarnings("ignore")
def test_results_reach_an_mqtt_broker(start: Start, recorded: Recorded) -> None:
    pytest.importorskip("amqtt")
    broker = Broker()
    server = start(mqtt=f"mqtt://127.0.0.1:{broker.port}/site/results")
    with Camera(server, recorded) as camera:
        camera.welcome()
        camera.send_frames(0, 5)
        camera.results(5)
        until(lambda: len(broker.messages) == 5)
    assert {topic for topic, _ in broker.messages} == {"site/results/gate"}
    assert [json.loads(text)["sequence"] for _, text in broker.messages] == list(range(5))


def test_a_broker_that_takes_no_results_is_asked_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Noted(Backoff):
        def failed(self) -> float:
            waits.append(super().failed())
            return waits[-1]

    monkeypatch.setattr(mqtt, "Backoff", Noted)
    monkeypatch.setattr(mqtt.log, "disabled", True)  # else it leaves out what the next test wants to read

    def welcome_and_hang_up(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"\x20\x02\x00\x00")

    async def scenario(port: int) -> None:
        outlet = MqttOutlet(BrokerAddress.parse(f"mqtt://127.0.0.1:{port}"), new_metrics())
        for _ in range(100):
            outlet.offer("gate", "{}")
        running = asyncio.create_task(outlet.run())
        async with asyncio.timeout(WAIT_S):
            while len(waits) < 3:
                await asyncio.sleep(0.01)
        running.cancel()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=welcome_and_hang_up, args=[listener], daemon=True).start()
        asyncio.run(scenario(listener.getsockname()[1]))
    assert waits == [1.0, 2.0, 4.0]


def test_another_address_is_no_broker(start: Start) -> None:
    with pytest.raises(UsageError, match="mqtt://"):
        start(mqtt="http://127.0.0.1/")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("mqtt://me:s3cr#t@localhost/site", "# as %23"),
        ("mqtt://me:s3c/rt@localhost/site", "/ as %2F"),
        ("mqtt://me:s3c?rt@localhost/site", "? as %3F"),
        ("mqtt://me:12/s3cret@localhost/site", "if it ends a password"),
        ("mqtt://:s3cret@localhost/site", "a password needs a user"),
        ("mqtt://localhost:99999/site", "from 1 to 65535"),
        ("mqtt://localhost:0/site", "from 1 to 65535"),
        ("mqtt://localhost:/site", "from 1 to 65535"),
        ("mqtt://broker..local/site", "no name of a host"),
        ("mqtt://[::1/site", "no name of a host"),
        ("mqtt://::1/site", "brackets"),
        ("mqtt:///site", "mqtt://host"),
        ("mqtt://localhost/site/+/x", "no + or #"),
        ("mqtt://localhost/site%23", "no + or #"),
        ("mqtt://localhost/site#", "neither ? nor #"),
        ("mqtt://localhost/site?qos=1", "neither ? nor #"),
        ("mqtt://localhost/a%00b", "no + or #"),
        ("mqtt://localhost/$SYS", "the broker's own"),
        ("mqtt://localhost/" + "x" * 70_000, "longer than"),
        (f"mqtt://me:s3cret{'x' * 70_000}@localhost/site", "a password has up to 65535 bytes"),
        (f"mqtt://{'me' * 40_000}:s3cret@localhost/site", "a user has up to 65535 bytes"),
        ("mqtt://me%00:s3cret@localhost/site", "no %00"),
        ("mqtt://me:s3cret\udcff@localhost/site", "bytes of UTF-8"),
    ],
)
def test_brokers_that_can_not_be_meant_are_refused_before_anything_starts(
    address: str, complaint: str
) -> None:
    # The card does not exist, and nothing has looked for it when the address is refused.
    settings = ServerSettings(dnns=(Path("none.card.toml"),), mqtt=address)
    with pytest.raises(UsageError, match="--mqtt") as refused:
        settings.check()
    said = str(refused.value)
    assert complaint in said
    for part in ("s3c", "rt@", "cret"):
        assert part not in said.replace(HOW_TO_ESCAPE, "")


def test_what_a_broker_address_says() -> None:
    broker = BrokerAddress.parse("mqtts://m%65:p%23%2F%3F%40%3A%25@[::1]/site%20a/b/")
    assert (broker.host, broker.port, broker.secure, broker.prefix) == ("::1", 8883, True, "site a/b")
    assert (broker.user, broker.password) == ("me", "p#/?@:%")
    assert "p#" not in repr(broker)
    assert BrokerAddress.parse(" mqtt://broker\r\n").prefix == "accmpeg"


def test_a_broker_that_refuses_the_password_is_told_without_it(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            said.append(connection.recv(4096))
            connection.sendall(b"\x20\x02\x00\x05")  # CONNACK: not authorised

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, args=[listener], daemon=True).start()
        start(mqtt=f"mqtt://me:s3c%23ret@127.0.0.1:{listener.getsockname()[1]}/site")
        until(lambda: any("mqtt lost" in each.getMessage() for each in caplog.records))
    assert b"s3c#ret" in said[0]
    (record, *_) = [each for each in caplog.records if "mqtt lost" in each.getMessage()]
    assert "not authori" in record.reason.lower()  # type: ignore[attr-defined]
    assert "s3c" not in f"{vars(record)}"
