"""Rendered frames with labels to train the demo's detector on, kept on disk a scene at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from accmpeg.demo.scene import SceneSource, SceneSpec

__all__ = ["FIRST_TRAINING_SEED", "FRAMES_PER_SCENE", "FrameSet", "read_frames", "render_scene"]

FIRST_TRAINING_SEED = 1000
"""Seeds below it are never trained on: the demo and the tests use those."""

FRAMES_PER_SCENE = 10
INPUT_WIDTH_PX, INPUT_HEIGHT_PX = 640, 360


@dataclass(frozen=True)
class FrameSet:
    """Pictures `(n, 360, 640, 3)` RGB, and per picture boxes `(k, 4)` in its pixels and classes `(k,)`."""

    pictures: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    class_ids: list[NDArray[np.intp]]

    def __len__(self) -> int:
        return len(self.boxes)


def render_scene(seed: int, folder: Path) -> Path:
    """Renders some frames of one seed at 1280×720, scales them to the detector's input, stores them once."""
    path = folder / f"scene-{seed}.npz"
    if path.exists():
        return path
    rng = np.random.default_rng((seed, 31))
    scene = SceneSource(SceneSpec(seed, frame_count=900))
    pictures, boxes, class_ids, counts = [], [], [], []
    for frame_index in rng.choice(900, FRAMES_PER_SCENE, replace=False).tolist():
        small = scene.frame(frame_index).reformat(
            INPUT_WIDTH_PX, INPUT_HEIGHT_PX, format="rgb24", interpolation=Interpolation.BILINEAR
        )
        pictures.append(small.to_ndarray())
        labels = scene.labels(frame_index)
        boxes.append(labels.boxes * (INPUT_WIDTH_PX / scene.spec.width_px))
        class_ids.append(labels.class_ids)
        counts.append(len(labels.class_ids))
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        pictures=np.stack(pictures),
        boxes=np.concatenate(boxes),
        class_ids=np.concatenate(class_ids),
        counts=np.array(counts),
    )
    part.replace(path)
    return path


def read_frames(paths: Sequence[Path]) -> FrameSet:
    """Joins stored scenes."""
    pictures, boxes, class_ids = [], [], []
    for path in paths:
        with np.load(path) as stored:
            pictures.append(stored["pictures"])
            ends = np.cumsum(stored["counts"])[:-1]
            boxes += np.split(stored["boxes"], ends)
            class_ids += np.split(stored["class_ids"], ends)
    return FrameSet(np.concatenate(pictures), boxes, class_ids)
