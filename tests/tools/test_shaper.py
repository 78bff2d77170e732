"""The shaping proxy: real bytes over real loopback connections."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from accmpeg.evaluation.link.emulator import ServerMachine, emulate
from accmpeg.evaluation.link.flow import Delivery, Flow, Step
from accmpeg.evaluation.link.link import Link
from linklab.shaper import ShapingProxy, transfer

FAST = Link(bandwidth_bps=50e6)


@asynccontextmanager
async def echo_through(link: Link) -> AsyncIterator[ShapingProxy]:
    """A server behind a proxy that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, ShapingProxy(server.sockets[0].getsockname(), link) as proxy:
        yield proxy


async def echoed(proxy: ShapingProxy, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(data)
    writer.write_eof()
    back = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return back


@pytest.mark.parametrize(
    "link", [FAST, Link(20e6, loss=0.2, jitter_ms=20, retransmit_ms=20, queue_limit_bytes=3000)]
)
def test_bytes_come_whole_and_in_order_on_every_connection(link: Link) -> None:
    async def run() -> None:
        parts = [random.Random(seed).randbytes(30_000) for seed in range(4)]
        async with echo_through(link) as proxy:
            assert await asyncio.gather(*(echoed(proxy, part) for part in parts)) == parts
            assert proxy.uplink_bytes == proxy.downlink_bytes == 120_000

    asyncio.run(run())


@pytest.mark.parametrize(
    "link",
    [Link(1e6, propagation_ms=30), Link(2e6, propagation_ms=30), Link(trace=(*range(0, 400, 6), 700))],
    ids=["1 Mbit/s", "2 Mbit/s", "trace with an outage"],
)
def test_real_delays_are_the_emulated_ones(link: Link) -> None:
    chance = random.Random(5)
    sizes = [16_000 if index % 20 == 0 else chance.randint(1500, 5000) for index in range(40)]
    for attempt in range(3):  # a busy machine can only delay; a wrong model is wrong each time
        times = asyncio.run(transfer([(index * 1000 / 30, size) for index, size in enumerate(sizes)], link))
        flows = [
            Flow(sent_ms, (Step("uplink", size_bytes=size, delivers=(Delivery(index, index),)),))
            for index, ((sent_ms, _), size) in enumerate(zip(times, sizes, strict=True))
        ]
        emulated_ms = emulate(flows, link, ServerMachine()).delay_ms
        real_ms = [arrived_ms - sent_ms for sent_ms, arrived_ms in times]
        emulated, real = (np.percentile(delays, [50, 95]) for delays in (emulated_ms, real_ms))
        assert np.min(np.subtract(real_ms, emulated_ms)) > -3  # never earlier than the link allows
        if real == pytest.approx(emulated, rel=0.1, abs=3):
            return
        print(f"attempt {attempt}: p50 and p95 emulated {emulated}, real {real}")
    pytest.fail("real delays differ from the emulated ones by more than 10 % and 3 ms")


def test_connections_share_the_link() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with echo_through(Link(2e6, downlink_bps=100e6)) as proxy:
            start_s = loop.time()
            await asyncio.gather(*(echoed(proxy, bytes(25_000)) for _ in range(4)))
            assert loop.time() - start_s >= 0.4 - 0.01

    asyncio.run(run())


def test_a_new_bandwidth_counts_for_what_waits_already() -> None:
    async def run() -> None:
        # A minute and a half at the old bandwidth.
        async with echo_through(Link(1e3, downlink_bps=50e6)) as proxy:
            waiting = asyncio.create_task(echoed(proxy, bytes(12_000)))
            await asyncio.sleep(0.1)
            assert proxy.uplink_bytes == 0
            proxy.set_link(FAST)
            assert len(await asyncio.wait_for(waiting, 30)) == 12_000

    asyncio.run(run())


def test_nothing_passes_a_cut_and_nothing_is_lost_by_it() -> None:
    async def run() -> None:
        data = random.Random(1).randbytes(200_000)
        async with echo_through(FAST) as proxy:
            proxy.cut()
            waiting = asyncio.create_task(echoed(proxy, data))
            await asyncio.sleep(0.3)
            assert proxy.uplink_bytes == 0
            proxy.restore()
            assert await asyncio.wait_for(waiting, 30) == data

    asyncio.run(run())


def test_a_full_queue_holds_its_sender_back() -> None:
    async def run() -> None:
        async with echo_through(FAST) as proxy:
            proxy.cut()
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(bytes(40_000_000))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.5)
            # Some megabytes are in the sockets' own buffers; the rest still with the sender.
            assert writer.transport.get_write_buffer_size() > 20_000_000
            writer.transport.abort()

    asyncio.run(run())


def test_a_reset_breaks_connections_and_new_ones_work() -> None:
    async def run() -> None:
        async with echo_through(FAST) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"there?")
            assert await reader.readexactly(6) == b"there?"
            proxy.reset()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
            writer.transport.abort()
            assert await echoed(proxy, b"again") == b"again"

    asyncio.run(run())


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        server.close()
        await server.wait_closed()
        async with ShapingProxy(address, FAST) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
            writer.transport.abort()

    asyncio.run(run())
