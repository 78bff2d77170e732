"""The embedded scene: a rendered street with exact labels, seen by one moving camera.

```
SceneSpec(seed) ─▶ Street (what is where) ─▶ Backdrop (painted once)
                                   │                  │ one affine warp per frame
                                   └─ actors ─────────┴─▶ picture ─▶ blur, noise ─▶ yuv420p
                                          └─▶ id buffer ─▶ boxes and classes
```
It is synthetic, and says so wherever it is shown: it proves that the loop works, not how well it does on
real streets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.backdrop import paint_backdrop
from accmpeg.demo.camera import NEAR_M, Camera, apply_affine
from accmpeg.demo.mesh import SHIFT, Light, Polygon
from accmpeg.demo.people import Figure
from accmpeg.demo.street import make_street
from accmpeg.demo.traffic import Actor
from accmpeg.errors import UsageError
from accmpeg.media.source import Source, SourceInfo

if TYPE_CHECKING:
    import supervision

__all__ = ["CLASS_NAMES", "Labels", "SceneSource", "SceneSpec", "true_detections"]

CLASS_NAMES = ("person", "car", "large vehicle", "bike")
"""Vans, lorries and buses are large vehicles; a bike's box holds its rider."""

MIN_VISIBLE_SHARE = 0.35
MIN_LONG_SIDE_PX = 16
MIN_SHORT_SIDE_PX = 6

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SceneSpec:
    """Which street, how large and how long. Seeds from 1000 up are for training the demo's networks."""

    seed: int
    width_px: int = 1280
    height_px: int = 720
    frame_rate: Fraction = Fraction(30)
    frame_count: int = 300

    def __post_init__(self) -> None:
        if self.width_px < 160 or self.height_px < 90 or self.width_px % 2 or self.height_px % 2:
            raise UsageError(f"a scene needs even sizes from 160x90 up, not {self.width_px}x{self.height_px}")
        if self.frame_count < 1 or self.frame_rate <= 0:
            raise UsageError("a scene needs at least one frame and a frame rate above zero")


class Labels(NamedTuple):
    """Boxes `(n, 4)` as x0, y0, x1, y1 in pixels, and their classes `(n,)`, numbers into `CLASS_NAMES`."""

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.intp]


class _Seen(NamedTuple):
    """An actor in one frame: its points in the world and the frame, and its pixels as (x0, y0, x1, y1)."""

    actor: Actor
    at: tuple[float, float, float]
    world: FloatArray
    points: FloatArray
    depth_m: float
    px_per_m: float
    whole: tuple[float, float, float, float]
    roi: tuple[int, int, int, int]

    def polygons(self, camera: Camera, light: Light | None) -> list[Polygon]:
        return self.actor.body.polygons(self.points, self.px_per_m, self.depth_m, self.at, camera, light)


