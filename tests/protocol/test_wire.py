"""The wire: what is packed comes back, and no bytes do worse than `WireError`."""

import contextlib
import json
import string
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accmpeg.errors import WireError
from accmpeg.protocol.wire import (
    ACCMODEL_LIMIT_BYTES,
    HEADER_LIMIT_BYTES,
    MESSAGE_LIMIT_BYTES,
    VERSION,
    AccessUnitMessage,
    Feedback,
    Goodbye,
    Hello,
    Message,
    NewOffer,
    Offer,
    OfferedAccModel,
    OfferedProfile,
    Refused,
    ResultMessage,
    TimeReply,
    TimeRequest,
    Welcome,
    pack,
    unpack,
)

NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=64)
SIDES = st.integers(16, 8192)
COUNTS = st.integers(0, 2**53 - 1)
MAYBE_SEQUENCES = st.integers(-1, 2**53 - 1)
MOMENTS = st.integers(-(2**62), 2**62 - 1)
TEXTS = st.text(max_size=100)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
OFFERS = st.builds(
    Offer,
    dnn_sha256=st.none() | HASHES,
    profile=st.none()
    | st.builds(
        OfferedProfile,
        source_px=st.tuples(SIDES, SIDES),
        size_px=st.none() | st.tuples(SIDES, SIDES),
        b_frames=st.integers(0, 16),
        policy=st.sampled_from([None, "none", "feedback", "graded"]),
        preset=st.sampled_from(["veryfast", "medium"]),
        aq_mode=st.none() | st.integers(0, 3),
        every=st.integers(1, 250),
        map_strength=st.floats(0.1, 3),
        map_margin=st.integers(0, 10),
        max_bitrate_bps=st.none() | st.integers(1000, 10**9),
    ),
    accmodel=st.none()
    | st.builds(
        OfferedAccModel,
        name=st.text(min_size=1, max_size=100),
        sha256=HASHES,
        size_bytes=st.integers(1, ACCMODEL_LIMIT_BYTES),
        card=TEXTS,
    ),
)
STAGES = st.dictionaries(st.text(max_size=32), st.floats(0, 1e9), max_size=16)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        camera=NAMES,
        stream_id=NAMES,
        dnn=st.none() | NAMES,
        codec=st.sampled_from(["h264", "hevc", "vp9"]),
        width_px=SIDES,
        height_px=SIDES,
        source_width_px=SIDES,
        source_height_px=SIDES,
        frame_rate=st.floats(0.001, 1000),
        time_base=st.tuples(st.integers(1, 2**31), st.integers(1, 2**31)),
        drop=st.sampled_from(["latest", "none"]),
        software=TEXTS,
    ),
    st.builds(
        Welcome,
        dnn=NAMES,
        task=st.sampled_from(["detection", "segmentation", "keypoints", "instances"]),
        resume_after=MAYBE_SEQUENCES,
        software=TEXTS,
        offer=st.none() | OFFERS,
    ),
    st.builds(
        Refused,
        code=st.sampled_from(["version", "auth", "busy", "damaged"]),
        reason=TEXTS,
        retry=st.booleans(),
    ),
    st.builds(
        AccessUnitMessage,
        sequence=COUNTS,
        pts=MOMENTS,
        is_keyframe=st.booleans(),
        captured_us=MOMENTS,
        encoded_us=MOMENTS,
        spooled=st.booleans(),
        size_px=st.none() | st.tuples(SIDES, SIDES),
        camera_ms=STAGES,
    ),
    st.builds(
        ResultMessage,
        sequence=COUNTS,
        pts=MOMENTS,
        captured_us=MOMENTS,
        result=st.none() | st.dictionaries(TEXTS, JSON, max_size=4),
        dropped=st.none() | st.sampled_from(["behind", "undecodable", "failed"]),
        server_ms=STAGES,
    ),
    st.builds(
        Feedback,
        highest_sequence=MAYBE_SEQUENCES,
        received_bytes=COUNTS,
        received_us=MOMENTS,
        waiting=COUNTS,
        needs_keyframe=st.booleans(),
    ),
    st.builds(TimeRequest, sent_us=MOMENTS),
    st.builds(TimeReply, sent_us=MOMENTS, received_us=MOMENTS, replied_us=MOMENTS),
    st.builds(Goodbye, reason=TEXTS),
    st.builds(NewOffer, offer=st.none() | st.dictionaries(TEXTS, TEXTS | st.integers(0, 9), max_size=3)),
)


