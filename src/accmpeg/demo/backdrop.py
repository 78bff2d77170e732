"""Paints a street's still parts once: sky, ground, buildings, plants, furniture; in sun and under cloud."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.furniture import PROP_SIZES_M, draw_prop
from accmpeg.demo.street import Building, Prop, Street
from accmpeg.demo.textures import (
    TILE_M,
    TILE_PX,
    Picture,
    facade,
    ground_tile,
    smooth_noise,
    weathering,
)

__all__ = ["Backdrop", "paint_backdrop"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Backdrop:
    """The canvas under cloud and in sun, and what on it hides things behind.

    Pictures are BGRA, because OpenCV warps four channels thrice as fast as three.
    `occluders` holds the number of the occluder at each pixel, 0 for none; the one with number k stands at
    `depths_m[k - 1]`, and numbers rise as depths fall.
    """

    cloudy: NDArray[np.uint8]
    sunny: NDArray[np.uint8]
    occluders: NDArray[np.uint8]
    depths_m: FloatArray


class _Canvas:
    """Colour without light, share of direct sun, and depth; each `(height, width)`."""

    def __init__(self, street: Street) -> None:
        camera = street.camera
        shape = camera.canvas_height_px, camera.canvas_width_px
        self.street = street
        self.albedo = np.zeros((*shape, 3), dtype=np.float32)
        self.sun = np.zeros(shape, dtype=np.float32)
        self.depth_m = np.full(shape, 1e4, dtype=np.float32)
        self.marks: list[tuple[float, NDArray[np.bool_], tuple[slice, slice]]] = []

    def paste(
        self,
        box: tuple[int, int, int, int],
        colours: Picture,
        mask: NDArray[np.bool_],
        sun: float | Picture,
        depth_m: float | Picture,
        occluder_m: float | None,
    ) -> None:
        """Puts a picture with a mask at (x0, y0, x1, y1), which must lie on the canvas."""
        x0, y0, x1, y1 = box
        at = (slice(y0, y1), slice(x0, x1))
        self.albedo[at][mask] = colours[mask]
        self.sun[at][mask] = sun if np.isscalar(sun) else np.asarray(sun)[mask]
        self.depth_m[at][mask] = depth_m if np.isscalar(depth_m) else np.asarray(depth_m)[mask]
        if occluder_m is not None:
            self.marks.append((occluder_m, mask, at))


def paint_backdrop(street: Street, seed: int) -> Backdrop:
    """Paints the canvas of one street."""
    rng = np.random.default_rng((seed, 77))
    canvas = _Canvas(street)
    _paint_ground(rng, canvas)
    eye, axis = street.camera.position, street.camera.axes[2]

    def far(building: Building) -> float:
        corners = _corners(building)
        return float(((corners - eye) @ axis).mean())

    for building in sorted(street.buildings, key=lambda b: -far(b) - 1000 * (b.axis == "y")):
        _paint_building(canvas, building)
    for prop in street.props:
        _paint_prop(canvas, prop)
    return _finish(rng, canvas)


def _finish(rng: np.random.Generator, canvas: _Canvas) -> Backdrop:
    street, light = canvas.street, canvas.street.light.base
    height, width = canvas.sun.shape
    canvas.albedo *= 1 + np.float32(0.085) * weathering(rng, height, width)[..., None]
    haze = 1 - np.exp(canvas.depth_m * np.float32(-1 / light.haze_m))
    top, low = street.sky
    edge = int(np.clip(street.camera.horizon_px + 3, 1, height))
    rows = (np.arange(edge) / edge)[:, None, None]
    sky = (top + (low - top) * rows**0.8 + np.zeros((1, width, 1))).astype(np.float32)
    drift = smooth_noise(rng, edge, width, 4) + 0.5 * smooth_noise(rng, edge, width, 11)
    drift += 0.3 * smooth_noise(rng, edge, width, 30)
    cloud = np.clip(drift + 0.1, 0, 1)[..., None]
    white = np.array([238.0, 236.0, 234.0], dtype=np.float32) * (0.55 if street.light.dusk else 1.0)
    is_sky = (canvas.depth_m[:edge] > 9e3)[..., None]
    pictures = []
    lit = np.zeros((height, width, 4), dtype=np.float32)
    for sunniness in (0.0, 1.0):
        for channel in range(3):
            gain = canvas.sun * np.float32(sunniness * light.sun[channel])
            gain += np.float32(light.sky[channel])
            gain *= canvas.albedo[..., channel]
            lit[..., channel] = gain + haze * (np.float32(light.haze[channel]) - gain)
        above = sky + np.float32(0.75 if sunniness else 0.95) * cloud * (white - sky)
        np.copyto(lit[:edge, :, :3], above, where=is_sky)
        pictures.append(np.asarray(np.clip(lit, 0, 255, out=lit).astype(np.uint8)))
    order = np.argsort([-mark[0] for mark in canvas.marks], kind="stable")[-254:]
    number = {int(which): k + 1 for k, which in enumerate(order)}
    occluders = np.zeros((height, width), dtype=np.uint8)
    for which, (_, mask, at) in enumerate(canvas.marks):
        occluders[at][mask] = number.get(which, 0)
    depths = np.array([canvas.marks[int(which)][0] for which in order], dtype=np.float64)
    return Backdrop(pictures[0], pictures[1], occluders, depths)


def _paint_ground(rng: np.random.Generator, canvas: _Canvas) -> None:
    street = canvas.street
    half, junction = street.road_half_m, street.junction_m
    first, x, y, depth = street.camera.ground_rows()
    paved = next(band for band in street.bands if band.material in ("slabs", "cobbles"))
    road = next(band for band in street.bands if band.material == "asphalt")
    bands = sorted(street.bands, key=lambda band: band.x0_m)
    which = np.searchsorted(np.array([band.x1_m for band in bands[:-1]], dtype=np.float32), x).astype(
        np.uint8
    )
    cross = (y > junction) & (y < street.end_m)
    cross_road = (y > junction + 3) & (y < street.end_m - 3)
    bands += [paved, road]
    asphalt = np.array([band.material == "asphalt" for band in bands])
    which[cross & ~asphalt[which]] = len(bands) - 2
    which[cross_road] = len(bands) - 1
    picture = np.array([band.colour for band in bands], dtype=np.float32)[which]
    materials = sorted({band.material for band in bands})
    kind = np.array([materials.index(band.material) for band in bands], dtype=np.uint8)[which]
    tone = _sample_tiles(street, [ground_tile(rng, name) for name in materials], kind, (x, y), depth)
    picture *= (1 + np.float32(0.5) * tone)[..., None]
    across = np.abs(x)
    on_road = (across < half) & (y < junction)
    # Tyres darken the wheel tracks of each lane.
    lane_x = (x + np.float32(half)) % np.float32(3.3)
    tracks = np.exp(-(((np.abs(lane_x - np.float32(1.65)) - np.float32(0.75)) / np.float32(0.3)) ** 2))
    gain = 1 - np.float32(0.1) * tracks * on_road
    lines = np.zeros(x.shape, dtype=np.bool_)
    for at, dashed in street.lane_marks_m:
        line = (np.abs(x - np.float32(at)) < 0.075) & (y < junction - 3)
        lines |= line & (y % 9 < 4.5) if dashed else line
    if street.zebra_m is not None:
        stripe = (np.abs(y - np.float32(street.zebra_m)) < 1.6) & ((x + np.float32(half)) % 1.0 < 0.5)
        lines |= stripe & (across < half)
    lines |= (np.abs(y - np.float32(junction - 2)) < 0.25) & on_road
    for kerb in street.kerbs_m:
        stone = (np.abs(x - np.float32(kerb)) < 0.16) & ~cross
        picture[stone] = np.array([168.0, 172.0, 175.0]) * (1 + 0.2 * tone[stone, None])
        gain[(np.abs(x - np.float32(kerb - 0.26 * np.sign(kerb))) < 0.1) & ~cross] *= 0.72
    worn = np.clip(0.8 + 0.5 * tone[lines], 0.25, 1.0)[:, None] * np.float32(0.85)
    picture[lines] += worn * (np.array([215.0, 220.0, 222.0], dtype=np.float32) - picture[lines])
    canvas.albedo[first:] = picture * (gain * _stains(rng, street)[first:])[..., None]
    canvas.depth_m[first:] = depth[:, None]
    canvas.sun[first:] = street.light.base.sun_direction[2]
    _paint_shadows(rng, canvas, first)


def _stains(rng: np.random.Generator, street: Street) -> Picture:
    """Darkening of the road by covers and mended patches, 0..1, `(canvas height, canvas width)`."""
    camera = street.camera
    stains = np.full((camera.canvas_height_px, camera.canvas_width_px), 255, dtype=np.uint8)
    angle = np.arange(20) * 2 * np.pi / 20
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for _ in range(5):
        at = rng.uniform((-street.road_half_m, 3), (street.road_half_m, street.junction_m))
        size = rng.uniform((0.5, 1.0), (1.6, 6.0))
        box = at + size * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        box[:, 0] = np.clip(box[:, 0], -street.road_half_m, street.road_half_m)
        _fill_ground(street, stains, box, 255 * float(rng.uniform(0.74, 0.9)))
    for _ in range(9):
        at = rng.uniform((-street.road_half_m, 3), (street.road_half_m, street.junction_m))
        for radius, tone in ((0.42, 0.5), (0.34, 0.66), (0.12, 0.55)):
            _fill_ground(street, stains, at + radius * circle, 255 * tone)
    return np.asarray(stains / 255, dtype=np.float32)


def _fill_ground(street: Street, plane: NDArray[np.uint8], points_m: FloatArray, value: float) -> None:
    """Fills the convex hull of ground points (x, y)."""
    polygon = street.camera.project_clipped(np.column_stack([points_m, np.zeros(len(points_m))]))
    if len(polygon) >= 3:
        hull = cv2.convexHull(np.round(np.clip(polygon, -20000, 20000)).astype(np.int32))
        cv2.fillConvexPoly(plane, hull, value, cv2.LINE_AA)


def _sample_tiles(
    street: Street,
    tiles: list[Picture],
    kind: NDArray[np.uint8],
    ground: tuple[Picture, Picture],
    depth: FloatArray,
) -> Picture:
    """Each pixel's tone from its material's tile, coarser with distance as a lens would show it."""
    # Metres of ground that one pixel covers along the line of sight.
    footprint = depth**2 / (street.camera.focal_px * street.camera.height_m)
    footprint = np.maximum(0.6 * footprint, depth / street.camera.focal_px)
    level = np.clip(np.round(np.log2(np.maximum(footprint * TILE_PX / TILE_M, 1.0))), 0, 6).astype(np.intp)
    tone = np.zeros(kind.shape, dtype=np.float32)
    for step in range(int(level.max()) + 1):
        at = np.flatnonzero(level == step)
        if len(at):
            span = slice(int(at[0]), int(at[-1]) + 1)
            u, v = (
                (metres[span] * np.float32(tiles[0].shape[0] / TILE_M)) % tiles[0].shape[0]
                for metres in ground
            )
            for number, tile in enumerate(tiles):
                mine = kind[span] == number
                if mine.any():
                    sampled = cv2.remap(tile, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
                    np.copyto(tone[span], sampled, where=mine)
        tiles = [
            cv2.resize(tile, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) * 1.45 for tile in tiles
        ]
    return np.asarray(tone, dtype=np.float32)


def _paint_shadows(rng: np.random.Generator, canvas: _Canvas, first: int) -> None:
    """Takes direct sun from the ground behind buildings and trees."""
    street = canvas.street
    sun = street.light.base.sun_direction
    cast = -sun[:2] / max(float(sun[2]), 0.2)
    shadow = np.zeros(canvas.sun.shape, dtype=np.uint8)

    def fill(points_m: FloatArray) -> None:
        _fill_ground(street, shadow, points_m, 255)

    for building in street.buildings:
        base = _corners(building)[:2, :2]
        reach = cast * building.height_m
        back = np.array([np.sign(building.at_m), 0.0]) * 10 if building.axis == "x" else np.array([0.0, 10.0])
        fill(np.array([base[0], base[1], base[1] + reach, base[0] + reach]))
        fill(np.array([base[0] + back, base[0], base[0] + reach, base[0] + back + reach]))
        fill(np.array([base[1] + back, base[1], base[1] + reach, base[1] + back + reach]))
    for prop in street.props:
        at = np.array([prop.x_m, prop.y_m])
        if prop.kind == "tree":
            middle = at + cast * 4.6 * prop.size
            for _ in range(26):
                spot = middle + rng.uniform(-1.7, 1.7, 2) * prop.size + cast * rng.uniform(-1.3, 1.3)
                angle = np.arange(9) * 2 * np.pi / 9
                size = rng.uniform(0.25, 0.75) * prop.size
                fill(spot + size * np.stack([np.cos(angle), np.sin(angle)], 1))
        tall, wide = {"tree": (4.0, 0.15), "lamp": (6.0, 0.07), "sign": (2.6, 0.05), "bush": (1.0, 0.6)}.get(
            prop.kind, (0.9, 0.2)
        )
        across = np.array([-cast[1], cast[0]]) / max(float(np.hypot(*cast)), 1e-6) * wide
        fill(np.array([at - across, at + across, at + across + cast * tall, at - across + cast * tall]))
    soft = cv2.GaussianBlur(shadow, (3, 3), 0).astype(np.float32) / 255
    canvas.sun[first:] *= 1 - soft[first:]


def _corners(building: Building) -> FloatArray:
    """The front's corners: (start, 0), (end, 0), (end, top), (start, top), world metres."""
    start, end, at, top = building.start_m, building.end_m, building.at_m, building.height_m
    if building.axis == "x":
        return np.array([(at, start, 0.0), (at, end, 0.0), (at, end, top), (at, start, top)])
    return np.array([(start, at, 0.0), (end, at, 0.0), (end, at, top), (start, at, top)])


