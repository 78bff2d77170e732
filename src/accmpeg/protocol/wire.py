"""What camera and server say to each other: versioned binary messages, one per WebSocket frame.

```
byte  0  1   2        3     4 … 7             8 …            8 + n …
      A  M   version  kind  n, big-endian u32  header (JSON)  payload (bytes)
```

```
camera                                             server
  hello ───────────────────────────────────────────▶
  ◀─────────────────────────────── welcome | refused
  access_unit, access_unit, … ─────────────────────▶
  ◀──────────────── result, feedback, result, …
  ◀─────────────────────────────────── new_offer (another DNN is in place)
  time_request ────────────────────────────────────▶
  ◀───────────────────────────────────── time_reply
  goodbye ─────────────────────────────────────────▶ (either side, before it closes)
```

Headers are JSON objects with exactly the fields below; an unknown field, a wrong type or a value out of range
is refused, and so is every length beyond the limits, before anything is allocated for it. Tokens are not part
of a message: they travel in the HTTP `Authorization` header of the WebSocket handshake. Times are
microseconds: `…_us` of the sender's own clock unless the field says whose. Frames are numbered from 0 by
`sequence`, which rises with every sent frame of a stream and never repeats, over reconnections too.
"""

import json
import re
import struct
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from accmpeg.errors import WireError

__all__ = [
    "ACCMODEL_LIMIT_BYTES",
    "HEADER_LIMIT_BYTES",
    "MESSAGE_LIMIT_BYTES",
    "SUBPROTOCOL",
    "VERSION",
    "AccessUnitMessage",
    "Feedback",
    "Goodbye",
    "Hello",
    "Message",
    "NewOffer",
    "Offer",
    "OfferedAccModel",
    "OfferedProfile",
    "Refused",
    "ResultMessage",
    "TimeReply",
    "TimeRequest",
    "Unpacked",
    "Welcome",
    "is_name",
    "pack",
    "read_offer",
    "unpack",
]

VERSION = 2
SUBPROTOCOL = f"accmpeg.{VERSION}"
"""The WebSocket subprotocol that both sides ask for."""

HEADER_LIMIT_BYTES = 1 << 20
MESSAGE_LIMIT_BYTES = 8 << 20
ACCMODEL_LIMIT_BYTES = 16 << 20
"""The largest AccModel that a server may offer."""

_PREFIX = struct.Struct(">2sBBI")
_MAGIC = b"AM"

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=_NAME)]
Side = Annotated[int, Field(ge=16, le=8192)]
Sequence = Annotated[int, Field(ge=0, lt=1 << 53)]
Microseconds = Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Milliseconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _printable(text: str) -> str:
    """Without what would speak to the terminal of those whom it is shown to."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


Reason = Annotated[str, Field(max_length=500), AfterValidator(_printable)]


def is_name(text: str) -> bool:
    """Whether a camera, stream or DNN can be named so: letters, digits, `_ . -`, at most 64.

    >>> is_name("gate"), is_name("front door")
    (True, False)
    """
    return re.fullmatch(_NAME, text) is not None and "\n" not in text


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Message(_Header):
    """Base of all messages. `kind` is the byte on the wire; `has_payload` says whether bytes follow."""

    kind: ClassVar[int]
    has_payload: ClassVar[bool] = False


class Hello(Message):
    """The camera's first message; the payload is the stream's parameter sets (may be empty).

    `stream_id` is the same over reconnections of one run of the camera, so that the server can tell a camera
    that came back from one that started anew. `drop`: what the server may do when it falls behind.
    """

    kind = 1
    has_payload = True
    camera: Name
    stream_id: Name
    dnn: Name | None = None
    """The server DNN wanted; None is the server's first."""
    codec: Literal["h264", "hevc", "vp9"]
    width_px: Side
    height_px: Side
    source_width_px: Side
    source_height_px: Side
    """The size that results are given in: that of the camera's own frames."""
    frame_rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    time_base: tuple[Annotated[int, Field(ge=1, le=1 << 31)], Annotated[int, Field(ge=1, le=1 << 31)]]
    """Numerator and denominator of the seconds that `pts` counts in."""
    drop: Literal["latest", "none"] = "latest"
    answered: Annotated[int, Field(ge=-1, lt=1 << 53)] | None = None
    """The last frame whose result has come back, −1 for none: results that were lost on their way come again,
    and up to it no frame is answered. None is for a camera that can't tell."""
    software: Annotated[str, Field(max_length=100)] = ""
    probe: bool = False
    """Only tries the way: its frames are answered, but it takes no camera's place and leaves no trace."""


