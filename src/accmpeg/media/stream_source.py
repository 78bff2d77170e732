"""Frames of what FFmpeg reads, with true timestamps: files, addresses, devices, pipes.

Live streams without timestamps (MJPEG over HTTP, raw H.264) are timed by their arrival.
"""

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from accmpeg.errors import SourceError
from accmpeg.media.addresses import LIVE_SCHEMES, is_url, scheme_of
from accmpeg.media.footage import FRAME_RATE
from accmpeg.media.frames import Deinterlacer, FrameTurner, loses_colours, to_yuv420p
from accmpeg.media.inputs import InputOptions, reason, why_not_as_asked
from accmpeg.media.mistaken import way_out
from accmpeg.media.opening import PictureWatch, is_file, open_video
from accmpeg.media.seeking import Entry, find_entry, last_frames, shown_packets
from accmpeg.media.source_base import Source, SourceInfo
from accmpeg.media.timeline import (
    DamagedFrames,
    DisplayOrder,
    Pacing,
    Timeline,
    measured_rate,
    paced_rate,
    said_rate,
    spread_arrivals,
)

__all__ = ["STANDARD_INPUT", "StreamSource"]

log = logging.getLogger(__name__)

STANDARD_INPUT = "/dev/stdin"
_FASTEST_FRAME_RATE = 1000
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_ARRIVAL_TIME_BASE = Fraction(1, 90000)
# Where only arrival tells the frame rate: so long, and so many frames at least, unless that takes too long.
_MEASURED_S, _MEASURED_FRAMES, _LONGEST_MEASURED_S = 1.0, 4, 5.0
_REPEATED_S = 60.0  # of a live HLS stream that is opened again: its playlist begins some segments ago
_FEW_FRAMES = 100  # are decoded sooner than sought
# Beyond which a rate is believed only after a look at so many frames.
_USUAL_RATE, _PACED_FRAMES = 60, 9
_SNAPSHOT = "one picture: for video give the address of the camera's stream (MJPEG, RTSP), not its snapshot's"
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic

_Arrived = tuple[av.VideoFrame, float]
"""A decoded frame, and when it arrived by the monotonic clock, in seconds."""


