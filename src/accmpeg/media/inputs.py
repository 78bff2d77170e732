"""How a source is opened: what FFmpeg is told for each kind of address, and what its refusals mean.

| kind | what is particular about it |
|---|---|
| RTSP | RTP through the RTSP connection (TCP); over UDP where the camera refuses that, or when asked for |
| HTTP | through the proxy of the environment, but never to this machine itself |
| V4L2 | format, size and frame rate of the device can be chosen, and are the device's or an error |
"""

import errno
import os
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import av
from av.video.stream import VideoStream

from accmpeg.errors import SourceError, UsageError
from accmpeg.media import native
from accmpeg.media.addresses import (
    HOW_TO_ESCAPE,
    LIVE_SCHEMES,
    describe,
    is_loopback,
    is_url,
    locate,
    locate_peer,
    scheme_of,
)
from accmpeg.media.proxies import Proxy, proxy_of
from accmpeg.media.v4l2 import FORMATS, look_at
from accmpeg.options import Option

__all__ = [
    "TIMEOUT_S",
    "InputOptions",
    "RtspTransport",
    "check_readable",
    "ffmpeg_options",
    "proxy_options",
    "reason",
    "refusal",
    "tries_udp",
    "why_not_as_asked",
]

RtspTransport = Literal["auto", "tcp", "udp"]

