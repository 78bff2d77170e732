"""How FFmpeg is brought to open a source: the file, address, device or pipe, and the video in it."""

import logging
import time
from contextlib import suppress

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from accmpeg.errors import SourceError
from accmpeg.media.addresses import is_url, scheme_of
from accmpeg.media.inputs import TIMEOUT_S, InputOptions, ffmpeg_options, reason, refusal, tries_udp
from accmpeg.media.mistaken import way_out
from accmpeg.media.pipe import Pipe

__all__ = ["PictureWatch", "is_file", "open_video"]

log = logging.getLogger(__name__)

_BARE_JPEG_S = 3.0  # of the time-out, to find out whether a silent address sends these
# Of another stream, after which one with a single packet is a picture and no video that begins late.
_PACKETS_OF_A_COVER = 250
# Without a picture. A camera is joined between two keyframes, which may be a minute apart.
_SAID_S, _GIVEN_UP_S = 10.0, 120.0


def is_file(address: str, format_name: str | None = None) -> bool:
    """Whether FFmpeg is to read a file or pipe, and finds out by itself of what kind it is."""
    return address.startswith("file:") and not is_url(address) and format_name is None


class PictureWatch:
    """Looks out for packets that no picture comes of: of a stream that has no keyframes, or is encrypted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.came()

    def came(self) -> None:
        """There is a picture."""
        self._since_s: float | None = None
        self._said = False

    def waits(self, now_s: float) -> None:
        """There is a packet. Raises SourceError where none has given a picture for long."""
        if self._since_s is None:
            self._since_s = now_s
        waited_s = now_s - self._since_s
        if waited_s > _GIVEN_UP_S:
            raise SourceError(
                f"no picture of {self._name} can be decoded for {waited_s:.0f} s: it has no keyframes, or is "
                "encrypted"
            )
        if waited_s > _SAID_S and not self._said:
            self._said = True
            log.warning("no picture of %s can be decoded yet: it waits for a keyframe", self._name)


def open_video(
    address: str,
    name: str,
    asked: InputOptions,
    *,
    format_name: str | None = None,
    is_pipe: bool = False,
) -> tuple[InputContainer, VideoStream, Pipe | None]:
    """Opens what FFmpeg reads, finds the video in it, and gives the pipe that it reads through, if any.

    Raises SourceError with the way out where there is one.
    """
    container, pipe = _open(address, name, asked, format_name=format_name, is_pipe=is_pipe)
    try:
        stream = _find_video(container, address, name, is_pipe=is_pipe)
    except BaseException:
        container.close()
        if pipe is not None:
            pipe.close()
        raise
    for other in container.streams:
        if container.format.name == "hls" and other.index != stream.index:
            other.discard = Discard.all  # or every variant of the stream would be fetched
    stream.thread_count = 1  # the camera's cores belong to the encoder and the AccModel
    return container, stream, pipe


def _open(
    address: str, name: str, asked: InputOptions, *, format_name: str | None, is_pipe: bool
) -> tuple[InputContainer, Pipe | None]:
    is_device = format_name == "v4l2"
    # For the container alone: a size meant for a device would become the decoder's too, right or wrong.
    options = {} if is_file(address, format_name) else ffmpeg_options(address, asked, is_device=is_device)
    if format_name == "sdp":
        options["protocol_whitelist"] = "file,udp,rtp"
    started_s = time.monotonic()
    try:
        if is_pipe:
            return _open_pipe(address.removeprefix("file:"))
        if scheme_of(address) in ("http", "https"):
            return _open_http(address, options), None
        timeout = None if is_file(address, format_name) else TIMEOUT_S
        try:
            return av.open(address, "r", format=format_name, container_options=options, timeout=timeout), None
        except (av.FFmpegError, OSError) as error:
            if not tries_udp(address, asked, error):
                raise
            log.info("rtsp over udp", extra={"source": name, "reason": reason(error)})
            options["rtsp_transport"] = "udp"
            return av.open(address, "r", format=format_name, container_options=options, timeout=timeout), None
    except SourceError:
        raise
    except (av.FFmpegError, OSError, ValueError, UnicodeError) as error:
        said = refusal(error, address, asked, time.monotonic() - started_s, is_device=is_device)
        if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
            said = way_out(address) or said
        # Not chained for an address: libav's own error repeats it with user and password.
        cause = error if is_file(address, format_name) else None
        raise SourceError(f"can't open {name}: {said}") from cause


def _open_pipe(path: str) -> tuple[InputContainer, Pipe]:
    pipe = Pipe(path)
    try:
        return av.open(pipe, "r"), pipe
    except BaseException as error:
        pipe.close()
        pipe.end()
        if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
            raise SourceError(f"can't open {path}: {pipe.way_out()}") from None
        raise


def _open_http(address: str, options: dict[str, str]) -> InputContainer:
    try:
        found = av.open(
            address, "r", container_options=options, timeout=(TIMEOUT_S - _BARE_JPEG_S, TIMEOUT_S)
        )
    except av.error.ExitError:
        with suppress(av.FFmpegError, OSError):
            return _open_bare_jpegs(address, options)
        raise
    if found.format.name != "jpeg_pipe" or found.size > 0:
        return found
    found.close()
    return _open_bare_jpegs(address, options)


def _open_bare_jpegs(address: str, options: dict[str, str]) -> InputContainer:
    """JPEGs one after another, in no multipart: FFmpeg may look at a megabyte before it knows, and takes 25 a
    second for granted."""
    options = options | {"probesize": "32"}
    return av.open(address, "r", format="mjpeg", container_options=options, timeout=(_BARE_JPEG_S, TIMEOUT_S))


def _find_video(container: InputContainer, address: str, name: str, *, is_pipe: bool) -> VideoStream:
    """The video among the streams: no cover, no tile of a photograph. Raises SourceError without one."""
    found = [
        stream
        for stream in container.streams.video
        # What depends on other streams is a part of a picture, such as one tile of a photograph.
        if not stream.disposition & (Disposition.attached_pic | Disposition.dependent)
        and stream.codec_context is not None
    ]
    if not found:
        kinds = {"picture" if each.type == "video" else each.type for each in container.streams}
        said = way_out(address) or (f"only {', '.join(sorted(kinds))}" if kinds else "")
        raise SourceError(f"{name} holds no video{': ' if said else ''}{said}")
    looks_ahead = len(found) > 1 and is_file(address) and not is_pipe
    return _first_moving(found, address) if looks_ahead else found[0]


def _first_moving(streams: list[VideoStream], address: str) -> VideoStream:
    """The first of several video streams that is no single picture, as a cover is that nobody marked."""
    counts = dict.fromkeys((stream.index for stream in streams), 0)
    with suppress(av.FFmpegError, OSError), av.open(address) as again:
        for packet in again.demux(*counts):
            counts[packet.stream.index] += packet.size > 0
            if counts[streams[0].index] > 1 or max(counts.values()) > _PACKETS_OF_A_COVER:
                break
    return next((stream for stream in streams if counts[stream.index] > 1), streams[0])