def framed(kind: int, header: bytes, *, length: int | None = None, version: int = VERSION) -> bytes:
    return struct.pack(">2sBBI", b"AM", version, kind, len(header) if length is None else length) + header


@given(MESSAGES, st.binary(max_size=200))
@settings(max_examples=300)
def test_what_is_packed_comes_back(message: Message, payload: bytes) -> None:
    payload = payload if message.has_payload else b""
    unpacked = unpack(pack(message, payload))
    assert unpacked.message == message
    assert bytes(unpacked.payload) == payload


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_no_bytes_do_worse_than_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack(b"" if data[:3] == b"AM\x01" else data)


@given(st.integers(0, 255), st.one_of(st.binary(max_size=200), JSON.map(lambda v: json.dumps(v).encode())))
@settings(max_examples=500)
def test_no_header_does_worse_than_an_error(kind: int, header: bytes) -> None:
    with contextlib.suppress(WireError):
        assert unpack(framed(kind, header)).message.kind == kind


@given(MESSAGES, st.data())
@settings(max_examples=300)
def test_no_change_of_a_message_does_worse_than_an_error(message: Message, data: st.DataObject) -> None:
    packed = bytearray(pack(message))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(packed)))
    with contextlib.suppress(WireError):
        assert unpack(packed[:end]).message.kind == packed[3]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "shorter than its prefix"),
        (b"GET / HTTP/1.1\r\n", "not a message of AccMPEG"),
        (framed(7, b'{"sent_us": 1}', version=3), "wire version 3"),
        (framed(99, b"{}"), "unknown kind 99"),
        (framed(7, b"{}", length=2**32 - 1), "does not fit"),
        (framed(7, b'{"sent_us": 1}') + b"x", "carries no payload"),
        (framed(7, b'{"sent_us": 1, "more": 2}'), "more: Extra inputs"),
        (framed(7, b'{"sent_us": "1"}'), "sent_us"),
        (framed(7, b'{"sent_us": 1e400}'), "sent_us"),
        (framed(9, b"[" * 100_000), "Goodbye"),
        (bytes(MESSAGE_LIMIT_BYTES + 1), "above the limit"),
    ],
)
def test_each_wrong_thing_is_named(data: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        unpack(data)


def test_a_reason_does_not_speak_to_a_terminal() -> None:
    hostile = Refused.model_construct(code="busy", reason="\x1b]0;mine\x07 full: 摄像头\n", retry=True)
    assert unpack(pack(hostile)).message == Refused(code="busy", reason=" ]0;mine  full: 摄像头 ", retry=True)


def test_what_is_too_long_is_not_packed() -> None:
    unit: dict[str, Any] = {"sequence": 0, "pts": 0, "is_keyframe": True, "captured_us": 0, "encoded_us": 0}
    with pytest.raises(WireError, match="above the limit"):
        pack(AccessUnitMessage(**unit), bytes(MESSAGE_LIMIT_BYTES))
    with pytest.raises(WireError, match="header"):
        pack(ResultMessage(sequence=0, pts=0, captured_us=0, result={"x": "y" * HEADER_LIMIT_BYTES}))
    with pytest.raises(WireError, match="carries no payload"):
        pack(TimeRequest(sent_us=1), b"x")


@pytest.mark.parametrize(
    "accmodel",
    [
        {"sha256": "../../../etc/passwd"},
        {"sha256": "A" * 64},
        {"sha256": "a" * 64 + "\n"},
        {"size_bytes": ACCMODEL_LIMIT_BYTES + 1},
        {"size_bytes": 0},
        {"card": "x" * (16 * 1024 + 1)},
        {"name": ""},
        {"url": "http://elsewhere/"},
    ],
)
def test_an_offer_out_of_bounds_is_refused(accmodel: dict[str, Any]) -> None:
    offered = {"name": "x", "sha256": "a" * 64, "size_bytes": 1, "card": ""}
    said = {"dnn": "x", "task": "detection", "offer": {"accmodel": offered}}
    assert isinstance(unpack(framed(2, json.dumps(said).encode())).message, Welcome)
    said["offer"] = {"accmodel": offered | accmodel}
    with pytest.raises(WireError, match=r"offer\.accmodel"):
        unpack(framed(2, json.dumps(said).encode()))