TIMEOUT_S = 10.0
# Longer than the other, which ends all of opening: FFmpeg's own says "invalid data" of an RTSP server that is
# silent, as it does of one that talks nonsense.
_SILENCE_S = 15.0
# FFmpeg looks at 5 to 7 s of a stream unless told otherwise, and where PyAV's time-out ends that, the
# connection is marked as broken for good: a stream of few frames per second would break off again and again.
_ANALYSED_S = 1.0
_HTTP = ("http", "https")
_TUNNELLED = ("rtsps", "rtmps", "rtmpt", "rtmpts", "rtmpte")
_OFFERS_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What may be chosen of a source; None leaves it to FFmpeg and the device.

    `rtsp_transport` `auto` asks for TCP and takes UDP where the camera has nothing else. `pixel_format` (such
    as `mjpeg` or `yuyv422`), `size_px` and `frame_rate` are those of a V4L2 device.
    """

    rtsp_transport: Annotated[
        RtspTransport, Option("RTSP: auto is TCP, and UDP where the camera refuses that.")
    ] = "auto"
    pixel_format: Annotated[
        str | None,
        Option("Device: pixel format, such as mjpeg or yuyv.", name="input_format", metavar="FORMAT"),
    ] = None
    size_px: Annotated[
        tuple[int, int] | None,
        Option("Device: picture size, such as 1280x720.", name="input_size", metavar="SIZE"),
    ] = None
    frame_rate: Annotated[
        Fraction | None,
        Option("Device: frames per second, such as 30.", name="input_rate", metavar="RATE"),
    ] = None

    def check(self, address: str, *, is_device: bool) -> None:
        """Raises UsageError for what a source of this kind does not have."""
        if self.rtsp_transport != "auto" and scheme_of(address) not in ("rtsp", "rtsps"):
            raise UsageError(f"--rtsp-transport is for rtsp:// addresses, not for {describe(address)}")
        flags = {"pixel_format": "--input-format", "size_px": "--input-size", "frame_rate": "--input-rate"}
        for each in fields(self):
            if each.name in flags and getattr(self, each.name) is not None and not is_device:
                raise UsageError(
                    f"{flags[each.name]} is for devices such as /dev/video0, not for {describe(address)}"
                )
        if self.pixel_format is not None:
            _known_format(self.pixel_format)


def check_readable(address: str) -> None:
    """Raises UsageError for an address that can't be meant, or of a kind that FFmpeg can't read."""
    # RTSP is no protocol to FFmpeg, but a format.
    if scheme_of(address) not in ("rtsp", "rtsps") and native.has_protocol(scheme_of(address)) is False:
        way_out = "give rtsp://, http://, udp:// or a file"
        raise UsageError(f"{describe(address)}: {_unreadable(address)}: {way_out}")
    locate_peer(address)


def ffmpeg_options(address: str, asked: InputOptions, *, is_device: bool) -> dict[str, str]:
    """FFmpeg's options to open an address; its own time-outs are for silence, PyAV's bound all of opening.

    Raises SourceError for an address that can't be meant, without the secrets in it.
    """
    options = {"analyzeduration": str(int(_ANALYSED_S * 1e6))}
    if is_device:
        return options | _device_options(asked)
    scheme = scheme_of(address)
    if scheme in LIVE_SCHEMES or scheme in (*_HTTP, *_TUNNELLED):
        try:
            locate_peer(address)
        except UsageError as error:
            raise SourceError(str(error)) from None
    timeout_us = str(int(_SILENCE_S * 1e6))
    options |= proxy_options(address)
    if scheme in ("rtsp", "rtsps"):
        transport = "udp" if asked.rtsp_transport == "udp" else "tcp"
        return options | {"rtsp_transport": transport, "timeout": timeout_us, "fflags": "nobuffer"}
    if scheme in _HTTP:
        return options | {"rw_timeout": timeout_us}
    if scheme == "udp":
        return options | {"timeout": timeout_us, "fflags": "nobuffer"}
    return options


def proxy_options(address: str) -> dict[str, str]:
    """What keeps FFmpeg, for a source or a sink, to the proxy that it should take, or to none.

    Left alone it takes `http_proxy` of the environment for HTTP and for all that goes through TLS, also to
    this machine. Where it has no option for that, `no_proxy` gets the loopback host that it was given.
    """
    scheme = scheme_of(address)
    if scheme in _HTTP:
        proxy = _http_proxy(address)
        return {"http_proxy": proxy.url if proxy is not None else ""}
    host = locate(address).host if scheme in _TUNNELLED else ""
    exempt = os.environ.get("no_proxy", "")
    if host and is_loopback(host) and os.environ.get("http_proxy") and host not in exempt.split(","):
        os.environ["no_proxy"] = f"{exempt},{host}" if exempt else host
    return {}


def tries_udp(address: str, asked: InputOptions, error: Exception) -> bool:
    """Whether an RTSP camera that refused RTP over TCP is worth a second try over UDP.

    The standard's 461 is FFmpeg's "protocol not supported"; some cameras say 400 or 406 in its place.
    """
    refused = isinstance(error, av.error.HTTPBadRequestError | av.error.HTTPOtherClientError)
    refused = refused or getattr(error, "errno", None) == errno.EPROTONOSUPPORT
    return refused and asked.rtsp_transport == "auto" and scheme_of(address) in ("rtsp", "rtsps")


def reason(error: Exception, address: str = "", waited_s: float = 0.0) -> str:
    """What FFmpeg's error means; `waited_s` tells silence from nonsense, which it does not."""
    if isinstance(error, av.error.ExitError | TimeoutError) or waited_s >= TIMEOUT_S - 0.5:
        return "no answer in time"
    of_rtsp = scheme_of(address) in ("rtsp", "rtsps")
    if of_rtsp and isinstance(error, av.error.InvalidDataError | PermissionError | av.error.EOFError):
        # A dropped connection, and an answer that is none, look alike.
        return "it hung up, or does not speak RTSP"
    if isinstance(error, av.error.InvalidDataError):
        return "it is damaged, or no video"
    if isinstance(error, av.error.EOFError):
        return "it ends too early"
    if isinstance(error, av.error.ProtocolNotFoundError):
        return _unreadable(address)
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "the sender closed the connection"
    return getattr(error, "strerror", None) or type(error).__name__


def _unreadable(address: str) -> str:
    return f"the FFmpeg in this PyAV can't read {scheme_of(address)}://"


def refusal(
    error: Exception, address: str, asked: InputOptions, waited_s: float, *, is_device: bool = False
) -> str:
    """Why an address or device could not be opened, and the way out where there is one."""
    said = reason(error, address, waited_s)
    if is_device:
        return f"{said}{_device_way_out(error, Path(address), asked)}"
    if not is_url(address):
        return said
    return f"{said}{_through(address)}{_way_out(error, address, asked, said)}"


def why_not_as_asked(address: str, asked: InputOptions, stream: VideoStream) -> str:
    """What a device gives in place of what was asked, for drivers and FFmpeg change it silently; empty if it
    gives that."""
    coded = stream.codec_context
    format_name = (coded.pix_fmt or "") if coded.name == "rawvideo" else coded.name
    rate = stream.average_rate
    if asked.pixel_format is not None and format_name != _known_format(asked.pixel_format):
        given = f"{format_name}, not --input-format {asked.pixel_format}"
    elif asked.size_px is not None and (coded.width, coded.height) != asked.size_px:
        given = f"{coded.width}x{coded.height}, not --input-size {asked.size_px[0]}x{asked.size_px[1]}"
    elif asked.frame_rate and rate and abs(rate / asked.frame_rate - 1) > Fraction(1, 20):
        given = f"{float(rate):g} frames/s, not --input-rate {float(asked.frame_rate):g}"
    else:
        return ""
    return f"it gives {given}{_offers(Path(address))}"


