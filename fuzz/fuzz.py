"""Coverage-guided fuzzing of what strangers can send: `python fuzz/fuzz.py TARGET [libFuzzer's options]`.

| target    | what it feeds                                                                     |
|-----------|-----------------------------------------------------------------------------------|
| wire      | `wire.unpack`, from messages of every kind; what is taken must pack again          |
| bitstream | the server's `StreamDecoder`, with the access units of a real stream, mutated      |
| hello     | a camera's first message, to the server's application                              |
| units     | what a welcomed camera sends, from real access units; all of it is answered        |
| feedback  | what a server may say, to the camera's client                                      |
| http      | bytes, to the port of a running server                                             |
| cards     | the parsers of DNN and AccModel cards, from the demo's own                         |

Anything but the errors that callers handle, a hang, or memory beyond the limit ends it with an exit code
above zero, and the input is written to `crash-…`; give it as an argument to see it again.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import session

with atheris.instrument_imports(include=["accmpeg"]):
    from accmpeg.accmodel.card import read_accmodel_card
    from accmpeg.dnn.card import read_card
    from accmpeg.protocol.wire import (
        AccessUnitMessage,
        Feedback,
        Goodbye,
        Hello,
        NewOffer,
        Refused,
        ResultMessage,
        TimeReply,
        TimeRequest,
        Welcome,
        pack,
        unpack,
    )
    from accmpeg.server.decoding import ReceivedUnit, StreamDecoder, read_quality_map

import av

from accmpeg.demo import assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.errors import CardError, DecoderError, WireError
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings

__all__ = ["TARGETS"]

WIDTH_PX, HEIGHT_PX = 160, 96
Target = tuple[Callable[[bytes], None], list[bytes]]


def wire() -> Target:
    """Anything is a valid message, which packs to itself, or raises WireError."""

    def one(data: bytes) -> None:
        try:
            found = unpack(data)
        except WireError:
            return
        again = unpack(pack(found.message, found.payload))
        assert (again.message, again.payload) == (found.message, found.payload)

    hello = Hello(
        camera="gate", stream_id="run-1", codec="h264", width_px=320, height_px=180, source_width_px=640,
        source_height_px=360, frame_rate=29.97, time_base=(1, 90000), drop="none", answered=3, software="x",
    )  # fmt: skip
    unit = AccessUnitMessage(
        sequence=1, pts=3, is_keyframe=True, captured_us=1, encoded_us=2, size_px=(320, 180),
        camera_ms={"encode": 1.5},
    )  # fmt: skip
    found = {"task": "detection", "objects": [{"class": "car", "score": 0.5, "box_xyxy": [1, 2, 3, 4]}]}
    return one, [
        pack(hello, b"\0\0\1\x67"),
        pack(unit, b"\0\0\1\x65 and so on"),
        pack(Welcome(dnn="net", task="detection", resume_after=7)),
        pack(Refused(code="busy", reason="later", retry=True)),
        pack(ResultMessage(sequence=1, pts=3, captured_us=1, result=found, server_ms={"infer": 9.0})),
        pack(Feedback(highest_sequence=4, received_bytes=9, received_us=5, waiting=1, needs_keyframe=True)),
        pack(TimeRequest(sent_us=-5)),
        pack(TimeReply(sent_us=1, received_us=2, replied_us=3)),
        pack(Goodbye(reason="the camera ends")),
        pack(NewOffer(offer={"profile": {"source_px": [320, 180]}})),
    ]


def bitstream() -> Target:
    """Whatever comes instead of access units, frames have the size of the stream or the decoder objects."""
    streams = {codec: _encoded(encoder) for codec, encoder in (("h264", "libx264"), ("hevc", "libx265"))}

    def one(data: bytes) -> None:
        choices = atheris.FuzzedDataProvider(data)
        codec = choices.PickValueInList(list(streams))
        decoder = StreamDecoder(
            codec, choices.ConsumeBytes(choices.ConsumeIntInRange(0, 64)), (WIDTH_PX, HEIGHT_PX)
        )
        for sequence, unit in enumerate(streams[codec]):
            size_px = (WIDTH_PX, HEIGHT_PX)
            if choices.ConsumeProbability() < 0.05:
                size_px = (choices.ConsumeIntInRange(16, 512), choices.ConsumeIntInRange(16, 512))
            is_keyframe = unit.is_keyframe or choices.ConsumeProbability() < 0.1
            coded = ReceivedUnit(sequence, _mutated(unit.data, choices), is_keyframe, size_px)
            try:
                frames = decoder.decode(coded)
            except (DecoderError, av.FFmpegError, ValueError):  # what a session takes for damage
                continue
            # An odd side is cropped as far as chroma allows, which comes in pairs of pixels.
            assert all(abs(frame.width - coded.size_px[0]) <= 1 for frame in frames)
            assert all(abs(frame.height - coded.size_px[1]) <= 1 for frame in frames)
            if codec == "h264" and is_keyframe:
                read_quality_map(coded, b"")
        decoder.flush()
        decoder.close()

    return one, [b"", bytes(64), bytes(range(256)) * 2]


def cards() -> Target:
    """Any file is a card or raises CardError."""
    folder = Path(tempfile.mkdtemp())
    path = folder / "fuzzed.card.toml"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        for read in (read_card, read_accmodel_card):
            try:
                read(path)
            except CardError:
                continue

    return one, [each.read_bytes() for each in sorted(assets_path().glob("*.card.toml"))]


TARGETS: dict[str, Callable[[], Target]] = {
    "wire": wire,
    "bitstream": bitstream,
    "hello": session.hello,
    "units": lambda: session.units(_encoded("libx264"), _mutated),
    "feedback": session.feedback,
    "http": session.http,
    "cards": cards,
}


def _encoded(codec: str) -> list[AccessUnit]:
    scene = SceneSource(SceneSpec(87, WIDTH_PX, HEIGHT_PX, frame_count=6))
    settings = EncoderSettings.for_source(scene.info, codec=codec, crf=30, gop_frames=3, steerable=False)
    with Encoder(settings) as encoder:
        return [unit for frame in scene for unit in encoder.encode(frame)] + encoder.flush()


def _mutated(data: bytes, choices: atheris.FuzzedDataProvider) -> bytes:
    changed = bytearray(data)
    match choices.ConsumeIntInRange(0, 4):
        case 0:  # left as it is
            pass
        case 1:  # some bytes are others, the headers above all
            for _ in range(choices.ConsumeIntInRange(1, 8)):
                reach = choices.PickValueInList([64, len(changed)])
                changed[choices.ConsumeIntInRange(0, min(reach, len(changed)) - 1)] = (
                    choices.ConsumeInt(1) & 255
                )
        case 2:  # cut off
            del changed[choices.ConsumeIntInRange(0, len(changed)) :]
        case 3:  # something strange within
            at = choices.ConsumeIntInRange(0, len(changed))
            changed[at:at] = choices.ConsumeBytes(choices.ConsumeIntInRange(0, 200))
        case 4:  # something else altogether
            changed = bytearray(b"\0\0\0\1" + choices.ConsumeBytes(choices.ConsumeIntInRange(0, 300)))
    return bytes(changed)


def main() -> None:
    """Sets libFuzzer up with a corpus of seeds, in a folder that goes away."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python fuzz/fuzz.py {{{'|'.join(TARGETS)}}} [-max_total_time=SECONDS] [FILE]")
    av.logging.set_level(None)
    one, seeds = TARGETS[sys.argv[1]]()
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        given = sys.argv[2:]
        corpus = [] if any(not each.startswith("-") for each in given) else [folder]
        options = ["-rss_limit_mb=2048", "-timeout=30", "-max_len=4096"]
        atheris.Setup([sys.argv[0], *options, *given, *corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
