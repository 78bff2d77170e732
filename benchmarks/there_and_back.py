"""Long footage out of short clips: each forth, back and forth again, for what shows after many frames only.

    python benchmarks/there_and_back.py --videos CLIPS --frames 1530 --out LONG

The clips of a sweep last some ten seconds, as long as two keyframes of an untouched x264 lie apart. Question,
with `x264_options.py` on what this makes: does a DNN answer worse, far from a keyframe, than soon after one?
Motion goes on without a cut where a clip turns. CRF 12, so that sizes say nothing about the clip's own.
"""

import argparse
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

from accmpeg.media.codecs import EncoderSettings
from accmpeg.media.encoder import Encoder
from accmpeg.media.sink import open_sink
from accmpeg.media.source import find_footage, open_source

CRF = 12.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--frames", type=int, default=1530)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for footage in find_footage(asked.videos):
        with open_source(footage.path) as source:
            info, frames = source.info, list(source)
        tick = 1 / info.frame_rate
        settings = EncoderSettings.for_source(info, crf=CRF, time_base=Fraction(tick), steerable=False)
        to_and_fro = cycle([*frames, *frames[-2:0:-1]])
        path = asked.out / f"{footage.path.stem}.mp4"
        with Encoder(settings) as encoder, open_sink(path, encoder) as sink:
            for number, frame in enumerate(islice(to_and_fro, asked.frames)):
                frame.pts, frame.time_base = number, settings.time_base
                for unit in encoder.encode(frame):
                    sink.write(unit)
            for unit in encoder.flush():
                sink.write(unit)
        print(path)


if __name__ == "__main__":
    main()