class OfferedProfile(_Header):
    """What `accmpeg profile` chose for the site; a field that is absent stays as the camera has it."""

    source_px: tuple[Side, Side]
    """The size of the camera's own frames that it was made for."""
    size_px: tuple[Side, Side] | None = None
    b_frames: Annotated[int, Field(ge=0, le=16)] = 0
    mbtree_frames: Annotated[int, Field(ge=0, le=60)] = 0
    policy: Literal["none", "graded", "binary", "feedback"] | None = None
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = "veryfast"
    aq_mode: Annotated[int, Field(ge=0, le=3)] | None = None
    every: Annotated[int, Field(ge=1, le=250)] = 10
    map_strength: Annotated[float, Field(ge=0.1, le=3)] = 1.0
    map_margin: Annotated[int, Field(ge=0, le=10)] = 2
    max_bitrate_bps: Annotated[int, Field(ge=1000, le=1_000_000_000)] | None = None


class OfferedAccModel(_Header):
    """An AccModel for the server DNN. Its ONNX file is at `accmodel/SHA256`, beside the stream's path."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(gt=0, le=ACCMODEL_LIMIT_BYTES)]
    card: Annotated[str, Field(max_length=16 << 10)]
    """The card as it stands in its file, TOML."""


class Offer(_Header):
    """What suits the server DNN at this site, for cameras that were told nothing else."""

    dnn_sha256: Sha256 | None = None
    profile: OfferedProfile | None = None
    accmodel: OfferedAccModel | None = None


class Welcome(Message):
    """The server takes the stream. `resume_after`: the last sequence it has had of this stream, or −1."""

    kind = 2
    dnn: Name
    task: Literal["detection", "segmentation", "keypoints", "instances"]
    resume_after: Annotated[int, Field(ge=-1, lt=1 << 53)] = -1
    software: Annotated[str, Field(max_length=100)] = ""
    offer: Offer | None = None


class Refused(Message):
    """The server does not take the stream, or takes it no longer. `retry`: whether coming back can help."""

    kind = 3
    code: Literal["version", "auth", "dnn", "codec", "size", "busy", "protocol", "damaged"]
    reason: Reason
    retry: bool


class AccessUnitMessage(Message):
    """One coded frame; the payload is the access unit. `captured_us` is the camera's clock at capture.

    A change of size comes with a keyframe and names the new size; None is as before.
    """

    kind = 4
    has_payload = True
    sequence: Sequence
    pts: Microseconds
    is_keyframe: bool
    captured_us: Microseconds
    encoded_us: Microseconds
    """The camera's clock when the frame had been encoded."""
    spooled: bool = False
    """Sent late from the camera's spool: the result still counts, the delay does not."""
    size_px: tuple[Side, Side] | None = None
    camera_ms: dict[Annotated[str, Field(max_length=32)], Milliseconds] = Field(
        default_factory=dict, max_length=16
    )
    """What each stage of the camera took for this frame."""


class ResultMessage(Message):
    """The server DNN's result of one frame, in the camera's own pixels.

    `result` is the task's result as `tasks.result_json` writes it. Dropped frames give `dropped` and no
    result, so that every received frame is answered exactly once. Answers come in the order of display.
    """

    kind = 5
    sequence: Sequence
    pts: Microseconds
    captured_us: Microseconds
    """The camera's clock, as it came."""
    result: dict[str, Any] | None = None
    dropped: Literal["behind", "undecodable", "failed"] | None = None
    server_ms: dict[Annotated[str, Field(max_length=32)], Milliseconds] = Field(
        default_factory=dict, max_length=16
    )
    """Time spent in each stage of the server: `decode`, `queue`, `infer`, …"""