class SceneSource(Source):
    """A street as a source of frames; any frame may also be drawn on its own, in any order.

    The same spec always gives the same pixels.
    """

    def __init__(self, spec: SceneSpec) -> None:
        self.spec = spec
        self.info = SourceInfo(
            name=f"scene-{spec.seed}",
            width_px=spec.width_px,
            height_px=spec.height_px,
            frame_rate=spec.frame_rate,
            time_base=1 / spec.frame_rate,
            frame_count=spec.frame_count,
            is_live=False,
        )
        self._street = make_street(spec.seed, spec.width_px, spec.height_px)
        self._backdrop = paint_backdrop(self._street, spec.seed)
        self._blend: tuple[int, NDArray[np.uint8]] | None = None
        rng = np.random.default_rng((spec.seed, 5))
        size = (spec.height_px + 64, spec.width_px + 64)
        sigma = self._street.light.noise
        self._noise = np.clip(np.round(128 + sigma * rng.standard_normal(size)), 0, 255).astype(np.uint8)

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for frame_index in range(self.spec.frame_count):
            yield self.frame(frame_index)

    def frame(self, frame_index: int) -> av.VideoFrame:
        """One frame as yuv420p (BT.601, limited range), with its pts."""
        frame = av.VideoFrame.from_ndarray(self.yuv420p(frame_index), format="yuv420p")
        frame.pts = frame_index
        frame.time_base = 1 / self.spec.frame_rate
        return frame

    def yuv420p(self, frame_index: int) -> NDArray[np.uint8]:
        """One frame's planes stacked, `(height_px * 3 / 2, width_px)`, with the sensor's blur and noise."""
        planes = cv2.cvtColor(self._picture(frame_index), cv2.COLOR_BGRA2YUV_I420)
        height = self.spec.height_px
        luma = planes[:height]
        if self._street.light.blur:
            luma[:] = cv2.GaussianBlur(luma, (3, 3), 0.55)
        rng = np.random.default_rng((self.spec.seed, frame_index, 9))
        x, y = (int(v) for v in rng.integers(0, 64, 2))
        noise = self._noise[y : y + height, x : x + self.spec.width_px]
        cv2.addWeighted(luma, 1.0, noise, 1.0, -128.0, dst=luma)
        return np.asarray(planes, dtype=np.uint8)

    def labels(self, frame_index: int) -> Labels:
        """What a perfect detector would report: visible extents of objects hidden by at most 65 %."""
        ids, seen, drawn = self._ids(frame_index)
        boxes, class_ids = [], []
        for number, (item, solo) in enumerate(zip(seen, drawn, strict=True), start=1):
            x0, y0, x1, y1 = item.roi
            mine = (ids[y0:y1, x0:x1] == number).view(np.uint8)
            visible = cv2.countNonZero(mine)
            if not visible:
                continue
            wx0, wy0, wx1, wy1 = item.whole
            inside = (x1 - x0) * (y1 - y0) / max((wx1 - wx0) * (wy1 - wy0), 1.0)
            if visible / solo * min(inside, 1.0) < MIN_VISIBLE_SHARE:
                continue
            left, top, width, height = cv2.boundingRect(mine)
            if max(width, height) < MIN_LONG_SIDE_PX or min(width, height) < MIN_SHORT_SIDE_PX:
                continue
            boxes.append((x0 + left, y0 + top, x0 + left + width, y0 + top + height))
            class_ids.append(item.actor.class_id)
        return Labels(np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(class_ids, dtype=np.intp))

    def id_buffer(self, frame_index: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
        """The number of the object that each pixel shows, 0 for none; object k has the class at k - 1."""
        ids, seen, _ = self._ids(frame_index)
        return ids, np.array([item.actor.class_id for item in seen], dtype=np.intp)

    def _time_s(self, frame_index: int) -> float:
        return float(frame_index / self.spec.frame_rate)

    def _seen(self, time_s: float, affine: FloatArray) -> list[_Seen]:
        """The actors in the frame, far to near."""
        camera, actors = self._street.camera, self._street.actors
        if not actors:
            return []
        width, height = self.spec.width_px, self.spec.height_px
        poses = [actor.pose(time_s) for actor in actors]
        worlds = [actor.body.placed(*at, phase) for actor, (at, phase) in zip(actors, poses, strict=True)]
        starts = np.cumsum([0] + [len(world) for world in worlds])
        # One projection for all: many small ones would cost more than the drawing.
        canvas, depth = camera.project(np.concatenate(worlds))
        points = apply_affine(affine, canvas)
        nearest = np.minimum.reduceat(depth, starts[:-1])
        middle = np.add.reduceat(depth, starts[:-1]) / np.diff(starts)
        low, high = np.minimum.reduceat(points, starts[:-1]), np.maximum.reduceat(points, starts[:-1])
        scale = camera.focal_px / np.maximum(middle, NEAR_M) * float(np.hypot(affine[0, 0], affine[1, 0]))
        # Limbs are wider than their joints.
        rim = np.array([0.17 * isinstance(actor.body, Figure) for actor in actors]) * scale
        low, high = low - rim[:, None], high + rim[:, None]
        seen: list[_Seen] = []
        for i in np.argsort(-middle, kind="stable"):
            (wx0, wy0), (wx1, wy1) = low[i].tolist(), high[i].tolist()
            if nearest[i] < NEAR_M or wx1 < 1 or wy1 < 1 or wx0 > width - 1 or wy0 > height - 1:
                continue
            roi = (
                max(int(wx0) - 2, 0),
                max(int(wy0) - 2, 0),
                min(int(wx1) + 3, width),
                min(int(wy1) + 3, height),
            )
            seen.append(
                _Seen(
                    actors[i], poses[i][0], worlds[i], points[starts[i] : starts[i + 1]], float(middle[i]),
                    float(scale[i]), (wx0, wy0, wx1, wy1), roi,
                )
            )  # fmt: skip
        return seen[-254:]

    def _hidden(self, affine: FloatArray, item: _Seen) -> NDArray[np.uint8] | None:
        """A mask of the pixels of an actor's region that something still hides, or None."""
        depths = self._backdrop.depths_m
        first = int(np.searchsorted(-depths, -item.depth_m, side="right")) + 1
        if first > len(depths):
            return None
        x0, y0, x1, y1 = item.roi
        shifted = affine.copy()
        shifted[:, 2] -= (x0, y0)
        occluders = cv2.warpAffine(
            self._backdrop.occluders, shifted, (x1 - x0, y1 - y0), flags=cv2.INTER_NEAREST
        )
        mask = (np.asarray(occluders) >= first).view(np.uint8)
        return mask if cv2.countNonZero(mask) else None

    def _ids(self, frame_index: int) -> tuple[NDArray[np.uint8], list[_Seen], list[int]]:
        time_s = self._time_s(frame_index)
        affine = self._street.motion.affine(time_s)
        ids = np.zeros((self.spec.height_px, self.spec.width_px), dtype=np.uint8)
        seen = self._seen(time_s, affine)
        drawn: list[int] = []
        for number, item in enumerate(seen, start=1):
            x0, y0, x1, y1 = item.roi
            solo = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
            _draw(solo, item.polygons(self._street.camera, None), (x0, y0), 255)
            drawn.append(max(1, cv2.countNonZero(solo)))
            hidden = self._hidden(affine, item)
            if hidden is not None:
                solo[hidden > 0] = 0
            cv2.copyTo(np.full_like(solo, number), solo, ids[y0:y1, x0:x1])
        return ids, seen, drawn

    def _picture(self, frame_index: int) -> NDArray[np.uint8]:
        """The BGR picture before the sensor."""
        street, time_s = self._street, self._time_s(frame_index)
        affine = street.motion.affine(time_s)
        base = street.light.base
        light = Light(
            base.sun_direction, base.sun, base.sky, street.light.sunniness(time_s),
            street.light.exposure(time_s), base.haze, base.haze_m,
        )  # fmt: skip
        size = (self.spec.width_px, self.spec.height_px)
        warped = cv2.warpAffine(
            self._lit_canvas(light), affine, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        picture = np.asarray(warped, dtype=np.uint8)
        seen = self._seen(time_s, affine)
        clean = picture.copy()
        self._cast_shadows(picture, seen, affine, light)
        for item in seen:
            _draw(picture, item.polygons(street.camera, light), (0, 0), None)
            hidden = self._hidden(affine, item)
            if hidden is not None:
                x0, y0, x1, y1 = item.roi
                cv2.copyTo(clean[y0:y1, x0:x1], hidden, picture[y0:y1, x0:x1])
        return picture

    def _lit_canvas(self, light: Light) -> NDArray[np.uint8]:
        """The backdrop between cloud and sun, in invisible steps, so that steady light costs nothing."""
        step = round(light.sunniness * 128) * 1000 + round((light.exposure - 1) * 200)
        if self._blend is None or self._blend[0] != step:
            sunny = light.sunniness * light.exposure
            cloudy = (1 - light.sunniness) * light.exposure
            canvas = cv2.addWeighted(self._backdrop.sunny, sunny, self._backdrop.cloudy, cloudy, 0)
            self._blend = step, np.asarray(canvas, dtype=np.uint8)
        return self._blend[1]

    def _cast_shadows(
        self, picture: NDArray[np.uint8], seen: list[_Seen], affine: FloatArray, light: Light
    ) -> None:
        """Darkens the ground below the actors, and away from the sun."""
        if not seen:
            return
        world = np.concatenate([item.world for item in seen])
        starts = np.cumsum([0] + [len(item.world) for item in seen])
        below = world * (1, 1, 0)
        reach = np.minimum(world[:, 2:] / max(float(light.sun_direction[2]), 0.25), 12.0)
        cast = below - reach * light.sun_direction * (1, 1, 0)
        canvas, depth = self._street.camera.project(np.concatenate([below, cast]))
        points = apply_affine(affine, canvas).astype(np.float32)
        low = world[:, 2] < 0.7
        for start, end in pairwise(starts.tolist()):
            both = np.r_[start:end, start + len(world) : end + len(world)]
            if depth[both].min() < NEAR_M:
                continue
            _darken(picture, points[start:end][low[start:end]], 0.42)
            if light.sunniness > 0.05:
                _darken(picture, points[both], 0.45 * light.sunniness)


def _darken(picture: NDArray[np.uint8], points: NDArray[np.float32], strength: float) -> None:
    """Darkens the convex hull of frame points, with a soft edge."""
    if len(points) < 3:
        return
    height, width = picture.shape[:2]
    hull = cv2.convexHull(points)[:, 0]
    left, top, across, down = cv2.boundingRect(hull)
    x0, y0, x1, y1 = (
        max(left - 2, 0),
        max(top - 2, 0),
        min(left + across + 2, width),
        min(top + down + 2, height),
    )
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    mask = np.full((y1 - y0, x1 - x0), 255, dtype=np.uint8)
    fixed = np.round((hull - (x0, y0)) * (1 << SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(mask, fixed, 255 * (1 - strength), cv2.LINE_AA, SHIFT)
    mask = cv2.blur(mask, (3, 3))
    region = picture[y0:y1, x0:x1]
    cv2.multiply(region, cv2.merge([mask, mask, mask, mask]), dst=region, scale=1 / 255)


def _draw(
    picture: NDArray[np.uint8], polygons: list[Polygon], origin: tuple[int, int], value: int | None
) -> None:
    """Fills polygons in order: smooth-edged in their colours, or hard-edged in one value."""
    offset = np.array(origin, dtype=np.int32) << SHIFT
    for points, colour in polygons:
        if value is None:
            cv2.fillConvexPoly(picture, points, colour, cv2.LINE_AA, SHIFT)
        else:
            cv2.fillConvexPoly(picture, points - offset, value, cv2.LINE_8, SHIFT)


def true_detections(scene: SceneSource) -> "list[supervision.Detections]":
    """The labels of every frame of a scene as detections of confidence 1, to hold a server DNN against."""
    import supervision

    return [
        supervision.Detections(
            xyxy=labels.boxes,
            confidence=np.ones(len(labels.class_ids), np.float32),
            class_id=labels.class_ids,
        )
        for labels in map(scene.labels, range(scene.spec.frame_count))
    ]
