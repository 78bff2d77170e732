"""What one seed's street holds: its bands of ground, buildings, props, traffic, light and camera.

Seen from above, with the camera near the origin and the street along y:

```
 end buildings      ████████████████████████  y = end_m
 cross street       ────────────────────────  y = junction_m
 side buildings     ███│ walk │ lanes │ walk│███
                    ███│      │   ↑↓  │     │███
 camera                       C →  yaw        x
```
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.camera import Camera, CameraMotion
from accmpeg.demo.mesh import Light
from accmpeg.demo.traffic import LANE_M, Actor, populate

__all__ = ["Band", "Building", "LightPlan", "Prop", "Street", "make_street"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """A strip of ground between two x, in metres, of one material."""

    x0_m: float
    x1_m: float
    material: str
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Building:
    """A box with one decorated front: `axis` "x" fronts the street, "y" closes the far end."""

    axis: str
    at_m: float
    start_m: float
    end_m: float
    height_m: float
    colour: tuple[float, float, float]
    shops: bool
    seed: int


@dataclass(frozen=True)
class Prop:
    """Street furniture and plants, which may hide what passes behind them."""

    kind: str
    x_m: float
    y_m: float
    size: float
    seed: int


@dataclass(frozen=True)
class LightPlan:
    """How sun and exposure change: clouds pass with `period_s`."""

    base: Light
    lowest: float
    period_s: float
    phase_rad: float
    flicker: float
    dusk: bool
    noise: float
    blur: bool

    def sunniness(self, time_s: float) -> float:
        wave = 0.5 + 0.9 * np.sin(2 * np.pi * time_s / self.period_s + self.phase_rad)
        share = float(np.clip(wave, 0.0, 1.0))
        return self.lowest + (self.base.sunniness - self.lowest) * share * share * (3 - 2 * share)

    def exposure(self, time_s: float) -> float:
        turn = 2 * np.pi * time_s
        return self.base.exposure * (1 + self.flicker * float(np.sin(turn / 5.3 + self.phase_rad)))


@dataclass
class Street:
    """Everything that a seed decides."""

    camera: Camera
    motion: CameraMotion
    light: LightPlan
    bands: list[Band]
    lane_marks_m: list[tuple[float, bool]]
    kerbs_m: list[float]
    zebra_m: float | None
    junction_m: float
    end_m: float
    road_half_m: float
    sky: tuple[FloatArray, FloatArray]
    leaf: tuple[float, float, float]
    buildings: list[Building] = field(default_factory=list)
    props: list[Prop] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)


WALLS = (
    (105, 140, 185), (150, 185, 205), (180, 195, 205), (90, 105, 150), (120, 130, 135), (75, 90, 120),
    (200, 210, 215), (130, 165, 190), (160, 150, 140), (90, 120, 110), (165, 180, 225), (60, 70, 95),
)  # fmt: skip


def make_street(seed: int, width_px: int, height_px: int) -> Street:
    """Draws a whole street from one seed; sizes in frame pixels scale the camera with the frame."""
    rng = np.random.default_rng(seed)
    lanes = int(rng.choice([2, 2, 3, 4]))
    half = lanes * LANE_M / 2
    parking = [bool(rng.uniform() < 0.5), bool(rng.uniform() < 0.5)]
    walk_m = [float(rng.uniform(3.0, 5.5)), float(rng.uniform(3.0, 5.5))]
    green_m = [float(rng.uniform(5, 14)) if rng.uniform() < 0.35 else 0.0 for _ in range(2)]
    view = str(rng.choice(["along", "oblique", "across"], p=[0.45, 0.3, 0.25]))
    side = float(rng.choice([-1.0, 1.0]))
    scale = width_px / 1280
    focal = float(rng.uniform(880, 1250)) * scale
    height = float(rng.uniform(3.2, 7.5))
    kerb = [half + (2.3 if parking[i] else 0.0) for i in range(2)]
    if view == "along":
        camera_x = float(rng.uniform(-0.9, 0.9)) * (half + 2.5)
        yaw = float(rng.uniform(-0.1, 0.2)) * -np.sign(camera_x or 1.0)
        height = max(height, 4.6) if abs(camera_x) < half else height
        horizon = float(rng.uniform(0.2, 0.36))
    else:
        back = float(rng.uniform(1.5, 5.0) if view == "oblique" else rng.uniform(5.0, 11.0))
        camera_x = -side * (half + 2.3 + back)
        yaw = side * float(rng.uniform(0.35, 0.8) if view == "oblique" else rng.uniform(1.15, 1.6))
        horizon = float(rng.uniform(0.16, 0.32))
    canvas = int(width_px * 1.4) // 2 * 2, int(height_px * 1.25) // 2 * 2
    pitch = float(np.arctan((0.5 - horizon) * height_px / focal))
    camera = Camera(camera_x, height, yaw, pitch, focal, *canvas)
    moving = float(rng.choice([0.0, 0.35, 1.0], p=[0.25, 0.35, 0.4]))
    motion = CameraMotion(
        width_px, height_px, *canvas,
        pan_px=(moving * float(rng.uniform(60, 180)) * scale, moving * float(rng.uniform(5, 32)) * scale),
        pan_period_s=float(rng.uniform(9, 24)), shake_px=float(rng.choice([0.0, 0.4, 1.6])) * scale,
        roll_rad=moving * float(rng.uniform(0, 0.007)), zoom=moving * float(rng.uniform(0, 0.045)),
        phase_rad=float(rng.uniform(0, 6.28)),
    )  # fmt: skip
    junction = float(rng.uniform(48, 82))
    light, sky = _make_light(rng)
    grey = float(rng.uniform(78, 132))
    tint = rng.uniform(-6, 6, 3)
    asphalt = tuple(float(c) for c in grey + tint)
    paving = tuple(float(c) for c in rng.uniform(120, 190) + rng.uniform(-16, 16, 3) + (-8, 0, 8))
    stone = str(rng.choice(["slabs", "cobbles"], p=[0.7, 0.3]))
    grass = tuple(
        float(c) for c in np.array([52, 112, 92]) * rng.uniform(0.8, 1.25) + rng.uniform(-10, 10, 3)
    )
    leaf = tuple(float(c) for c in np.array([45, 105, 75]) * rng.uniform(0.7, 1.3) + rng.uniform(-12, 24, 3))
    bands = [Band(-half, half, "asphalt", asphalt)]  # type: ignore[arg-type]
    fronts = []
    for i, sign in enumerate((-1.0, 1.0)):
        edges = [half, kerb[i], kerb[i] + walk_m[i], kerb[i] + walk_m[i] + green_m[i], 400.0]
        lane = tuple(c * 0.92 for c in asphalt)
        kinds = [("asphalt", lane), (stone, paving), ("grass", grass), (stone, paving)]
        for start, end, (material, colour) in zip(edges[:-1], edges[1:], kinds, strict=True):
            if end > start:
                low, high = sorted((sign * start, sign * end))
                bands.append(Band(low, high, material, colour))  # type: ignore[arg-type]
        fronts.append(sign * edges[3])
    marks = [
        (-half + i * LANE_M, i not in (0, lanes // 2 if lanes % 2 == 0 else -1, lanes))
        for i in range(lanes + 1)
    ]
    street = Street(
        camera, motion, light, bands, marks, [-kerb[0], kerb[1]],
        float(rng.uniform(12, 30)) if rng.uniform() < 0.5 else None, junction, junction + 13.0, half, sky,
        leaf,  # type: ignore[arg-type]
    )  # fmt: skip
    _add_buildings(rng, street, fronts, view)
    _add_props(rng, street, kerb, walk_m, green_m, view)
    street.actors = populate(rng, street, lanes, parking, kerb, walk_m, fronts)
    return street


def _make_light(rng: np.random.Generator) -> tuple[LightPlan, tuple[FloatArray, FloatArray]]:
    kind = str(rng.choice(["sun", "changing", "overcast", "golden", "dusk"], p=[0.24, 0.3, 0.16, 0.16, 0.14]))
    azimuth = float(rng.uniform(0, 2 * np.pi))
    height = float(rng.uniform(0.2, 0.35) if kind == "golden" else rng.uniform(0.55, 1.15))
    sun_direction = np.array(
        [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
    )
    sky = np.array([0.66, 0.63, 0.6]) * rng.uniform(0.86, 1.12)
    sun = np.array([0.56, 0.64, 0.7]) * rng.uniform(0.85, 1.15)
    top, low = np.array([205.0, 150.0, 95.0]), np.array([235.0, 222.0, 205.0])
    sunniness, lowest = {"sun": (1.0, 0.8), "changing": (1.0, 0.0), "overcast": (0.1, 0.0)}.get(
        kind, (1.0, 0.6)
    )
    if kind == "golden":
        sky, sun = sky * (0.86, 0.8, 0.8), sun * (0.55, 0.85, 1.15)
        top, low = np.array([190.0, 160.0, 130.0]), np.array([150.0, 195.0, 235.0])
    if kind == "dusk":
        sky, sunniness, lowest = sky * np.array([0.72, 0.58, 0.55]), 0.06, 0.0
        top, low = np.array([120.0, 80.0, 60.0]), np.array([140.0, 130.0, 165.0])
    if kind == "overcast":
        sky = sky * 1.25
        top, low = np.array([200.0, 195.0, 190.0]), np.array([225.0, 222.0, 220.0])
    light = Light(
        sun_direction, sun, sky, sunniness, 1.0, haze=low * (0.55 if kind == "dusk" else 0.85),
        haze_m=float(rng.uniform(260, 900)),
    )  # fmt: skip
    noise = float(rng.uniform(2.4, 3.8) if kind == "dusk" else rng.uniform(1.2, 2.8))
    plan = LightPlan(
        light, lowest, float(rng.uniform(7, 16)), float(rng.uniform(0, 6.28)), float(rng.uniform(0, 0.035)),
        kind == "dusk", noise, bool(rng.uniform() < 0.6),
    )  # fmt: skip
    return plan, (top, low)


def _add_buildings(rng: np.random.Generator, street: Street, fronts: list[float], view: str) -> None:
    def wall() -> tuple[float, float, float]:
        base = np.array(WALLS[int(rng.integers(len(WALLS)))]) * rng.uniform(0.8, 1.1) + rng.uniform(
            -10, 10, 3
        )
        blue, green, red = np.clip(base, 30, 225).tolist()
        return blue, green, red

    tall = float(rng.uniform(9, 20))
    for front in fronts:
        if view != "along" and np.sign(front) == np.sign(street.camera.x_m):
            continue
        y = -26.0 if view == "across" else -4.0
        while y < street.junction_m - 1:
            width = float(min(rng.uniform(9, 20), street.junction_m - y))
            height = tall * float(rng.uniform(0.65, 1.4))
            shops = bool(rng.uniform() < 0.45)
            street.buildings.append(
                Building("x", front, y, y + width, height, wall(), shops, int(rng.integers(1 << 31)))
            )
            y += width
    x = -70.0
    while x < 70.0:
        width = float(rng.uniform(10, 24))
        height = tall * float(rng.uniform(0.6, 1.5))
        shops = bool(rng.uniform() < 0.3)
        street.buildings.append(
            Building("y", street.end_m, x, x + width, height, wall(), shops, int(rng.integers(1 << 31)))
        )
        x += width


def _add_props(
    rng: np.random.Generator,
    street: Street,
    kerb: list[float],
    walk_m: list[float],
    green_m: list[float],
    view: str,
) -> None:
    first_m = -20.0 if view == "across" else 9.0
    for i, sign in enumerate((-1.0, 1.0)):
        kinds = [
            str(kind) for kind in rng.permutation(["tree", "lamp", "bollard", "sign", "bin", "bench"])[:4]
        ]
        spacing = float(rng.uniform(7, 13))
        for y in np.arange(first_m + rng.uniform(0, 6), street.junction_m - 3, spacing):
            kind = kinds[int(rng.integers(len(kinds)))]
            x = sign * (kerb[i] + (0.6 if kind != "bench" else walk_m[i] - 0.6))
            street.props.append(
                Prop(kind, x, float(y), float(rng.uniform(0.8, 1.25)), int(rng.integers(1 << 31)))
            )
        if green_m[i] > 0:
            for y in np.arange(first_m, street.junction_m - 4, 4.5):
                kind = str(rng.choice(["tree", "bush", "bush", "none"]))
                if kind != "none":
                    x = sign * (kerb[i] + walk_m[i] + float(rng.uniform(1.5, green_m[i] - 0.8)))
                    at = float(y + rng.uniform(-1.5, 1.5))
                    street.props.append(
                        Prop(kind, x, at, float(rng.uniform(0.7, 1.4)), int(rng.integers(1 << 31)))
                    )
    # Nothing stands right in front of the lens.
    axis = street.camera.axes[2]
    eye = street.camera.position
    street.props = [p for p in street.props if (np.array([p.x_m, p.y_m, 1.5]) - eye) @ axis > 8.0]
    street.props.sort(key=lambda p: -float((np.array([p.x_m, p.y_m, 0.0]) - eye) @ axis))