class Feedback(Message):
    """What the camera's controller needs, some times a second: what has arrived, and when."""

    kind = 6
    highest_sequence: Annotated[int, Field(ge=-1, lt=1 << 53)]
    received_bytes: Count
    """Payload bytes of all access units since the hello."""
    received_us: Microseconds
    """The server's clock when that last access unit arrived."""
    waiting: Count
    """Frames of this camera that wait in the server."""
    results_per_s: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = None
    """So many results a second the server can give this camera now; None is as many as it sends."""
    needs_keyframe: bool = False


class TimeRequest(Message):
    """Asks for the server's clock (as NTP does, RFC 5905): `sent_us` is the camera's clock."""

    kind = 7
    sent_us: Microseconds


class TimeReply(Message):
    """The server's clock is ((received − sent) + (replied − now)) / 2 ahead of the camera's.

    The error is at most half of (now − sent) − (replied − received).
    """

    kind = 8
    sent_us: Microseconds
    received_us: Microseconds
    replied_us: Microseconds


class Goodbye(Message):
    """The sender closes the stream on purpose. A server that drains says so here; the camera comes back."""

    kind = 9
    reason: Reason


class NewOffer(Message):
    """Another server DNN is in place of the one that answered, and this is what suits it; None is nothing.

    The offer is that of the welcome, but unread: a bad one ends no connection.
    """

    kind = 10
    offer: dict[str, Any] | None = None


_KINDS: dict[int, type[Message]] = {
    message.kind: message
    for message in (
        Hello,
        Welcome,
        Refused,
        AccessUnitMessage,
        ResultMessage,
        Feedback,
        TimeRequest,
        TimeReply,
        Goodbye,
        NewOffer,
    )
}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A message and its payload, a view into the bytes that came."""

    message: Message
    payload: memoryview


def pack(message: Message, payload: bytes | memoryview = b"") -> bytes:
    """A message as it goes over the wire. Raises `WireError` beyond the limits."""
    header = message.model_dump_json(exclude_defaults=True).encode()
    if len(header) > HEADER_LIMIT_BYTES:
        raise WireError(f"a header of {len(header)} bytes is above the limit of {HEADER_LIMIT_BYTES}")
    if payload and not message.has_payload:
        raise WireError(f"{type(message).__name__} carries no payload")
    data = b"".join((_PREFIX.pack(_MAGIC, VERSION, message.kind, len(header)), header, payload))
    if len(data) > MESSAGE_LIMIT_BYTES:
        raise WireError(f"a message of {len(data)} bytes is above the limit of {MESSAGE_LIMIT_BYTES}")
    return data


def unpack(data: bytes | bytearray | memoryview) -> Unpacked:
    """The message in one WebSocket frame. Raises `WireError` for anything but a valid one."""
    view = memoryview(data)
    if len(view) > MESSAGE_LIMIT_BYTES:
        raise WireError(f"a message of {len(view)} bytes is above the limit of {MESSAGE_LIMIT_BYTES}")
    if len(view) < _PREFIX.size:
        raise WireError(f"a message of {len(view)} bytes is shorter than its prefix")
    magic, version, kind, length = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        raise WireError("not a message of AccMPEG: it does not begin with 'AM'")
    if version != VERSION:
        raise WireError(f"a message of wire version {version}, this side speaks {VERSION}: update the other")
    if kind not in _KINDS:
        raise WireError(f"a message of unknown kind {kind}")
    if length > HEADER_LIMIT_BYTES or _PREFIX.size + length > len(view):
        raise WireError(f"a header of {length} bytes does not fit a message of {len(view)}")
    model = _KINDS[kind]
    body = view[_PREFIX.size : _PREFIX.size + length]
    payload = view[_PREFIX.size + length :]
    if len(payload) and not model.has_payload:
        raise WireError(f"{model.__name__} carries no payload, {len(payload)} bytes came")
    try:
        message = model.model_validate_json(bytes(body))
    except ValidationError as error:
        raise _unreadable(model, error) from None
    return Unpacked(message, payload)


def read_offer(message: NewOffer) -> Offer | None:
    """The offer of the message. Raises `WireError` for one that no camera could take."""
    try:
        return None if message.offer is None else Offer.model_validate_json(json.dumps(message.offer))
    except ValidationError as error:
        raise _unreadable(Offer, error) from None


def _unreadable(model: type[_Header], error: ValidationError) -> WireError:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, problem["loc"])) or "header"
    return WireError(f"a {model.__name__} that can't be read: {where}: {problem['msg']}")
