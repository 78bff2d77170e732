"""What methods share that do not send every frame: a stream of chosen frames, and results used again."""

from collections import deque
from typing import Any

import av

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import encode_counted, keep_seen
from accmpeg.evaluation.session import Session
from accmpeg.media.encoder import EncoderSettings

__all__ = ["SKIP_NOTICE_BYTES", "ChosenFrames", "LastResult"]

SKIP_NOTICE_BYTES = 8
"""Tells the server that a frame was left out: the bare prefix of a message on the wire."""


class ChosenFrames:
    """Encodes and uploads the frames it is given, and hands them back as the server decodes them."""

    def __init__(self, session: Session, settings: EncoderSettings, *, stream: str = "main") -> None:
        self._session, self._stream = session, stream
        self._steered = SteeredEncoder(settings, None)
        self._steered.times.total_ms.clear()
        self._sent: deque[int] = deque()

    def send(self, index: int, frame: av.VideoFrame) -> list[tuple[int, av.VideoFrame]]:
        """Sends one frame of any size; returns what was decoded, by source index."""
        units = encode_counted(self._session, self._steered, frame)
        self._session.upload(units)
        self._sent.append(index)
        decoded = self._session.decode(units, self._steered.encoder, stream=self._stream)
        return [(self._sent.popleft(), picture) for picture in decoded]

    def finish(self) -> list[tuple[int, av.VideoFrame]]:
        """Sends what the encoder still holds and closes the stream."""
        units = encode_counted(self._session, self._steered, None)
        self._session.upload(units)
        decoded = self._session.decode(units, self._steered.encoder, stream=self._stream)
        decoded += self._session.flush_decoder(self._stream)
        self._steered.close()
        return [(self._sent.popleft(), picture) for picture in decoded]


class LastResult:
    """The server's memory of the newest frame that reached it, for the frames that do not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frame: av.VideoFrame | None = None
        self._index = -1
        self._value: Any = None

    def deliver(self, index: int, frame: av.VideoFrame) -> None:
        """The server DNN's result on a decoded frame is that of source frame `index`."""
        self._session.deliver(index, frame)
        self._frame, self._index, self._value = frame, index, self._session.results.get(index)

    def reuse(self, index: int) -> None:
        """The newest result is that of frame `index` too; costs the camera a notice."""
        self._session.upload(SKIP_NOTICE_BYTES)
        if self._frame is not None:
            keep_seen(self._session, index, self._frame)
        result = self.value if self._session.wanted(index) else None
        self._session.deliver_result(index, result, of=self._index)

    @property
    def value(self) -> Any:
        """The result on the newest frame."""
        if self._value is None:
            assert self._frame is not None, "no frame has reached the server yet"
            clip = self._session.clip
            # Not `session.infer`: `deliver` has counted this pass, also where nobody wanted its result.
            self._value = self._session.context.dnn.infer(self._frame, (clip.width_px, clip.height_px))
        return self._value