def _http_proxy(address: str) -> Proxy | None:
    """The proxy that FFmpeg is to take: it knows only those that are spoken to in plain HTTP."""
    variables = ["http_proxy"]
    if scheme_of(address) in _HTTP:
        variables = [*(["https_proxy"] if scheme_of(address) == "https" else []), "http_proxy", "all_proxy"]
    try:
        proxy = proxy_of(locate(address), variables)
    except UsageError as error:
        raise SourceError(f"can't open {describe(address)}: {error}") from None
    return proxy if proxy is not None and proxy.scheme == "http" else None


def _through(address: str) -> str:
    proxy = _http_proxy(address) if scheme_of(address) in (*_HTTP, *_TUNNELLED) else None
    if proxy is None:
        return ""
    return f", through the proxy {proxy.shown}; no_proxy={locate(address).host} goes past it"


def _way_out(error: Exception, address: str, asked: InputOptions, said: str) -> str:
    scheme = scheme_of(address)
    if scheme not in LIVE_SCHEMES and scheme not in (*_HTTP, *_TUNNELLED):
        return ""
    found = locate(address)
    if isinstance(error, av.error.HTTPUnauthorizedError):
        if found.user:
            return f": user or password is wrong; {HOW_TO_ESCAPE}"
        return f": it wants a user and a password: {scheme}://USER:PASSWORD@{found.named}/…; {HOW_TO_ESCAPE}"
    if isinstance(error, av.error.HTTPNotFoundError):
        return ": the host is there, but not this path"
    if found.doubt:
        return found.doubt
    if getattr(error, "errno", None) == errno.EPROTONOSUPPORT and scheme in ("rtsp", "rtsps"):
        other = "tcp" if asked.rtsp_transport == "udp" else "udp"
        return f": the camera refuses RTP over {asked.rtsp_transport}: try --rtsp-transport {other}"
    if said == "no answer in time" and scheme in ("rtsp", "rtsps") and asked.rtsp_transport != "udp":
        return ": is it switched on, and the port right? Some cameras need --rtsp-transport udp"
    return ""


def _known_format(name: str) -> str:
    """FFmpeg's name of a pixel format or codec, from that or from the driver's four letters."""
    by_letters = {letters.lower(): ffmpeg for letters, ffmpeg in FORMATS.items()}
    known = by_letters.get(name.lower(), name.lower())
    try:
        av.VideoFormat(known)
    except ValueError:
        if known not in av.codecs_available:
            listed = ", ".join(dict.fromkeys(FORMATS.values()))
            raise UsageError(f"--input-format {name} is none that FFmpeg knows, such as {listed}") from None
    return known


def _device_options(asked: InputOptions) -> dict[str, str]:
    options = {}
    if asked.pixel_format is not None:
        options["input_format"] = _known_format(asked.pixel_format)
    if asked.size_px is not None:
        options["video_size"] = f"{asked.size_px[0]}x{asked.size_px[1]}"
    if asked.frame_rate is not None:
        options["framerate"] = str(asked.frame_rate)
    return options


def _device_way_out(error: Exception, path: Path, asked: InputOptions) -> str:
    if isinstance(error, FileNotFoundError):
        return ": no such camera is plugged in: `accmpeg doctor` lists those that are"
    if isinstance(error, PermissionError):
        return ": add this user to the group 'video'"
    if getattr(error, "errno", None) == errno.EBUSY:
        return ": another program has it open"
    return _offers(path) or ": it captures no pictures: `accmpeg doctor` lists the devices that do"


def _offers(path: Path) -> str:
    try:
        device = look_at(path)
    except OSError:
        return ""
    if device is None or not device.modes:
        return ""
    more = len(device.modes) - _OFFERS_NAMED
    listed = "; ".join(str(mode) for mode in device.modes[:_OFFERS_NAMED])
    return f": it offers {listed}{f' and {more} more, see `accmpeg doctor`' if more > 0 else ''}"
