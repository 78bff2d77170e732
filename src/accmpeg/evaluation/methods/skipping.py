"""What methods share that do not send every frame: a stream of chosen frames, and results used again."""

from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import av

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import encode_counted, keep_seen
from accmpeg.media.encoder import EncoderSettings

__all__ = ["SKIP_NOTICE_BYTES", "ChosenFrames", "LastResult"]

SKIP_NOTICE_BYTES = 8
"""Tells the server that a frame was left out: the bare prefix of a message on the wire."""


class ChosenFrames:
    """Encodes and uploads the frames it is given, and hands them back as the server decodes them."""

    def __init__(self, session: Session, settings: EncoderSettings, *, stream: str = "main") -> None:
        self._session, self._stream = session, stream
        self._steered = SteeredEncoder(settings, None)
        self._steered.times.take()
        self._sent: deque[int] = deque()

    def send(self, index: int, frame: av.VideoFrame) -> list[tuple[int, av.VideoFrame]]:
        """Sends one frame of any size; returns what was decoded, by source index."""
        return self.send_all([(index, frame)])

    def send_all(self, frames: Sequence[tuple[int, av.VideoFrame]]) -> list[tuple[int, av.VideoFrame]]:
        """Sends the chosen frames of a chunk together: all are coded, all travel, all are decoded."""
        units = []
        for index, frame in frames:
            units += encode_counted(self._session, self._steered, frame, stream=self._stream)
            self._sent.append(index)
        self._session.upload(units)
        decoded = self._session.decode(units, self._steered.encoder, stream=self._stream)
        return [(self._sent.popleft(), picture) for picture in decoded]

    def finish(self) -> list[tuple[int, av.VideoFrame]]:
        """Sends what the encoder still holds and closes the stream."""
        units = encode_counted(self._session, self._steered, None, stream=self._stream)
        self._session.upload(units)
        decoded = self._session.decode(units, self._steered.encoder, stream=self._stream)
        decoded += self._session.flush_decoder(self._stream)
        self._steered.close()
        return [(self._sent.popleft(), picture) for picture in decoded]


class LastResult:
    """The server's memory of the newest frames that reached it, for the frames that do not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frames: list[tuple[int, av.VideoFrame]] = []
        """Of the newest delivery, rising."""
        self._values: dict[int, Any] = {}

    def deliver(self, frames: Sequence[tuple[int, av.VideoFrame]]) -> None:
        """The server DNN's results on decoded frames, in one batch, are those of their source frames."""
        if not frames:
            return
        self._session.deliver_batch(frames)
        # The one before may still be used by frames between it and the first of these.
        self._frames = [*self._frames[-1:], *frames]
        kept = {index for index, _ in self._frames}
        self._values = {index: value for index, value in self._values.items() if index in kept}

    def reuse(self, index: int) -> None:
        """The newest result before frame `index` is that of frame `index` too; costs the camera a notice."""
        self._session.upload(SKIP_NOTICE_BYTES)
        used, frame = max((each for each in self._frames if each[0] < index), key=itemgetter(0))
        keep_seen(self._session, index, frame)
        result = self.value(used) if self._session.wanted(index) else None
        self._session.deliver_result(index, result, of=used)

    def value(self, index: int) -> Any:
        """The result on a frame of the newest delivery."""
        if index not in self._values:
            value = self._session.results.get(index)
            if value is None:
                frame, clip = dict(self._frames)[index], self._session.clip
                # Not `session.infer`: `deliver` has counted this pass, also where nobody wanted its result.
                value = self._session.context.dnn.infer(frame, (clip.width_px, clip.height_px))
            self._values[index] = value
        return self._values[index]
