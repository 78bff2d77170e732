"""Street furniture and plants, drawn as flat pictures that stand upright."""

import cv2
import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.street import Prop
from accmpeg.demo.textures import Picture, foliage

__all__ = ["PROP_SIZES_M", "draw_prop"]

PROP_SIZES_M = {
    "tree": (6.6, 4.6),
    "bush": (1.3, 2.2),
    "lamp": (6.5, 2.2),
    "sign": (2.9, 1.0),
    "bollard": (0.95, 0.3),
    "bin": (1.1, 0.7),
    "bench": (0.9, 1.9),
}
"""Height and width; plants are scaled by their own size."""


def draw_prop(
    rng: np.random.Generator,
    prop: Prop,
    picture: Picture,
    mask: NDArray[np.uint8],
    scale: float,
    leaf: tuple[float, float, float],
    sun_right: float,
) -> None:
    """Draws one prop of `scale` pixels per metre into a picture and mask of its own size, foot at the bottom.

    `sun_right` is how far the sun stands to the right, -1 to 1.
    """
    h, w = mask.shape

    def bar(x0: float, z0: float, x1: float, z1: float, colour: tuple[float, float, float]) -> None:
        """A rectangle in metres from the foot's middle, lighter towards the sun."""
        left, right = int(w / 2 + x0 * scale), max(int(w / 2 + x1 * scale), int(w / 2 + x0 * scale))
        low, high = int(h - z0 * scale), int(h - z1 * scale)
        middle = (left + right) // 2
        for start, end, gain in (
            (left, right, 0.85 + 0.2 * sun_right),
            (left, middle, 0.85 - 0.2 * sun_right),
        ):
            cv2.rectangle(picture, (start, high), (end, low), [c * gain for c in colour], -1)
        cv2.rectangle(mask, (left, high), (right, low), 255, -1)

    if prop.kind in ("tree", "bush"):
        crown = h if prop.kind == "bush" else int(h * 0.72)
        if prop.kind == "tree":
            bar(-0.14, 0, 0.14, h / scale * 0.55, (52, 66, 82))
        tint = np.array(leaf) * rng.uniform(0.8, 1.25) + rng.uniform(-8, 8, 3)
        blue, green, red = np.clip(tint, 12, 220).tolist()
        leaves, cover = foliage(rng, w, crown, (blue, green, red), sun_right)
        picture[:crown][cover > 0] = leaves[cover > 0]
        mask[:crown][cover > 0] = 255
    elif prop.kind == "lamp":
        bar(-0.07, 0, 0.07, 6.4, (95, 95, 92))
        bar(-0.13, 0, 0.13, 0.9, (80, 80, 78))
        bar(-1.0, 6.25, 0.0, 6.4, (95, 95, 92))
        bar(-1.05, 6.1, -0.5, 6.28, (225, 235, 240))
    elif prop.kind == "sign":
        bar(-0.04, 0, 0.04, 2.8, (150, 150, 150))
        colour = [(40, 40, 200), (190, 90, 30), (235, 235, 235), (60, 190, 235)][int(rng.integers(4))]
        bar(-0.36, 2.1, 0.36, 2.82, colour)
        bar(-0.22, 2.3, 0.22, 2.6, (240, 240, 240) if colour[0] < 200 else (30, 30, 30))
    elif prop.kind == "bollard":
        bar(-0.1, 0, 0.1, 0.9, (60, 60, 62))
        bar(-0.1, 0.68, 0.1, 0.78, (215, 215, 218))
    elif prop.kind == "bin":
        blue, green, red = rng.uniform(30, 130, 3).tolist()
        bar(-0.27, 0, 0.27, 0.95, (blue, green, red))
        bar(-0.31, 0.9, 0.31, 1.06, (blue * 0.6, green * 0.6, red * 0.6))
        bar(-0.16, 0.45, 0.16, 0.7, (205, 205, 205))
    else:
        for z in (0.42, 0.6, 0.76):
            bar(-0.85, z, 0.85, z + 0.09, (60, 95, 130))
        for x in (-0.7, 0.7):
            bar(x - 0.04, 0, x + 0.04, 0.5, (50, 50, 50))
