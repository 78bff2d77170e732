"""Where results go, when it is full, gone or another's."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from accmpeg.camera.outputs import FrameResult, ResultOutputs, ResultSocket
from accmpeg.errors import LinkError

WRITER = """
from accmpeg.camera.outputs import FrameResult, ResultQueue, write_lines
from accmpeg.cli.logs import set_up_logs
set_up_logs()
results = ResultQueue(write_lines)
for n in range(200):
    results.put(FrameResult("run", n, n, 0, 0, 1.0, False, {"objects": [0] * 200}, None, {}, {}))
results.close()
"""


def said_to(stdout: str) -> str:
    command = f"{sys.executable} -c '{WRITER}' {stdout}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stderr


def test_a_full_disk_and_a_reader_that_has_gone_are_one_line() -> None:
    full = said_to("> /dev/full").splitlines()
    assert len(full) == 1, full
    assert "results are lost" in full[0]
    assert "No space left" in full[0]
    gone = said_to("| head -n 1 > /dev/null").splitlines()
    assert len(gone) == 1, gone
    assert "nobody reads the results any more" in gone[0]


def test_who_iterates_again_finds_the_end_too() -> None:
    result = FrameResult("run", 1, 2, 3, 4, 5.0, False, {"objects": []}, None, {"wait": 1.0}, {})
    outputs = ResultOutputs(None, [])
    outputs.put(result)
    outputs.end()
    assert list(outputs) == [result]
    assert list(outputs) == []
    assert json.loads(result.to_json()) == asdict(result)


def test_a_socket_that_another_camera_offers_stays_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.sock"
    address = f"unix:{path}"

    async def both() -> None:
        first, second = ResultSocket(address), ResultSocket(address)
        await first.open()
        with pytest.raises(LinkError, match="another program does so already; give another"):
            await second.open()
        await second.close()
        with socket.socket(socket.AF_UNIX) as reader:
            assert reader.connect_ex(str(path)) == 0
        await asyncio.sleep(0.2)  # what served the connections ends
        await first.close()

    asyncio.run(both())
    assert not path.exists()


def test_a_reader_that_lags_behind_gets_the_last_results_too(tmp_path: Path) -> None:
    path = tmp_path / "results.sock"
    result = FrameResult("run", 1, 2, 3, 4, 5.0, False, {"objects": ["x" * 1000]}, None, {}, {})
    sent, read = 0, b""

    async def send(reader: socket.socket) -> threading.Thread:
        nonlocal sent
        results = ResultSocket(f"unix:{path}")
        await results.open()
        reader.connect(str(path))
        while not results._clients:
            await asyncio.sleep(0.01)
        (writer,) = results._clients
        while not writer.transport.get_write_buffer_size():  # the reader's own buffer is full
            results.put(result)
            sent += 1
        taking = threading.Thread(target=take, args=(reader,))
        taking.start()
        await results.close()
        return taking

    def take(reader: socket.socket) -> None:
        nonlocal read
        while data := reader.recv(65536):
            read += data

    with socket.socket(socket.AF_UNIX) as reader:
        asyncio.run(send(reader)).join()
    assert [json.loads(line)["sequence"] for line in read.splitlines()] == [1] * sent
