"""What footage says of streams: why it may say nothing, and the way out."""

from typing import Any

import pytest

from accmpeg.evaluation.profile.gains import measure_gains
from tests.evaluation.simulated import clip_rows

PLAIN = "stream:source"


@pytest.mark.parametrize(
    ("site", "says"),
    [
        (
            {"harder": 12.0},
            "an untouched x264 keeps 93% of the ceiling at most, and 95% are asked for: give longer footage "
            "with more objects, or lower --keep",
        ),
        (
            {"source_bitrate_bps": 500_000.0},
            "below the footage's own 500 kbit/s an untouched x264 keeps 80% of the ceiling at most, and 95% "
            "are asked for: record it at a higher bitrate, give longer footage with more objects, or lower "
            "--keep",
        ),
        ({"harder": 12.0, "objects": 0.5}, "it shows 0.1 objects a frame, so few that chance decides"),
        ({"ceiling": 0.3}, "even a visually lossless stream has S 0.30"),
        ({"ceiling": 0.3}, "or a lower score_threshold in the server DNN's card"),
        ({"status": "failed", "reason": "SourceError: no frame"}, "SourceError: no frame"),
    ],
)
def test_footage_that_says_nothing_says_why_and_the_way_out(site: dict[str, Any], says: str) -> None:
    found = measure_gains(clip_rows("yard@0", {PLAIN: 1.0}, **site), "own", 0.95)
    assert says in found.why
    assert not found.seen


def test_a_tuned_map_takes_the_cpu_of_the_untuned_one() -> None:
    rows = [
        row
        for name, ratio in ((PLAIN, 0.9), (f"{PLAIN}+feedback", 0.99), (f"{PLAIN}+feedback+margin1", 1.2))
        for row in clip_rows("yard@0", {name: 1.0}, camera_ratio=ratio)
    ]
    found = measure_gains(rows, "own", 0.9)
    assert [each.camera_ratio for each in found.seen] == pytest.approx([1.0, 1.1, 1.1])
