"""Maps as colours over pictures, for overlays and reports."""

import numpy as np
from numpy.typing import NDArray

from accmpeg.media.grid import MACROBLOCK_PX

__all__ = ["heat_over", "offsets_over"]

RgbImage = NDArray[np.uint8]

# Few anchors, dark to light: readable in grey too.
_HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)
# Finer than the stream's base QP is green, coarser is violet.
_DIVERGING = np.array(
    [[0, 130, 60], [150, 210, 150], [245, 245, 245], [190, 150, 210], [90, 10, 120]], np.float32
)


def heat_over(image: RgbImage, values: NDArray[np.floating], opacity: float = 0.6) -> RgbImage:
    """Blends a `(rows, cols)` map over its `(h, w, 3)` picture; dark is low, bright is high.

    The colours span the map's own 5th to 99.5th percentile.
    """
    low, high = np.percentile(values, [5, 99.5])
    level = (values - low) / max(float(high - low), 1e-6)
    return _blend(image, _colours(level, _HEAT), opacity)


def offsets_over(image: RgbImage, qp_offsets: NDArray[np.floating], opacity: float = 0.6) -> RgbImage:
    """Blends QP offsets `(rows, cols)` over their picture: green finer, violet coarser, full at ±12."""
    return _blend(image, _colours(qp_offsets / 24 + 0.5, _DIVERGING), opacity)


def _colours(level: NDArray[np.floating], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    at = np.clip(level, 0, 1) * (len(anchors) - 1)
    return np.stack([np.interp(at, range(len(anchors)), anchors[:, c]) for c in range(3)], axis=-1).astype(
        np.float32
    )


def _blend(image: RgbImage, colours: NDArray[np.float32], opacity: float) -> RgbImage:
    height, width = image.shape[:2]
    large = colours.repeat(MACROBLOCK_PX, axis=0).repeat(MACROBLOCK_PX, axis=1)[:height, :width]
    # The picture in grey, so that only the map has colour.
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    return np.asarray(grey * (1 - opacity) + large * opacity, dtype=np.uint8)
