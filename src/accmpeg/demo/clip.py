"""The embedded scene as a clip with true labels, for comparisons."""

from accmpeg.demo import demo_scene
from accmpeg.demo.scene import CLASS_NAMES, true_detections
from accmpeg.evaluation.bench.clip import Clip, read_clip

__all__ = ["EMBEDDED_FRAMES", "embedded_clip"]

EMBEDDED_FRAMES = 150


def embedded_clip(limit: int | None = None) -> Clip:
    """The first frames of the embedded scene with their true labels."""
    with demo_scene(frame_count=limit or EMBEDDED_FRAMES) as scene:
        return read_clip(scene, labels=true_detections(scene), label_classes=CLASS_NAMES)
