"""What scoring a frame costs: `python benchmarks/score_cost.py`.

Forty objects against a result with 260 candidates beside them, which the score must not look at: the bench
scores every measured frame of every point, so a millisecond here is a minute of a sweep.
"""

import statistics
import time

import numpy as np
import supervision as sv

from accmpeg.demo import assets_path
from accmpeg.dnn.card import read_card
from accmpeg.evaluation.bench.references import FrameReference
from accmpeg.evaluation.bench.score import frame_counts
from accmpeg.tasks import get_task

OBJECTS, CANDIDATES, ROUNDS = 40, 300, 200


def main() -> None:
    """Prints the median, and the quickest, in milliseconds."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 1000, (CANDIDATES, 2))
    xyxy = np.hstack([corners, corners + random.uniform(20, 90, (CANDIDATES, 2))]).astype(np.float32)
    scores = np.where(np.arange(CANDIDATES) < OBJECTS, 0.8, 0.05).astype(np.float32)
    classes = np.zeros(CANDIDATES, np.int64)
    reference = sv.Detections(xyxy[:OBJECTS], confidence=scores[:OBJECTS], class_id=classes[:OBJECTS])
    moved = xyxy + random.normal(0, 3, xyxy.shape).astype(np.float32)
    result = sv.Detections(moved, confidence=scores, class_id=classes)
    card, task, frame = (
        read_card(assets_path() / "detector.card.toml"),
        get_task("detection"),
        FrameReference(reference),
    )
    took_ms = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        frame_counts(task, result, frame, card)
        took_ms.append(1000 * (time.perf_counter() - start_s))
    print(
        f"{OBJECTS} objects, {CANDIDATES} candidates: {statistics.median(took_ms):.2f} ms a frame, ", end=""
    )
    print(f"at best {min(took_ms):.2f}")


if __name__ == "__main__":
    main()
