"""A label set that can be learnt in seconds: bright discs on noise carry the AccGrad and are the objects."""

from pathlib import Path

import numpy as np

from accmpeg.files import write_whole
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.planes import Planes, model_size
from accmpeg.training.labels import Journal, Label, label_file, pack_label, write_manifest

SHA256 = "ab" * 32
SMALL = {"batch_size": 4, "view_height_px": 160, "view_width_px": 224}
"""Training settings for pictures of this size."""


def synthetic_label(
    rng: np.random.Generator,
    width_px: int,
    height_px: int,
    *,
    objects: bool = True,
    class_maps: bool = False,
) -> Label:
    width, height = model_size(width_px, height_px)
    y = rng.integers(40, 90, (height, width)).astype(np.uint8)
    mass = np.full((height, width), 0.001)
    rows, cols = np.mgrid[:height, :width]
    for _ in range(2):
        radius = rng.uniform(0.1, 0.2) * height
        disc = (rows - rng.uniform(0, height)) ** 2 + (cols - rng.uniform(0, width)) ** 2 < radius**2
        y[disc], mass[disc] = 200, 1.0
    grid = MacroblockGrid(width_px, height_px)
    accgrad = grid.resample(mass, height, width)
    return Label(
        np.log2(accgrad),
        accgrad > 0.5 if objects else None,
        Planes(y, np.full((2, height // 2, width // 2), 128, np.uint8)),
        width_px,
        height_px,
        {"classes": (mass > 0.5).astype(np.uint8)} if class_maps else {},
    )


def write_synthetic_labels(
    folder: Path,
    frames: int = 24,
    *,
    clips: int = 8,
    objects: bool = True,
    class_maps: bool = False,
    seed: int = 0,
    sha256: str = SHA256,
) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    write_manifest(
        folder,
        {
            "dnn": {"name": "discs", "task": "detection", "sha256": sha256},
            "settings": {"at": "low", "black_box": None},
        },
    )
    journal = Journal(folder / "journal.jsonl")
    for number in range(frames):
        size = [(320, 192), (250, 170), (192, 256)][number % 3]
        write_whole(
            label_file(folder, number),
            pack_label(synthetic_label(rng, *size, objects=objects, class_maps=class_maps)),
        )
        clip = f"clip-{seed}-{number % clips}"
        journal.add(f"{clip}.mp4", number, clip, label_file(folder, number).relative_to(folder))
    return folder