def _paint_building(canvas: _Canvas, building: Building) -> None:
    street = canvas.street
    rng = np.random.default_rng(building.seed)
    camera, light = street.camera, street.light
    corners = _corners(building)
    lit = 0.4 if light.dusk else 0.03
    if building.axis == "x":
        # The end wall turned to the camera, then the front.
        side = np.array([corners[0], corners[0], corners[3], corners[3]])
        side[[1, 2], 0] += np.sign(building.at_m) * 10.0
        _paint_wall(canvas, side, np.array([0.0, -1.0, 0.0]), building, rng, plain=True, lit=0.0)
        normal = np.array([-np.sign(building.at_m), 0.0, 0.0])
        if (camera.x_m - building.at_m) * normal[0] <= 0.5:
            return
    else:
        normal = np.array([0.0, -1.0, 0.0])
    _paint_wall(canvas, corners, normal, building, rng, plain=False, lit=lit)


def _paint_wall(
    canvas: _Canvas,
    corners: FloatArray,
    normal: FloatArray,
    building: Building,
    rng: np.random.Generator,
    *,
    plain: bool,
    lit: float,
) -> None:
    street = canvas.street
    camera = street.camera
    near_m = 3.0
    low_end = ((corners[[0, 1]]) - camera.position) @ camera.axes[2]
    high_end = ((corners[[3, 2]]) - camera.position) @ camera.axes[2]
    ends = np.minimum(low_end, high_end)
    if ends.max() < near_m + 0.5:
        return
    width_m = float(np.linalg.norm(corners[1] - corners[0]))
    cut = [0.0, 1.0]
    if ends[0] < near_m:
        cut[0] = float((near_m - ends[0]) / (ends[1] - ends[0]))
    elif ends[1] < near_m:
        cut[1] = float((near_m - ends[0]) / (ends[1] - ends[0]))
    along = corners[1] - corners[0]
    up = corners[3] - corners[0]
    quad_m = np.array([corners[0] + cut[0] * along, corners[0] + cut[1] * along])
    quad_m = np.array([quad_m[0], quad_m[1], quad_m[1] + up, quad_m[0] + up])
    quad, depth = camera.project(quad_m)
    height, width = canvas.sun.shape
    x0, y0 = np.floor(np.maximum(quad.min(axis=0), 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(quad.max(axis=0), (width, height))).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    px_per_m = float(np.clip(camera.focal_px / np.median(depth) * 1.1, 5, 48))
    if plain:
        texture = np.empty((64, 64, 3), dtype=np.float32)
        texture[:] = np.array(building.colour) * 0.9
        texture *= 1 + 0.05 * rng.standard_normal((64, 64, 1)).astype(np.float32)
        texture = np.asarray(cv2.resize(texture, (160, 240), interpolation=cv2.INTER_CUBIC), np.float32)
        px_x = 160 / width_m
    else:
        texture = facade(rng, width_m, building.height_m, px_per_m, building.colour, lit, building.shops)
        px_x = texture.shape[1] / width_m
    rows = texture.shape[0]
    source = np.array(
        [(cut[0] * width_m * px_x, rows), (cut[1] * width_m * px_x, rows), (cut[1] * width_m * px_x, 0.0),
         (cut[0] * width_m * px_x, 0.0)], dtype=np.float32,
    )  # fmt: skip
    target = (quad - (x0, y0)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    size = (int(x1 - x0), int(y1 - y0))
    warped = cv2.warpPerspective(
        texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    picture = np.asarray(warped, dtype=np.float32)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    cv2.fillConvexPoly(
        mask, np.round(np.clip(target, -20000, 20000) * 16).astype(np.int32), 255, cv2.LINE_8, 4
    )
    sun = max(0.0, float(normal @ street.light.base.sun_direction))
    canvas.paste(
        (int(x0), int(y0), int(x1), int(y1)), picture, mask > 0, sun, float(np.mean(depth)),
        float(np.max(depth)) + (0.0 if building.axis == "x" else 6.0),
    )  # fmt: skip


def _paint_prop(canvas: _Canvas, prop: Prop) -> None:
    street = canvas.street
    camera = street.camera
    rng = np.random.default_rng(prop.seed)
    (foot,), (depth,) = camera.project(np.array([[prop.x_m, prop.y_m, 0.0]]))
    if depth < 5:
        return
    scale = camera.focal_px / float(depth)
    height_m, width_m = PROP_SIZES_M[prop.kind]
    if prop.kind in ("tree", "bush"):
        height_m, width_m = height_m * prop.size, width_m * prop.size
    w, h = max(3, int(width_m * scale)), max(3, int(height_m * scale))
    if w > 1400 or h > 1800:
        return
    picture = np.zeros((h, w, 3), dtype=np.float32)
    mask = np.zeros((h, w), dtype=np.uint8)
    sun_right = float(street.light.base.sun_direction @ camera.axes[0])
    draw_prop(rng, prop, picture, mask, scale, street.leaf, sun_right)
    left, top = int(foot[0] - w / 2), int(foot[1] - h)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + w, canvas.sun.shape[1]), min(top + h, canvas.sun.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    sun = 0.45 if prop.kind in ("tree", "bush") else 0.3
    canvas.paste((x0, y0, x1, y1), picture[part], mask[part] > 127, sun, float(depth), float(depth))
