"""Where access units go: mp4, mkv and ts files, or any address that FFmpeg muxes to.

A file is written under its name plus `.part` and renamed when it is finished. What ends early, by a failure
or a full disk, is finished too: nothing that was recorded is thrown away.
"""

import contextlib
import io
import os
import socket
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import OutputContainer
from av.stream import Stream

from accmpeg.errors import MediaError, SinkError, UsageError, reason
from accmpeg.media.addresses import (
    describe,
    is_url,
    locate,
    locate_peer,
    scheme_of,
    with_small_scheme,
)
from accmpeg.media.encoder import AccessUnit, Encoder
from accmpeg.media.inputs import proxy_options
from accmpeg.media.native import has_protocol

__all__ = ["Sink", "check_address", "open_sink", "unused_path"]

_ALL = ("h264", "hevc", "vp9", "av1")
_FORMATS = {  # FFmpeg's muxer → what it holds so that it can be read back
    "mp4": _ALL,
    "mov": ("h264", "hevc"),
    "matroska": _ALL,
    "webm": ("vp9", "av1"),
    "mpegts": ("h264", "hevc"),
    "flv": ("h264", "hevc"),
    "ivf": ("vp9", "av1"),
    "h264": ("h264",),
    "hevc": ("hevc",),
    "rtsp": _ALL,
    "rtp_mpegts": ("h264", "hevc"),
}
_SUFFIXES = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts",
    ".flv": "flv", ".ivf": "ivf", ".h264": "h264", ".hevc": "hevc",
}  # fmt: skip
_SCHEMES = {
    "rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "tcp": "mpegts",
    "srt": "mpegts", "rtp": "rtp_mpegts", "http": "mpegts", "https": "mpegts",
}  # fmt: skip
# A file that is cut off stays readable: fragments of a second, made one piece at the end.
_FORMAT_OPTIONS = {
    name: {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"} for name in ("mp4", "mov")
}
_PORTS = {"rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
_TIMEOUT_S = 5.0


class Sink:
    """Made by `open_sink`. Every method raises SinkError, naming the file or address, when writing fails.

    Leaving `with` closes it, whatever happened inside: a recording that breaks off is kept.
    """

    def __init__(self, name: str, container: OutputContainer, encoder: Encoder, path: Path | None) -> None:
        self._name = name
        self._path = path
        self._container: OutputContainer | None = container
        self._encoder = encoder
        self._stream: Stream | None = None
        self._frame_ticks = max(1, round(1 / (encoder.settings.frame_rate * encoder.time_base)))
        self.bytes_written = 0

    def write(self, unit: AccessUnit) -> None:
        """Adds one access unit; they come in the order in which the encoder gave them.

        Where that fails, what was written before is kept as far as it can be read.
        """
        if self._container is None:
            raise SinkError(f"{self._name} is closed: nothing more can be written to it")
        try:
            if self._stream is None:
                self._stream = _add_stream(self._container, unit, self._encoder)
            packet = _packet(unit, self._stream)
            packet.duration = self._frame_ticks
            self._container.mux(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._given_up(f"can't write {self._name}: {reason(error)}") from None
        self.bytes_written += unit.size_bytes

    def close(self) -> None:
        """Completes the file and gives it its name. A second call does nothing."""
        if self._container is None:
            return
        if not self.bytes_written:
            self.discard()
            raise SinkError(f"nothing was written to {self._name}: no frames came")
        try:
            self._container.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._given_up(f"can't finish {self._name}: {reason(error)}") from None
        self._container = None
        if self._path is not None:
            self._name_file(self._path)

    def discard(self) -> None:
        """Throws away what was written; an older file of the same name stays."""
        if self._container is not None:
            self._let_go()
            self._delete()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self.bytes_written:
            with contextlib.suppress(SinkError):  # what went wrong before says more
                self.close()
        else:
            self.discard()

    def _given_up(self, problem: str) -> SinkError:
        """Keeps what can be read of the file; returns the error that says so."""
        self._let_go()
        if self._path is None:
            return SinkError(problem)
        frames = _readable_frames(_part(self._path))
        if not frames:
            self._delete()
            return SinkError(problem)
        self._name_file(self._path)
        return SinkError(f"{problem}; it holds the {frames} frames before that")

    def _let_go(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                container.close()

    def _name_file(self, path: Path) -> None:
        try:
            _part(path).replace(path)
        except OSError as error:
            raise SinkError(
                f"can't give {path} its name: {error.strerror or error}; it is {_part(path)}"
            ) from error

    def _delete(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                _part(self._path).unlink()


def open_sink(address: str | os.PathLike[str], encoder: Encoder) -> Sink:
    """Opens a file (mp4, mkv, webm, ts, … by its suffix) or an address (rtsp, rtmp, udp, …) for an encoder.

    A peer that accepts rtmp or http and never answers holds this process up without limit, signals included:
    where that may be, write through `camera.publish.RemoteSink`.
    Timestamps are as fine as the container's: mkv, webm and flv round to 1 ms; raw .h264 and .hevc have none.

    Args:
        address: Where the stream goes.
        encoder: Whose access units will be written.

    Returns:
        The sink; a file is finished when it is closed (`with`).

    Raises:
        SinkError: The suffix or scheme is unknown, the folder is missing, or the format can't hold the codec.
    """
    format_name: str | None
    if is_url(address):
        check_address(str(address))
        name, path, target = describe(address), None, with_small_scheme(str(address))
        format_name, known = _SCHEMES[scheme_of(address)], ""
    else:
        path = Path(address)
        name, target = str(address) or "''", ""
        format_name, known = _SUFFIXES.get(path.suffix.lower()), ", ".join(_SUFFIXES)
    if format_name is None:
        raise SinkError(f"can't tell the format of {name}: use one of {known}")
    if encoder.decoder_name not in _FORMATS[format_name]:
        held = ", ".join(_FORMATS[format_name])
        raise SinkError(f"{name} ({format_name}) can't hold {encoder.decoder_name}, only {held}")
    if path is not None:
        _check_file(path)
        target = f"file:{_part(path)}"
    else:
        _check_reachable(str(address), name)
        if scheme_of(address) == "tcp" and "?" not in target:
            target += f"?timeout={int(_TIMEOUT_S * 1e6)}"
    options = _options(str(address), format_name) if path is None else {}
    options = _FORMAT_OPTIONS.get(format_name, {}) | options
    try:
        container = av.open(target, "w", format=format_name, container_options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        doubt = locate(str(address)).doubt if path is None else ""
        raise SinkError(f"can't open {name}: {reason(error)}{doubt}") from None
    return Sink(name, container, encoder, path)


def check_address(address: str) -> None:
    """Raises SinkError for an address that no writer could ever reach: of a kind that FFmpeg can't write, or
    with a bad host, port or password in it."""
    scheme = scheme_of(address)
    # RTSP is no protocol to FFmpeg, but a format.
    if scheme not in _SCHEMES or (_SCHEMES[scheme] != "rtsp" and has_protocol(scheme) is False):
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise SinkError(
            f"can't publish to {describe(address)}: {scheme}:// is none of {known} in this FFmpeg"
        )
    try:
        locate_peer(address)
    except UsageError as error:
        raise SinkError(str(error)) from None


def _options(address: str, format_name: str) -> dict[str, str]:
    options = {}
    if format_name == "rtsp":
        options = {"rtsp_transport": "tcp", "timeout": str(int(_TIMEOUT_S * 1e6))}
    return options | _proxy_options(address)


def _proxy_options(address: str) -> dict[str, str]:
    try:
        return proxy_options(address)
    except MediaError as error:
        raise SinkError(str(error)) from None


def _check_reachable(address: str, name: str) -> None:
    """Connects once and hangs up: here libav's own connecting has no timeout and holds Python's lock."""
    scheme = scheme_of(address)
    if scheme not in _PORTS or _proxy_options(address).get("http_proxy"):
        return  # the proxy is what must be there
    found = locate(address)
    try:
        socket.create_connection((found.host, found.port or _PORTS[scheme]), timeout=_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:
        raise SinkError(f"can't reach {name}: {reason(error)}{found.doubt}") from None


def _add_stream(container: OutputContainer, unit: AccessUnit, encoder: Encoder) -> Stream:
    """Declares the stream as FFmpeg itself understands it from the first access unit.

    Muxers want pixel format, profile, colour tags and parameter sets, which PyAV can't set one by one.
    Reading the unit back from memory fills them in; a muxer told nothing but the codec wrote VP9 into mp4
    files that nothing opened.
    """
    memory = io.BytesIO()
    with av.open(memory, "w", format="nut") as writer:
        first = writer.add_mux_stream(
            encoder.settings.codec,
            rate=encoder.settings.frame_rate,
            width=encoder.coded_width_px,
            height=encoder.coded_height_px,
            time_base=encoder.time_base,
        )
        writer.mux(_packet(unit, first))
    memory.seek(0)
    with av.open(memory, "r", format="nut") as reader:
        stream = container.add_stream_from_template(reader.streams.video[0], opaque=True)
    stream.time_base = encoder.time_base
    return stream


def _packet(unit: AccessUnit, stream: Stream) -> "av.Packet[Stream]":
    packet: av.Packet[Stream] = av.Packet(unit.data)
    packet.stream = stream
    packet.time_base = unit.time_base
    packet.pts, packet.dts = unit.pts, unit.dts
    packet.is_keyframe = unit.is_keyframe
    return packet


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise SinkError(f"{path} is a folder: give the name of a file")
    if path.exists() and not path.is_file():
        # Else a pipe would be replaced by a file under its name, and whoever reads it wait for ever.
        raise SinkError(
            f"{path} is a pipe or device: give a file's name, or an address such as udp://HOST:PORT"
        )
    if not path.parent.is_dir():
        raise SinkError(f"can't write {path}: the folder {path.parent} does not exist")
    try:
        _part(path).touch()
    except OSError as error:
        raise SinkError(f"can't write {path}: {error.strerror or error}") from error


def _readable_frames(path: Path) -> int:
    """How many frames a player would find in a file that was not finished."""
    frames = 0
    with (
        contextlib.suppress(av.FFmpegError, OSError, ValueError, IndexError),
        av.open(f"file:{path}") as file,
    ):
        for packet in file.demux(video=0):
            frames += packet.size > 0 and not packet.is_corrupt
    return frames


def unused_path(path: Path) -> Path:
    """This one; where something was recorded under it, or is being, with the first number from 2 on that is
    free behind its name: a camera that starts again keeps what the run before recorded."""
    if not path.is_file() and not _part(path).exists():
        return path
    others = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(each for each in others if not each.exists() and not _part(each).exists())


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
