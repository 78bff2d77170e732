"""What options of x264 that the package does not offer do to bytes at equal answers.

    python benchmarks/x264_options.py pbratio=1.3 pbratio=2.5 bframes=3:pbratio=2.5 -- \\
        --videos CLIPS --dnn CARD --reference CARD --limit 120 --step 3 --most-points 10 --output DIR

Each is added to `b2` (two B-frames, the package's own settings) and given to `accmpeg evaluate` as a method
of its own, at the source's size and, with `@dnn`, at the DNN's: `pbratio-1.3@dnn`. What stands after `--`
goes to `evaluate`; without `--methods` these are `b2@dnn` and all of them at the DNN's size. The null is
`crf+0.5`: the same stream at other operating points.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import (
    B_FRAMES,
    Method,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
    also_at_dnn_size,
)
from accmpeg.steering.encoder import SteeredEncoder

WAYS = "X264_WAYS"
"""The environment variable by which worker processes learn what was asked for."""
NULL = "crf+0.5"


def _open(way: str, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    if way == NULL:
        point, way = OperatingPoint(quality=(point.quality or 0) + 0.5), ""
    settings = stream.settings(point, aq_mode=1, b_frames=B_FRAMES)
    own = settings.extra["x264-params"]
    params = {"x264-params": f"{own}:{way}" if way else own}
    for option in way.split(":"):
        if option.startswith("bframes="):
            settings = replace(settings, b_frames=int(option.removeprefix("bframes=")))
        if option.startswith("keyint="):  # else keyframes would count as often as in an untouched x264
            settings = replace(settings, gop_frames=int(option.removeprefix("keyint=")))
    return SteeredStream(session, SteeredEncoder(replace(settings, extra=params), None))


def _rows() -> Mapping[str, Method]:
    rows = [
        row
        for way in os.environ.get(WAYS, "").split()
        for row in also_at_dnn_size(
            Method(
                name=way.replace("=", "-").replace(":", "-"),
                family="plugin",
                source=f"x264 {way}",
                knobs={"options": way},
                open=partial(_open, way),
            )
        )
    ]
    return {f"ROW_{number}": row for number, row in enumerate(rows)}


globals().update(_rows())


def main() -> int:
    """Announces the rows as an installed plug-in would and runs the sweep."""
    asked = sys.argv[1:]
    if "--" not in asked or asked[0] == "--":
        sys.exit(__doc__)
    cut = asked.index("--")
    ways, rest = [NULL, *asked[:cut]], asked[cut + 1 :]
    os.environ[WAYS] = " ".join(ways)
    rows = _rows()
    if "--methods" not in rest:
        rest += ["--methods", ",".join(["b2@dnn", *(row.name for row in rows.values() if row.size == "dnn")])]
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "x264_options-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: x264-options\nVersion: 1\n")
        lines = [f"{row.name} = {Path(__file__).stem}:{where}" for where, row in rows.items()]
        (info / "entry_points.txt").write_text("\n".join(["[accmpeg.methods]", *lines]) + "\n")
        path = [folder, str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
        return subprocess.run([sys.executable, "-m", "accmpeg", "evaluate", *rest], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