class StreamSource(Source):
    """What FFmpeg reads: a file, an address, a device or a pipe, opened and its first frame decoded."""

    def __init__(
        self,
        address: str,
        name: str,
        asked: InputOptions,
        *,
        format_name: str | None = None,
        is_pipe: bool = False,
    ) -> None:
        self._address = address
        self._asked = asked
        self._is_pipe = is_pipe
        self._is_file = is_file(address, format_name)
        self._name = name
        self._used = self._resized = False
        self._given_s: float | None = None
        """Of a live HLS stream: the clock of the last frame that was given, also by an earlier opening."""
        self._had_s: float | None = None
        """The same of the earlier opening, until a frame comes that it has not given."""
        self._format_name = format_name
        self._open()
        try:
            if said := why_not_as_asked(address, asked, self._stream):
                raise SourceError(f"{name}: {said}")
            is_live = _is_live(self._container, address, is_sent=format_name is not None or is_pipe)
            self._clocked_by_arrival = is_live and bool(self._container.format.flags & _NO_TIMESTAMPS)
            self._held = self._first_frames(is_live)
            if not self._held:
                said = way_out(address) or "it is empty or damaged"
                if self._pipe is not None:
                    said = self._pipe.way_out(self._container.format.name)
                raise SourceError(f"no frames can be decoded from {name}: {said}")
            first = self._held[0][0]
            self._turner = FrameTurner(first)
            self.info = self._describe(first, is_live)
            self._deinterlacer = Deinterlacer()
            self._timeline = Timeline(name, self.info.time_base, self.info.frame_rate, is_live=is_live)
            self._pacing = Pacing() if is_live and self._container.format.name == "hls" else None
        except BaseException:
            self._close_container()
            raise

    def __iter__(self) -> Iterator[av.VideoFrame]:
        if self._used:
            raise SourceError(f"{self._name} is read already: open it again")
        self._used = True
        passed: deque[int] = deque()  # a deinterlacer gives its frames later
        for frame, arrived_s in self._arrivals():
            if self._pacing is not None and self._was_given(frame):
                continue
            passed.append(self._damaged.before(frame.pts))
            self._stamp(frame, arrived_s)
            if self._pacing is not None and frame.pts is not None:
                time.sleep(self._pacing.wait_s(float(frame.pts * self.info.time_base), time.monotonic()))
            for whole in self._deinterlacer.push(frame):
                self.passed_over = passed.popleft()
                yield self._ready(whole)
        for whole in self._deinterlacer.flush():
            self.passed_over = passed.popleft()
            yield self._ready(whole)

    def go_on_after(self, before: Source) -> None:
        if isinstance(before, StreamSource):
            self._given_s = self._had_s = before._given_s

    def _was_given(self, frame: av.VideoFrame) -> bool:
        if frame.pts is None:
            return False
        at_s = float(frame.pts * self.info.time_base)
        if self._had_s is not None and 0 <= self._had_s - at_s < _REPEATED_S:
            return True
        self._had_s, self._given_s = None, at_s  # from here on its clock may jump as it likes
        return False

    def approach(self, first: int) -> int:
        if first < _FEW_FRAMES or not self._is_file or self._is_pipe or self._used:
            return 0
        packets = shown_packets(self._address, self._name)
        entry = find_entry(((packet.pts, packet.is_keyframe) for packet in packets), first)
        packets.close()
        # Where it begins without a keyframe, packets give no frames at first.
        if entry is None or entry.times[0] != self._held[0][0].pts:
            return 0
        held = self._decode_up_to(entry)
        if held is None:  # not what the packets promised: from the start, then
            self.close()
            self._open()
            return 0
        self._held = held
        begins = first + 1 - len(held)
        for pts in entry.times[:begins]:
            self._timeline.stamp(pts, 0.0)
        return begins

    def _decode_up_to(self, entry: Entry) -> list[_Arrived] | None:
        """The last frames up to that of the entry; None where not all come from a keyframe on."""
        self._decoded.close()
        try:
            self._container.seek(entry.keyframe, stream=self._stream)
        except (av.FFmpegError, OSError):
            return None
        self._begin()
        held = last_frames(self._decoded, entry)
        return None if self.skipped_frames else held

    def close(self) -> None:
        self._decoded.close()
        self._close_container()

    def _close_container(self) -> None:
        self._container.close()
        if self._pipe is not None:
            self._pipe.close()

    def _open(self) -> None:
        self._container, self._stream, self._pipe = open_video(
            self._address, self._name, self._asked, format_name=self._format_name, is_pipe=self._is_pipe
        )
        self._begin()

    def _begin(self) -> None:
        """Decodes from where the container is."""
        self.skipped_frames = self.passed_over = self._packets = 0
        self._damaged = DamagedFrames()
        self._held = []
        self._order = DisplayOrder()
        self._decoded = self._decode()

    def _decode(self) -> Generator[_Arrived, None, None]:
        packets = self._container.demux(self._stream)
        order, watch = self._order, PictureWatch(self._name)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                if self._is_file:
                    self.skipped_frames += 1  # a file that breaks off: what came before it stands
                    return
                said = reason(error, self._address)
                ended = not isinstance(error, av.error.ExitError)
                if ended and self._packets == 1 and self._container.format.name == "mjpeg":
                    said = f"it gives {_SNAPSHOT}"
                raise SourceError(f"{self._name} broke off: {said}") from None
            if packet is None:
                if self._pipe is not None:
                    self._pipe.end()
                return
            self._packets += 1
            arrived_s = time.monotonic()
            if not self._is_file:
                watch.waits(arrived_s)
            is_shown = not packet.is_discard  # what an edit list cuts off is decoded, and gives no frame
            if is_shown:
                order.fed(packet.pts, packet.dts)
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                if is_shown and packet.size:
                    self.skipped_frames += 1
                    self._damaged.add(packet.pts if packet.pts is not None else packet.dts)
                    order.failed()
                continue
            reorders = bool(self._stream.codec_context.has_b_frames)
            for frame in frames:
                frame.pts = order.shown(frame.pts, is_keyframe=frame.key_frame, reorders=reorders)
                if frame.is_corrupt:
                    self.skipped_frames += 1
                    self._damaged.add(frame.pts)
                else:
                    yield frame, arrived_s
                    watch.came()

    def _first_frames(self, is_live: bool) -> list[_Arrived]:
        """The frame that shows that there is one; where that must tell the rate, as many as it takes."""
        held: list[_Arrived] = []
        began_s = time.monotonic()
        for frame, arrived_s in self._decoded:
            held.append((frame, arrived_s))
            took_s = time.monotonic() - began_s
            looks_on = len(held) < _PACED_FRAMES and not (is_live and took_s > _MEASURED_S)
            if looks_on and not self._clocked_by_arrival and _doubts_rate(self._stream):
                continue
            if not self._clocked_by_arrival or took_s > _LONGEST_MEASURED_S:
                break
            if took_s >= _MEASURED_S and len(held) >= _MEASURED_FRAMES:
                break
        return held

    def _arrivals(self) -> Iterator[_Arrived]:
        held, self._held = self._held, []
        while held:
            yield held.pop(0)
        yield from self._decoded

    def _describe(self, first: av.VideoFrame, is_live: bool) -> SourceInfo:
        stream = self._stream
        # The average is the rate over gaps and jumps too, and where fields are counted it is doubled.
        rate = stream.guessed_rate or stream.base_rate or stream.average_rate or FRAME_RATE
        time_base = stream.time_base or 1 / FRAME_RATE
        if self._clocked_by_arrival:
            arrivals_s = [arrived_s for _, arrived_s in self._held]
            rate, time_base = measured_rate(arrivals_s) or FRAME_RATE, _ARRIVAL_TIME_BASE
            self._held = [
                (frame, at_s)
                for (frame, _), at_s in zip(self._held, spread_arrivals(arrivals_s, rate), strict=True)
            ]
        elif _doubts_rate(stream):
            times_s = [float(frame.pts * time_base) for frame, _ in self._held if frame.pts is not None]
            # Raw H.264 and H.265 say a rate, but no times.
            paced = paced_rate(times_s) or (rate if not times_s and rate <= _USUAL_RATE else FRAME_RATE)
            rate = said_rate(paced, [rate, stream.average_rate])
        if not 0 < rate <= _FASTEST_FRAME_RATE:
            rate = FRAME_RATE
        aspect = stream.sample_aspect_ratio or Fraction(1)
        remarks = _remarks(first, self._container, self._address)
        upright = _upright(first, self._turner, self._name)
        return SourceInfo(
            name=self._name.rpartition("/")[2] if self._is_file else self._name,
            width_px=upright.width,
            height_px=upright.height,
            frame_rate=rate,
            time_base=time_base,
            frame_count=stream.frames or None,
            is_live=is_live,
            pixel_aspect=1 / aspect if self._turner.swaps_sides and aspect else aspect,
            remarks=remarks,
            reopens=self._address != f"file:{STANDARD_INPUT}",
        )

    def _stamp(self, frame: av.VideoFrame, arrived_s: float) -> None:
        time_base = self.info.time_base
        pts = round(arrived_s / time_base) if self._clocked_by_arrival else frame.pts
        frame.time_base = time_base
        frame.pts = self._timeline.stamp(pts, arrived_s)

    def _ready(self, frame: av.VideoFrame) -> av.VideoFrame:
        info = self.info
        frame = _upright(frame, self._turner, self._name)
        if (frame.width, frame.height) != (info.width_px, info.height_px):
            # Some cameras change their size when the light or the link does; the stream's size is settled.
            if not self._resized:
                self._resized = True
                given, wanted = f"{frame.width}x{frame.height}", f"{info.width_px}x{info.height_px}"
                log.warning("pictures of %s now have %s px: stretched to %s", self._name, given, wanted)
            frame = frame.reformat(info.width_px, info.height_px, threads=1)
        return frame


