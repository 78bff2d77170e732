"""The one way of a frame: answered once, in order, and published; its share of the memory."""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from av import VideoFrame

from accmpeg.protocol.wire import (
    HEADER_LIMIT_BYTES,
    Goodbye,
    Message,
    NewOffer,
    ResultMessage,
    TimeReply,
    unpack,
)
from accmpeg.server import Limits, ServerSettings
from accmpeg.server.cameras import CameraRecord, StreamMemory
from accmpeg.server.changes import Changes
from accmpeg.server.core import Core
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.lanes import Outcome
from accmpeg.server.line import Answer, FrameLine, RateLimit, Stream
from accmpeg.server.memory import LEAST_FRAMES, MemoryBudget
from accmpeg.server.outbox import Outbox
from accmpeg.server.refusal import RefusalError
from accmpeg.server.view import Viewer
from tests.server.parts import Asked, Told, on_a_loop

SIZE_PX = (64, 48)
FRAME_BYTES = 64 * 48 * 3 // 2


class Site:
    """A line with what is around it."""

    def __init__(
        self, *, every_frame: bool = True, publishes: bool = True, memory_bytes: int = 1 << 20
    ) -> None:
        limits = Limits(waiting_frames=3)
        self.core = Core(ServerSettings(dnns=(Path("x"),), memory_bytes=memory_bytes, limits=limits), {})
        self.workers, self.told, self.record = Asked(), Told(), CameraRecord("gate")
        self.core.hub.outlets.append(self.told)
        stream = Stream(
            camera="gate",
            stream_id="run",
            time_base=(1, 30),
            source_size_px=(128, 96),
            frame_rate=30.0,
            every_frame=True,
            publishes=publishes,
        )
        workers = cast(DnnWorkers, self.workers)
        self.line = FrameLine(self.core, "gate", stream, SIZE_PX, workers, self.record)
        self.answered: list[int] = []
        self.line.on_answer = lambda answer: self.answered.append(answer.sequence)

    def take(self, sequence: int, frame: VideoFrame | None = None) -> Answer:
        answer = Answer(sequence, 3 * sequence, 1000 * sequence)
        self.line.expect(answer, 100)
        self.line.submit(answer, frame or VideoFrame(*SIZE_PX))
        return answer


def test_frames_are_answered_in_the_order_in_which_they_came() -> None:
    async def work() -> None:
        site = Site()
        for sequence in range(3):
            site.take(sequence)
        assert (site.line.unanswered, site.record.waiting, site.record.frames) == (3, 3, 3)
        found = Outcome({"task": "detection", "objects": []}, queue_ms=1.0, infer_ms=2.0, batch=1)
        for place in (2, 1):
            site.workers.jobs[place].finish(found)
        await asyncio.sleep(0)
        assert site.answered == [], "the first is not done"
        site.workers.jobs[0].finish(Outcome(dropped="failed"))
        await site.line.settled()
        assert site.answered == [0, 1, 2]
        assert [event["sequence"] for event in site.told.events] == [0, 1, 2]
        assert [event["dropped"] for event in site.told.events] == ["failed", None, None]
        assert site.told.events[1]["size_px"] == [128, 96], "that of the camera's own frames"
        assert {"queue", "infer", "total"} <= set(site.told.events[1]["server_ms"])
        assert (site.record.results, site.record.waiting) == (2, 0)

    on_a_loop(work)


def test_a_full_line_has_no_room_until_a_frame_is_inferred() -> None:
    async def work() -> None:
        site = Site()
        for sequence in range(3):
            assert site.line.has_room
            site.take(sequence)
        assert not site.line.has_room
        site.workers.jobs[1].finish(Outcome(dropped="failed"))
        await site.line.changes.until(lambda: site.line.has_room)
        assert site.line.unanswered == 3, "its answer still waits for the first"

    on_a_loop(work)


