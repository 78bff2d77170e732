"""Procedural textures: grain, patches, paving, facades and leaves, all from one random generator.

Colours are BGR floats in 0..255 (OpenCV's order). Tiles wrap around, so that they repeat without seams.
"""

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Colour", "Picture", "facade", "foliage", "ground_tile", "smooth_noise", "weathering"]

Colour = tuple[float, float, float]
Picture = NDArray[np.float32]
Box = Callable[[float, float, float, float, Sequence[float]], None]
"""Fills a rectangle of a facade, x0, z0, x1, z1 in metres from its foot, with a colour."""

TILE_PX = 512
TILE_M = 10.24


def smooth_noise(rng: np.random.Generator, height_px: int, width_px: int, cells: int) -> Picture:
    """Wrapping noise in about -1..1 with `cells` bumps across, `(height_px, width_px)`."""
    if width_px >= 32 * cells and height_px >= 128:
        # Such wide bumps need no cubic curve at every pixel.
        small = smooth_noise(rng, height_px // 4, width_px // 4, cells)
        return np.asarray(cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_LINEAR))
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    coarse = np.pad(coarse, 2, mode="wrap")
    scale_y, scale_x = height_px / cells, width_px / cells
    matrix = np.array([[1 / scale_x, 0, 1.5 + 0.5 / scale_x], [0, 1 / scale_y, 1.5 + 0.5 / scale_y]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    noise = cv2.warpAffine(coarse, matrix, (width_px, height_px), flags=flags)
    return np.asarray(noise / 1.6, dtype=np.float32)


@cache
def _grain_tile() -> Picture:
    return np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)


def _grain(rng: np.random.Generator, height_px: int, width_px: int) -> Picture:
    """White noise `(height_px, width_px, 1)`, cut from one tile because fresh noise is slow."""
    y, x = (int(v) for v in rng.integers(0, 1024, 2))
    tile = np.roll(_grain_tile(), (y, x), axis=(0, 1))
    repeats = -(-height_px // 1024), -(-width_px // 1024)
    return np.asarray(np.tile(tile, repeats)[:height_px, :width_px, None])


def weathering(rng: np.random.Generator, height_px: int, width_px: int) -> Picture:
    """Dirt of all sizes from 2 to 64 px, as on any real surface, about -1..1, `(height_px, width_px)`.

    Without it, walls and roads would be far cheaper to encode than real ones.
    """
    total = np.zeros((height_px, width_px), dtype=np.float32)
    for size in (1, 2, 4, 8, 16, 32):
        noise = rng.standard_normal((height_px // size + 2, width_px // size + 2), dtype=np.float32)
        if size > 1:
            noise = np.asarray(
                cv2.resize(noise, None, fx=size, fy=size, interpolation=cv2.INTER_LINEAR), np.float32
            )
        total += noise[:height_px, :width_px]
    return total * np.float32(0.45)


def ground_tile(rng: np.random.Generator, kind: str) -> Picture:
    """A wrapping tone map of one ground material, about -1..1, `(512, 512)` for 10.24 m × 10.24 m."""
    size = TILE_PX
    grain = rng.standard_normal((size, size), dtype=np.float32)
    patches = smooth_noise(rng, size, size, 4) + 0.5 * smooth_noise(rng, size, size, 13)
    if kind == "asphalt":
        stones = np.maximum(grain - 1.6, 0) * 0.6
        tone = 0.16 * grain + stones + 0.14 * patches + 0.1 * smooth_noise(rng, size, size, 90)
        cracks = np.abs(smooth_noise(rng, size, size, 7) + 0.3 * smooth_noise(rng, size, size, 40))
        return np.asarray(tone - 0.45 * (cracks < 0.012), dtype=np.float32)
    if kind in ("slabs", "cobbles"):
        count = int(rng.choice([16, 20, 26])) if kind == "slabs" else int(rng.choice([50, 64]))
        step = size / count
        across = np.arange(size)[None] + 0.5
        down = np.arange(size)[:, None] + 0.5
        row = np.floor(down / step).astype(np.intp)
        across = across + (row % 2) * step / 2 + 0 * down
        col = np.floor(across / step).astype(np.intp) % count
        tones = rng.standard_normal((count, count)).astype(np.float32)
        edge = np.minimum(across % step, (down % step) + 0 * across)
        joint = edge < max(1.0, 0.07 * step)
        spread = 0.16 if kind == "slabs" else 0.3
        tone = spread * tones[row + 0 * col, col] + 0.09 * grain + 0.12 * patches - 0.5 * joint
        return np.asarray(tone, dtype=np.float32)
    if kind == "grass":
        blades = cv2.GaussianBlur(grain, (1, 5), 0, sigmaY=1.6, borderType=cv2.BORDER_REFLECT)
        fine = smooth_noise(rng, size, size, 130)
        return np.asarray(0.45 * blades + 0.2 * grain + 0.3 * fine + 0.3 * patches, dtype=np.float32)
    raise ValueError(f"no ground material named {kind!r}")


def foliage(
    rng: np.random.Generator, width_px: int, height_px: int, colour: Colour, sun_right: float
) -> tuple[Picture, NDArray[np.uint8]]:
    """A crown of leaves: its colours `(h, w, 3)` and its mask `(h, w)` of 0 or 255."""
    picture = np.zeros((height_px, width_px, 3), dtype=np.float32)
    mask = np.zeros((height_px, width_px), dtype=np.uint8)
    dab = max(1.0, 0.028 * min(width_px, height_px))
    clumps = rng.uniform(-1, 1, (9, 2)) * (0.55, 0.5)
    count = 620 if min(width_px, height_px) > 60 else 200
    which = rng.integers(0, len(clumps), count)
    radius = np.sqrt(rng.uniform(0, 1, count)) * 0.42
    angle = rng.uniform(0, 2 * np.pi, count)
    offsets = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    at = clumps[which] + offsets
    # Leaves low in their clump and away from the sun are drawn first and darkest.
    light = -offsets[:, 1] * 1.1 + sun_right * offsets[:, 0] - 0.35 * at[:, 1]
    for i in np.argsort(light):
        tone = 0.78 + 0.75 * light[i] + 0.16 * rng.standard_normal()
        shade = [float(np.clip(channel * tone, 4, 250)) for channel in colour]
        x = int((0.5 + 0.48 * at[i, 0]) * width_px * 16)
        y = int((0.5 + 0.48 * at[i, 1]) * height_px * 16)
        size = int(max(1.0, dab * rng.uniform(0.7, 1.9)) * 16)
        cv2.circle(picture, (x, y), size, shade, -1, cv2.LINE_8, 4)
        cv2.circle(mask, (x, y), size, 255, -1, cv2.LINE_8, 4)
    picture *= 1 + 0.16 * _grain(rng, height_px, width_px)
    return picture, mask


def facade(
    rng: np.random.Generator,
    width_m: float,
    height_m: float,
    px_per_m: float,
    wall: Colour,
    lit_share: float,
    shops: bool,
) -> Picture:
    """One building front seen square on, `(height_m, width_m) × px_per_m` pixels."""
    width, height = max(8, int(width_m * px_per_m)), max(8, int(height_m * px_per_m))
    picture = np.empty((height, width, 3), dtype=np.float32)
    picture[:] = wall
    _wall_texture(rng, picture, px_per_m)
    floor_m = float(rng.uniform(2.8, 3.5))
    ground_m = 3.8 if shops else floor_m
    bay_m = float(rng.uniform(1.9, 3.4))
    window_w, window_h = bay_m * float(rng.uniform(0.42, 0.72)), floor_m * float(rng.uniform(0.45, 0.68))
    panes = int(rng.integers(1, 4))
    frame_tone = float(rng.choice([0.35, 0.8, 1.35]))
    frame = tuple(min(245.0, channel * frame_tone + 20) for channel in wall)
    glass = np.array([118.0, 104.0, 88.0]) * rng.uniform(0.45, 0.9)
    balconies = bool(rng.uniform() < 0.3)
    bays = max(1, int(width_m / bay_m))
    margin = (width_m - bays * bay_m) / 2

    def box(x0_m: float, z0_m: float, x1_m: float, z1_m: float, colour: Sequence[float]) -> None:
        top, bottom = height - int(z1_m * px_per_m), height - int(z0_m * px_per_m)
        cv2.rectangle(picture, (int(x0_m * px_per_m), top), (int(x1_m * px_per_m), bottom), colour, -1)

    floors = max(1, int((height_m - ground_m - 0.6) / floor_m))
    for floor in range(floors):
        base = ground_m + floor * floor_m
        if floor == 0 or rng.uniform() < 0.25:
            box(0, base - 0.22, width_m, base - 0.05, [channel * 0.8 for channel in wall])
        for bay in range(bays):
            left = margin + bay * bay_m + (bay_m - window_w) / 2
            low = base + (floor_m - window_h) / 2
            _window(rng, box, left, low, window_w, window_h, frame, glass, panes, lit_share)
            if balconies and bay % 2 == 0:
                box(left - 0.3, low - 0.25, left + window_w + 0.3, low - 0.1, [90.0, 90.0, 92.0])
                for rail in np.arange(left - 0.3, left + window_w + 0.3, 0.22):
                    box(rail, low - 0.1, rail + 0.04, low + 0.75, [70.0, 70.0, 74.0])
    box(0, height_m - 0.5, width_m, height_m, [channel * 0.72 for channel in wall])
    box(0, height_m - 0.62, width_m, height_m - 0.5, [min(250.0, channel * 1.2) for channel in wall])
    if shops:
        _shop_row(rng, box, width_m, lit_share)
    else:
        door = width_m * float(rng.uniform(0.2, 0.8))
        for bay in range(bays):
            left = margin + bay * bay_m + (bay_m - window_w) / 2
            if abs(left + window_w / 2 - door) > 1.4:
                _window(rng, box, left, 0.9, window_w, window_h, frame, glass, panes, lit_share)
        box(door - 0.65, 0, door + 0.65, 2.4, [channel * 0.5 for channel in wall])
        box(door - 0.5, 0, door + 0.5, 2.2, [float(c) for c in rng.uniform(25, 110, 3)])
    box(0, 0, width_m, 0.35, [channel * 0.55 for channel in wall])
    picture *= 1 + 0.035 * _grain(rng, height, width)
    return picture


def _wall_texture(rng: np.random.Generator, picture: Picture, px_per_m: float) -> None:
    height, width = picture.shape[:2]
    kind = rng.choice(["brick", "plaster", "panels"])
    gain = 1 + 0.06 * (smooth_noise(rng, height, width, 5) + 0.6 * smooth_noise(rng, height, width, 17))
    rows_m, cols_m = (0.085, 0.26) if kind == "brick" else (1.5, 2.2)
    row_px, col_px = rows_m * px_per_m, cols_m * px_per_m
    if kind == "plaster" or row_px < 1.2:
        gain *= 1 + 0.05 * _grain(rng, height, width)[..., 0]
    else:
        rows, cols = int(height / row_px) + 1, int(width / col_px) + 2
        tones = 1 + (0.1 if kind == "brick" else 0.03) * rng.standard_normal((rows, cols), dtype=np.float32)
        row = (np.arange(height) / row_px).astype(np.intp)
        joint = 1.16 if kind == "brick" else 0.82
        wide = max(0.016 * px_per_m, 0.7)
        for parity in (0, 1):
            x = np.arange(width) + parity * col_px / 2
            across = np.where(x % col_px < wide, joint, 1.0).astype(np.float32)
            which = np.flatnonzero(row % 2 == parity)
            bricks = tones[:, (x / col_px).astype(np.intp)] * across
            gain[which] *= bricks[row[which]]
        gain[np.arange(height) % row_px < wide] *= joint
    picture *= gain[..., None]


def _window(
    rng: np.random.Generator,
    box: Box,
    left: float,
    low: float,
    width_m: float,
    height_m: float,
    frame: Sequence[float],
    glass: NDArray[np.float64],
    panes: int,
    lit_share: float,
) -> None:
    box(left - 0.1, low - 0.16, left + width_m + 0.1, low - 0.06, [min(245.0, c * 1.1) for c in frame])
    box(left - 0.07, low - 0.07, left + width_m + 0.07, low + height_m + 0.07, frame)
    lit = rng.uniform() < lit_share
    tone = rng.uniform(0.55, 1.25)
    inside = np.array([120.0, 190.0, 235.0]) * rng.uniform(0.6, 1.0) if lit else glass * tone
    box(left, low, left + width_m, low + height_m, inside.tolist())
    if not lit:
        # The sky mirrored in the upper part.
        sky = np.minimum(inside * 1.5 + 18, 235).tolist()
        box(left, low + height_m * rng.uniform(0.45, 0.8), left + width_m, low + height_m, sky)
    if rng.uniform() < 0.35:
        curtain = (np.array([205.0, 212.0, 216.0]) * rng.uniform(0.45, 0.85)).tolist()
        drop = height_m * rng.uniform(0.2, 0.9)
        side = width_m * rng.uniform(0.15, 0.5)
        box(left, low + height_m - drop, left + side, low + height_m, curtain)
    for pane in range(1, panes + 1):
        at = left + width_m * pane / (panes + 1)
        box(at - 0.03, low, at + 0.03, low + height_m, frame)
    box(left, low + height_m * 0.62, left + width_m, low + height_m * 0.62 + 0.05, frame)


def _shop_row(rng: np.random.Generator, box: Box, width_m: float, lit_share: float) -> None:
    at = 0.3
    while at < width_m - 2.0:
        shop_m = float(min(rng.uniform(3.5, 7.0), width_m - at - 0.3))
        trim = rng.uniform(20, 190, 3)
        box(at, 0.0, at + shop_m, 3.4, (trim * 0.6).tolist())
        pane = np.array([105.0, 98.0, 90.0]) * rng.uniform(0.4, 0.9)
        if rng.uniform() < 0.3 + lit_share:
            pane = np.array([130.0, 185.0, 215.0]) * rng.uniform(0.6, 1.0)
        door = at + shop_m * float(rng.uniform(0.1, 0.8))
        box(at + 0.25, 0.5, at + shop_m - 0.25, 2.6, pane.tolist())
        for _ in range(int(shop_m * 3)):
            # Goods behind the glass.
            x, z = rng.uniform(at + 0.3, at + shop_m - 0.6), rng.uniform(0.6, 2.0)
            box(x, z, x + rng.uniform(0.1, 0.4), z + rng.uniform(0.1, 0.5), rng.uniform(30, 210, 3).tolist())
        for post in np.arange(at + 0.25, at + shop_m, 1.6):
            box(post - 0.04, 0.5, post + 0.04, 2.6, (trim * 0.5).tolist())
        box(door - 0.5, 0.0, door + 0.5, 2.4, (trim * 0.45).tolist())
        box(door - 0.38, 0.3, door + 0.38, 2.25, (pane * 0.8).tolist())
        sign = rng.uniform(20, 230, 3)
        box(at + 0.1, 2.75, at + shop_m - 0.1, 3.35, sign.tolist())
        letters = np.where(sign.mean() > 120, 25.0, 235.0)
        for x in np.arange(at + 0.5, at + shop_m - 0.7, 0.32):
            if rng.uniform() < 0.8:
                box(x, 2.9, x + rng.uniform(0.08, 0.22), 3.2, [float(letters)] * 3)
        if rng.uniform() < 0.4:
            light, dark = rng.uniform(150, 235, 3), rng.uniform(30, 150, 3)
            for i, x in enumerate(np.arange(at, at + shop_m - 0.15, 0.3)):
                box(x, 2.15, x + 0.3, 2.7, (light if i % 2 else dark).tolist())
        at += shop_m + 0.35
