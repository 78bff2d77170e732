"""What a pushed camera is still to be told."""

import asyncio
import logging
from collections import deque

from starlette.websockets import WebSocket, WebSocketDisconnect

from accmpeg.errors import WireError
from accmpeg.protocol.wire import Feedback, Message, NewOffer, Offer, ResultMessage, TimeReply, pack
from accmpeg.quiet import FewRepeats
from accmpeg.server.cameras import StreamMemory
from accmpeg.server.changes import Changes
from accmpeg.server.line import Answer

__all__ = ["Outbox"]

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class Outbox:
    """Sends control messages first, then the newest time, results, the newest feedback. Event loop only.

    Args:
        socket: The camera's.
        results: Those that it has not had; they outlive the connection.
        keep: Whether sent results are remembered: they may be lost on their way, and all of them count.
        send_s: A camera that does not read for so long is gone.
        changes: Is notified of what was sent.
    """

    def __init__(
        self, socket: WebSocket, results: StreamMemory, changes: Changes, *, keep: bool, send_s: float
    ) -> None:
        self.gone = False
        """Nothing gets through any more; what is left, the camera's next connection may say."""
        self._socket = socket
        self._results = results
        self._changes = changes
        self._keep = keep
        self._send_s = send_s
        self._control: deque[Message] = deque(maxlen=16)
        self._time: TimeReply | None = None
        self._feedback: Feedback | None = None

    @property
    def is_heard(self) -> bool:
        """Whether the camera has been told everything that counts, or can't be told any more."""
        return self.gone or not (self._results.unsent or self._control)

    def say(self, message: Message) -> None:
        """A control message waits to be sent."""
        self._control.append(message)
        self._changes.notify()

    def offer(self, offer: Offer | None) -> None:
        """A new offer waits to be sent, as a control message."""
        self.say(NewOffer(offer=None if offer is None else offer.model_dump(mode="json")))

    def tell_time(self, reply: TimeReply) -> None:
        """Waits to be sent in place of an earlier one, which is worth less the longer it waits."""
        self._time = reply
        self._changes.notify()

    def tell(self, feedback: Feedback) -> None:
        """Waits to be sent in place of earlier feedback."""
        self._feedback = feedback
        self._changes.notify()

    def answer(self, answer: Answer) -> None:
        """A result waits to be sent; one that is too long for the wire becomes `failed`."""
        try:
            data = pack(_message(answer))
        except WireError as error:
            log.warning("a result is too long for its camera", extra={"reason": str(error)})
            answer.drop("failed")
            data = pack(_message(answer))
        self._results.unsent.append((answer.sequence, data))

    def leave(self) -> None:
        """Says nothing more."""
        self.gone = True
        self._changes.notify()

    async def run(self) -> None:
        """Sends until the camera is gone."""
        while True:
            await self._changes.until(
                lambda: self.gone or self._control or self._time or self._results.unsent or self._feedback
            )
            if self.gone:
                return
            if self._control:
                data = pack(self._control.popleft())
            elif self._time is not None:
                data, self._time = pack(self._time), None
            elif self._results.unsent:
                data = self._results.next_unsent(keep=self._keep)
            else:
                assert self._feedback is not None
                data, self._feedback = pack(self._feedback), None
            try:
                async with asyncio.timeout(self._send_s):
                    await self._socket.send_bytes(data)
            except (WebSocketDisconnect, RuntimeError, TimeoutError):
                self.gone = True
            self._changes.notify()


def _message(answer: Answer) -> ResultMessage:
    return ResultMessage(
        sequence=answer.sequence,
        pts=answer.pts,
        captured_us=answer.captured_us,
        result=answer.result,
        dropped=answer.dropped,
        server_ms={stage: round(max(0.0, ms), 3) for stage, ms in answer.server_ms.items()},
    )
