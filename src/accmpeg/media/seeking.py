"""Where to begin decoding so that a late frame comes soon, and is the same as if all had been decoded.

Pure but for `shown_packets`: frames are told by their times, which `Entry` has for checking what comes.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
from av.video.stream import VideoStream

from accmpeg.media.footage import folder_pictures
from accmpeg.media.inputs import InputOptions
from accmpeg.media.opening import open_video

__all__ = ["WARM_FRAMES", "Entry", "find_entry", "last_frames", "shown_packets"]

_MOST_REORDERED = 32  # no codec reorders over more frames
WARM_FRAMES = 2
"""Decoded before the frame that is wanted: a deinterlacer looks back."""


@dataclass(frozen=True)
class Entry:
    """The time of a keyframe to seek to, and the times of the file's first frames in the order of display."""

    keyframe: int
    times: tuple[int, ...]


def find_entry(packets: Iterable[tuple[int | None, bool]], first: int) -> Entry | None:
    """The keyframe before the last one before frame `first`, from packets' times and keyframe marks in the
    order of decoding; None where only decoding from the start gives that frame for certain.

    The last one would do for closed groups of pictures. A stream that refreshes its picture little by little,
    or refers back over a keyframe, is whole by the next.
    """
    known = list(islice(packets, first + 1 + _MOST_REORDERED))
    times = sorted(pts for pts, _ in known if pts is not None)
    if len(times) < len(known) or len(times) <= first or len(set(times)) < len(times):
        return None
    place = {pts: index for index, pts in enumerate(times)}
    in_order = [place[pts] for pts, _ in known if pts is not None]
    if any(abs(shown - decoded) > _MOST_REORDERED for decoded, shown in enumerate(in_order)):
        return None  # a clock that starts anew
    keyframes = sorted(shown for shown, (_, is_key) in zip(in_order, known, strict=True) if is_key)
    before = [index for index in keyframes if index <= first - WARM_FRAMES]
    if len(before) < 2 or before[-2] == 0:
        return None
    return Entry(times[before[-2]], tuple(times[: first + 1]))


def last_frames(
    decoded: Iterable[tuple[av.VideoFrame, float]], entry: Entry
) -> list[tuple[av.VideoFrame, float]] | None:
    """The last decoded frames, up to that of the entry, each with the time of its arrival; None where not all
    come from a keyframe on."""
    held: deque[tuple[av.VideoFrame, float]] = deque(maxlen=1 + WARM_FRAMES)
    expected: Iterator[int] | None = None
    for frame, arrived_s in decoded:
        if expected is None:
            place = bisect_left(entry.times, frame.pts or 0)
            if not frame.key_frame or place > len(entry.times) - 1 - WARM_FRAMES:
                return None
            expected = iter(entry.times[place:])
        if frame.pts != next(expected):
            return None
        held.append((frame, arrived_s))
        if frame.pts == entry.times[-1]:
            return list(held)
    return None


def shown_packets(address: str, name: str) -> Generator["av.Packet[VideoStream]"]:
    """The packets of a file's video that become frames, in the order of decoding, undecoded; those before the
    cut of an edit list do not. Raises SourceError where it can't be opened."""
    container, stream, _ = open_video(address, name, InputOptions())
    # A file that breaks off: what came before it stands.
    with closing(container), suppress(av.FFmpegError, OSError):
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                yield packet


def frames_of(path: Path) -> int:
    """As many as are there: what the head of a file says is more where its end is missing."""
    if path.is_dir():
        return len(folder_pictures(path))
    return sum(1 for _ in shown_packets(f"file:{path}", str(path)))
