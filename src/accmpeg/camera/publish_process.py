"""Writes one network address for a `Publisher`, beside it: `python -m accmpeg.camera.publish_process`.

libav holds Python's lock while it connects and while a receiver does not read, without any time limit for
some protocols: in the camera's own process that would stop everything. So it runs beside it, and is killed
when it hangs. Standard input brings one JSON line that describes the stream (with the address, which may hold
a password and so is no argument), then access units.
"""

import json
import struct
import sys
from fractions import Fraction
from typing import BinaryIO

from accmpeg.errors import AccmpegError
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.sink import open_sink

__all__ = ["describe_stream", "pack_unit", "run"]

_HEAD = struct.Struct(">Iqq?")


def describe_stream(address: str, encoder: Encoder) -> bytes:
    """The first line."""
    settings = encoder.settings
    document = {
        "address": address,
        "codec": settings.codec,
        "width_px": settings.width_px,
        "height_px": settings.height_px,
        "frame_rate": str(settings.frame_rate),
        "time_base": str(encoder.time_base),
        "pixel_aspect": str(settings.pixel_aspect),
    }
    return json.dumps(document).encode() + b"\n"


def pack_unit(unit: AccessUnit) -> bytes:
    """One access unit as it goes through the pipe."""
    return _HEAD.pack(len(unit.data), unit.pts, unit.dts, unit.is_keyframe) + unit.data


def run(stream: BinaryIO) -> int:
    """Writes what comes until its end; returns the exit code."""
    description = json.loads(stream.readline())
    settings = EncoderSettings(
        width_px=description["width_px"],
        height_px=description["height_px"],
        frame_rate=Fraction(description["frame_rate"]),
        time_base=Fraction(description["time_base"]),
        pixel_aspect=Fraction(description["pixel_aspect"]),
        codec=description["codec"],
        bitrate_bps=1_000_000,  # of no meaning here: nothing is encoded
        steerable=False,
    )
    try:
        with Encoder(settings) as encoder, open_sink(description["address"], encoder) as sink:
            while len(head := stream.read(_HEAD.size)) == _HEAD.size:
                size_bytes, pts, dts, is_keyframe = _HEAD.unpack(head)
                data = stream.read(size_bytes)
                sink.write(AccessUnit(data, pts, dts, settings.time_base or Fraction(1), is_keyframe))
                print("written", flush=True)
    except AccmpegError as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.stdin.buffer))