def _remarks(first: av.VideoFrame, container: InputContainer, address: str) -> tuple[str, ...]:
    remarks = []
    if is_url(address) and container.format.name.endswith("_pipe"):
        remarks.append(f"it is {_SNAPSHOT}")
    if container.streams.audio:
        remarks.append("its sound is left out")
    if first.interlaced_frame:
        remarks.append("it is interlaced: every two fields become one frame")
    depth = max(component.bits for component in first.format.components)
    if depth > 8:
        hdr = _HDR_TRANSFERS.get(int(first.color_trc))
        remarks.append(f"its {depth} bits per sample become 8{f', still as {hdr}' if hdr else ''}")
    if loses_colours(first):
        remarks.append("its colours come out wrong: their matrix (YCgCo, ICtCp or the like) is not read")
    return tuple(remarks)


def _is_live(container: InputContainer, address: str, *, is_sent: bool) -> bool:
    scheme = scheme_of(address)
    if scheme in ("http", "https"):
        # A playlist has a size, and no end while segments are still added to it.
        return not container.duration and (container.format.name == "hls" or container.size <= 0)
    return scheme in LIVE_SCHEMES or is_sent


def _doubts_rate(stream: VideoStream) -> bool:
    """Whether the frame rate that FFmpeg guesses may be the fineness of a clock, such as the 1000 of what
    browsers record."""
    rate, average = stream.guessed_rate or 0, stream.average_rate
    return rate > _USUAL_RATE or bool(average and rate > 1.5 * average)


def _upright(frame: av.VideoFrame, turner: FrameTurner, name: str) -> av.VideoFrame:
    try:
        return turner.turn(to_yuv420p(frame))
    except av.FFmpegError:
        pixels = frame.format.name
        raise SourceError(
            f"the pixels of {name} ({pixels}) are not read: ffmpeg -i IN -pix_fmt yuv420p OUT helps"
        ) from None
