"""A small RTSP camera on real sockets: H.264 over TCP, UDP or both, passwords, refusals and silence."""

import base64
import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.frames import plane_view

_FRAME_RATE = 15
_LARGEST_BYTES = 1200
_DESCRIPTION = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
)


def coded_pictures(count: int = 5) -> list[bytes]:
    """Keyframes as Annex B, each with its parameter sets."""
    settings = EncoderSettings(
        width_px=160, height_px=96, frame_rate=Fraction(_FRAME_RATE), qp=40, gop_frames=1, steerable=False
    )
    random = np.random.default_rng(0)
    units: list[AccessUnit] = []
    with Encoder(settings) as encoder:
        for _ in range(count):
            frame = av.VideoFrame(160, 96, "yuv420p")
            for index in range(3):
                plane = plane_view(frame, index)
                plane[:] = random.integers(60, 190, plane.shape)
            units += encoder.encode(frame)
        units += encoder.flush()
    return [unit.data for unit in units]


def rtp_packets(picture: bytes, sequence: int, ticks: int) -> list[bytes]:
    """RFC 6184: NAL units whole, or as fragments (FU-A) where they are too long for a datagram."""
    payloads = []
    for nal in re.split(rb"\x00\x00\x00?\x01", picture)[1:]:
        if len(nal) <= _LARGEST_BYTES:
            payloads.append(nal)
            continue
        parts = [nal[at : at + _LARGEST_BYTES] for at in range(1, len(nal), _LARGEST_BYTES)]
        for index, part in enumerate(parts):
            flags = (index == 0) << 7 | (index == len(parts) - 1) << 6 | (nal[0] & 31)
            payloads.append(bytes([nal[0] & 0xE0 | 28, flags]) + part)
    packets = []
    for index, payload in enumerate(payloads):
        is_last = index == len(payloads) - 1
        head = struct.pack(">BBHII", 0x80, 96 | is_last << 7, (sequence + index) & 0xFFFF, ticks, 7)
        packets.append(head + payload)
    return packets


@dataclass
class RtspCamera:
    """Runs in threads until the test ends. `refusal` is the answer to a transport that it does not have."""

    transports: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
    refusal: str = "461 Unsupported Transport"
    login: tuple[str, str] | None = None
    digest: bool = False
    describes: str = "200 OK"
    silent_at: str | None = None
    """From this request on it says nothing; `CONNECT` is from the beginning."""
    hangs_up: bool = False
    host: str = "127.0.0.1"
    asked: list[str] = field(default_factory=list)
    """First line and transport of every request."""

    def __enter__(self) -> "RtspCamera":
        self._pictures = coded_pictures()
        self._ended = threading.Event()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def address(self, login: str = "", path: str = "/live") -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"rtsp://{login}{host}:{self.port}{path}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self._listener.accept()
                threading.Thread(target=self._talk, args=(connection, peer[0]), daemon=True).start()

    def _talk(self, connection: socket.socket, peer: str) -> None:
        with connection, contextlib.suppress(OSError):
            if self.hangs_up:
                return
            to_port = None
            for request in self._requests(connection):
                verb = request.split()[0]
                transport = re.search(r"Transport: *(.*)", request)
                self.asked.append(f"{request.splitlines()[0]} {transport[1] if transport else ''}".strip())
                if self.silent_at in (verb, "CONNECT"):
                    self._ended.wait()
                    return
                status, headers, body = "200 OK", "Session: 1\r\n", ""
                if verb == "DESCRIBE":
                    status, headers, body = self._describe(request)
                elif verb == "SETUP":
                    status, headers, to_port = self._set_up(request)
                number = re.search(r"CSeq: *(\d+)", request, re.IGNORECASE)
                assert number is not None
                length = f"Content-Length: {len(body)}\r\n" if body else ""
                answer = f"RTSP/1.0 {status}\r\nCSeq: {number[1]}\r\n{headers}{length}\r\n{body}"
                connection.sendall(answer.encode())
                if verb == "PLAY":
                    self._play(connection, (peer, to_port) if to_port else None)
                    return

    def _requests(self, connection: socket.socket) -> Iterator[str]:
        waiting = b""
        if self.silent_at == "CONNECT":
            self._ended.wait()
        while data := connection.recv(4096):
            waiting += data
            while b"\r\n\r\n" in waiting:
                request, waiting = waiting.split(b"\r\n\r\n", 1)
                yield request.decode()

    def _describe(self, request: str) -> tuple[str, str, str]:
        if self.login is not None and not self._is_admitted(request):
            kind = 'Digest realm="camera", nonce="abc"' if self.digest else 'Basic realm="camera"'
            return "401 Unauthorized", f"WWW-Authenticate: {kind}\r\n", ""
        if self.describes != "200 OK":
            return self.describes, "", ""
        return "200 OK", "Content-Type: application/sdp\r\n", _DESCRIPTION

    def _is_admitted(self, request: str) -> bool:
        assert self.login is not None
        user, password = self.login
        if not self.digest:
            return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" in request
        texts = (f"{user}:camera:{password}", f"DESCRIBE:{request.split()[1]}")
        first, second = (hashlib.md5(text.encode()).hexdigest() for text in texts)
        return hashlib.md5(f"{first}:abc:{second}".encode()).hexdigest() in request

    def _set_up(self, request: str) -> tuple[str, str, int | None]:
        ports = re.search(r"client_port=(\d+)-(\d+)", request)
        if ports is None and "tcp" in self.transports:
            return "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", None
        if ports is None or "udp" not in self.transports:
            return self.refusal, "", None
        named = f"client_port={ports[1]}-{ports[2]};server_port=50000-50001"
        return "200 OK", f"Transport: RTP/AVP;unicast;{named}\r\nSession: 1\r\n", int(ports[1])

    def _play(self, connection: socket.socket, over_udp: tuple[str, int] | None) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sequence = 0
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            for index in range(10_000):
                picture = self._pictures[index % len(self._pictures)]
                for packet in rtp_packets(picture, sequence, index * 90_000 // _FRAME_RATE):
                    sequence += 1
                    if over_udp:
                        datagrams.sendto(packet, over_udp)
                    else:
                        connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                if self._ended.wait(1 / _FRAME_RATE):
                    return