@pytest.mark.parametrize("is_watched", [False, True])
def test_of_pictures_whose_answers_wait_for_others_a_dashboard_has_the_newest(is_watched: bool) -> None:
    """A DNN that hangs at the first must not make the server keep all that come after it."""

    async def work() -> None:
        site = Site()
        if is_watched:
            viewer = Viewer()
            viewer.watch(frozenset({"gate"}), frozenset())
            site.core.gallery.viewers.append(viewer)
        *pictures, unused = (VideoFrame(*SIZE_PX) for _ in range(6))
        for sequence in range(5):
            site.take(sequence, pictures[sequence])
        for _ in range(4):
            found = {"task": "detection", "objects": []}
            site.workers.jobs.pop(1).finish(Outcome(found, batch=1))
        await asyncio.sleep(0)
        uses = [sys.getrefcount(each) for each in [*pictures, unused]]
        assert [each > uses[-1] for each in uses] == [True, False, False, False, is_watched, False]
        site.workers.jobs.pop(0).finish(Outcome(dropped="failed"))
        await site.line.settled()
        if is_watched:
            message = await viewer.next()
            assert b'"sequence":4,' in message

    on_a_loop(work)


def test_many_times_cost_a_camera_no_other_message() -> None:
    class Socket:
        def __init__(self) -> None:
            self.sent: list[Message] = []

        async def send_bytes(self, data: bytes) -> None:
            self.sent.append(unpack(data).message)
            if len(self.sent) == 3:
                outbox.leave()

    socket = Socket()
    outbox = Outbox(cast(Any, socket), StreamMemory(), Changes(), keep=True, send_s=1)

    async def work() -> None:
        outbox.offer(None)
        for sent_us in range(100):
            outbox.tell_time(TimeReply(sent_us=sent_us, received_us=sent_us, replied_us=sent_us))
        outbox.say(Goodbye(reason="enough"))
        await outbox.run()

    on_a_loop(work)
    assert socket.sent == [
        NewOffer(offer=None),
        Goodbye(reason="enough"),
        TimeReply(sent_us=99, received_us=99, replied_us=99),
    ]


def test_a_closed_line_answers_what_it_had() -> None:
    async def work() -> None:
        site = Site()
        site.take(0)
        site.line.close()
        await site.line.settled()
        assert [event["dropped"] for event in site.told.events] == ["behind"]

    on_a_loop(work)


def test_of_a_probe_nobody_else_hears() -> None:
    async def work() -> None:
        site = Site(publishes=False)
        site.take(0)
        site.workers.jobs[0].finish(Outcome({"task": "detection", "objects": []}, batch=1))
        await site.line.settled()
        assert site.answered == [0]
        assert site.told.events == []

    on_a_loop(work)


def test_a_result_that_is_too_long_for_the_wire_failed_for_all(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        site = Site()
        memory = StreamMemory()
        outbox = Outbox(cast(Any, None), memory, site.line.changes, keep=True, send_s=1)
        site.line.on_answer = outbox.answer
        site.take(0)
        long = {"task": "detection", "objects": [], "x": "x" * HEADER_LIMIT_BYTES}
        site.workers.jobs[0].finish(Outcome(long, batch=1))
        await site.line.settled()
        ((_, data),) = memory.unsent
        message = unpack(data).message
        assert isinstance(message, ResultMessage)
        assert (message.result, message.dropped) == (None, "failed")
        assert [event["dropped"] for event in site.told.events] == ["failed"]

    on_a_loop(work)
    assert "a result is too long for its camera" in caplog.text


def test_a_line_for_which_there_is_no_memory_is_refused() -> None:
    async def work() -> None:
        site = Site(memory_bytes=2 * LEAST_FRAMES * FRAME_BYTES)
        with pytest.raises(RefusalError, match="--memory"):
            site.line.resize((128, 96))
        assert site.line.size_px == SIZE_PX
        site.line.resize((64, 96))
        assert (site.record.width_px, site.record.height_px) == (64, 96)

    on_a_loop(work)


def test_a_name_that_comes_back_has_the_memory_it_had() -> None:
    memory = MemoryBudget(LEAST_FRAMES * FRAME_BYTES)
    memory.reserve("".join(["ga", "te"]), 64 * 48)
    memory.reserve("".join(["gat", "e"]), 64 * 48)
    with pytest.raises(RefusalError):
        memory.reserve("roof", 64 * 48)


def test_a_rate_is_held_after_a_second_of_burst() -> None:
    rate = RateLimit(10)
    assert [rate.wait_s(5, 0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rate.wait_s(5, 1.0) == 0.0
