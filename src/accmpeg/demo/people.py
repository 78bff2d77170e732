"""People on foot and on two wheels: jointed figures whose limbs are drawn as tapered bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.camera import Camera
from accmpeg.demo.mesh import SHIFT, Light, Polygon

__all__ = ["Figure", "Pedestrian", "Rider", "make_pedestrian", "make_rider"]

FloatArray = NDArray[np.float64]

SKINS = ((150, 185, 232), (120, 160, 215), (90, 125, 180), (55, 80, 125), (38, 52, 82))
HAIRS = ((22, 24, 28), (35, 48, 70), (60, 95, 135), (110, 165, 205), (125, 125, 128), (30, 45, 110))
CLOTHES = (
    (40, 40, 44), (235, 235, 238), (125, 70, 35), (50, 45, 180), (70, 110, 55), (160, 160, 162),
    (40, 165, 215), (95, 75, 120), (165, 125, 75), (70, 90, 120), (200, 175, 150), (105, 60, 160),
    (30, 95, 200), (80, 130, 165), (90, 60, 45),
)  # fmt: skip
TROUSERS = (
    (95, 65, 45),
    (48, 42, 40),
    (70, 70, 72),
    (70, 95, 125),
    (120, 145, 165),
    (30, 30, 34),
    (135, 110, 90),
)
SHOES = ((30, 30, 34), (225, 225, 228), (45, 60, 90))


def _pick(rng: np.random.Generator, colours: Sequence[tuple[int, int, int]]) -> FloatArray:
    base = np.array(colours[int(rng.integers(len(colours)))], dtype=np.float64)
    return np.clip(base * rng.uniform(0.85, 1.15) + rng.uniform(-8, 8, 3), 8, 246)


# The ten corners of a bar: which end each belongs to, and how many radii across and along the bar it lies.
_END = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
_ACROSS = np.array([1.0, 0.6, 0.0, -0.6, -1.0, -1.0, -0.6, 0.0, 0.6, 1.0])[:, None]
_ALONG = np.array([0.0, -0.6, -0.8, -0.6, 0.0, 0.0, 0.6, 0.8, 0.6, 0.0])[:, None]


@dataclass(frozen=True)
class Bar:
    """A limb between two joints.

    `side` and `front` say where it lies on the body (right and front are positive), which orders the drawing;
    `flat` bars are narrower seen from the side.
    """

    joints: tuple[int, int]
    radii_m: tuple[float, float]
    colour: FloatArray
    side: float = 0.0
    front: float = 0.0
    flat: bool = False
    min_px_per_m: float = 0.0


def _oval(count: int) -> FloatArray:
    angle = np.arange(count) * 2 * np.pi / count
    return np.stack([0.86 * np.cos(angle), 1.15 * np.sin(angle)], axis=1)


_RING, _SMALL_RING = _oval(14), _oval(8)


class Figure:
    """Joints turned into bars and a head; subclasses say where the joints are."""

    def __init__(
        self, bars: list[Bar], head_radius_m: float, skin: FloatArray, hair: FloatArray, hat: bool
    ) -> None:
        self._bars = bars
        self._head_radius_m = head_radius_m
        self._head_colours = np.stack([skin, hair])
        self._hat = hat
        self._ends = np.array([bar.joints for bar in bars])
        self._radii_m = np.array([bar.radii_m for bar in bars])
        self._colours = np.stack([bar.colour for bar in bars])
        self._sides = np.array([bar.side for bar in bars])
        self._fronts = np.array([bar.front for bar in bars])
        self._flat = np.array([bar.flat for bar in bars])
        self._min_px_per_m = np.array([bar.min_px_per_m for bar in bars])

    def joints(self, phase_rad: float) -> FloatArray:
        """Joints `(n, 3)` in the figure's axes (x right, y forward, z up), metres; the last is the head."""
        raise NotImplementedError

    def placed(self, x_m: float, y_m: float, heading_rad: float, phase_rad: float) -> FloatArray:
        """World positions of all joints, `(n, 3)`; heading 0 looks along +y, positive turns towards +x."""
        local = self.joints(phase_rad)
        cos, sin = np.cos(heading_rad), np.sin(heading_rad)
        x, y = local[:, 0], local[:, 1]
        return np.stack([x_m + cos * x + sin * y, y_m - sin * x + cos * y, local[:, 2]], axis=1)

    def polygons(
        self,
        points: FloatArray,
        px_per_m: float,
        depth_m: float,
        at: tuple[float, float, float],
        camera: Camera,
        light: Light | None,
    ) -> list[Polygon]:
        """Limbs far to near, then the head, from the joints' frame positions; black without a `light`."""
        relative = at[2] - float(np.arctan2(at[0] - camera.x_m, at[1]))
        near_right, away = -float(np.sin(relative)), float(np.cos(relative))
        shown = np.flatnonzero(self._min_px_per_m <= px_per_m)
        shown = shown[np.argsort(self._sides[shown] * near_right - self._fronts[shown] * away, kind="stable")]
        narrow = np.where(self._flat[shown], 0.62 + 0.38 * abs(away), 1.0)
        # A bar thinner than a pixel would flicker.
        radii = np.maximum(self._radii_m[shown] * (narrow * px_per_m)[:, None], 0.45)
        ends = points[self._ends[shown]]
        along = ends[:, 1] - ends[:, 0]
        unit = along / np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-6)
        across = unit[:, ::-1] * (-1.0, 1.0)
        reach = radii[:, _END, None]
        corners = ends[:, _END] + reach * (_ACROSS * across[:, None] + _ALONG * unit[:, None])
        fixed = np.round(corners * (1 << SHIFT)).astype(np.int32)
        colours, head_colours, sun_right = self._colours[shown], self._head_colours, 0.0
        if light is not None:
            both = _upright(light, np.concatenate([colours, head_colours]), depth_m)
            colours, head_colours = both[:-2], both[-2:]
            sun_right = light.sunniness * float(light.sun_direction @ camera.axes[0])
        halves = light is not None and px_per_m > 16
        polygons: list[Polygon] = []
        for i, (blue, green, red) in enumerate(colours.tolist()):
            polygons.append((fixed[i], (blue, green, red)))
            if halves and radii[i, 0] > 1.5:
                # The half that the sun does not reach.
                shaded = [0, 1, 2, 7, 8, 9] if (across[i, 0] > 0) == (sun_right < 0) else [2, 3, 4, 5, 6, 7]
                tone = 0.82 - 0.2 * abs(sun_right)
                polygons.append((fixed[i][shaded], (blue * tone, green * tone, red * tone)))
        self._head(polygons, points[-1], px_per_m, head_colours, away, near_right)
        return polygons

    def _head(
        self,
        polygons: list[Polygon],
        at: FloatArray,
        px_per_m: float,
        colours: FloatArray,
        away: float,
        near_right: float,
    ) -> None:
        skin, hair = colours
        radius = max(0.8, self._head_radius_m * px_per_m)
        ring = (_SMALL_RING if radius < 4 else _RING) * radius

        def add(points: FloatArray, colour: FloatArray) -> None:
            blue, green, red = colour.tolist()
            polygons.append((np.round((at + points) * (1 << SHIFT)).astype(np.int32), (blue, green, red)))

        add(ring, hair)
        # Only a sliver of the face is left as the figure turns away.
        facing = float(np.clip(0.6 - 0.7 * away, 0.0, 1.0))
        if facing > 0.15 and radius > 1.5:
            add(
                ring * (0.3 + 0.6 * facing, 0.78)
                + (-0.3 * near_right * radius * (1 - facing), 0.24 * radius),
                skin,
            )
        if self._hat:
            add(np.array([(-1.15, -0.3), (1.15, -0.3), (0.85, -1.3), (-0.85, -1.3)]) * radius, hair * 0.7)


def _upright(light: Light, colours: FloatArray, depth_m: float) -> FloatArray:
    lit = colours * (light.sky * 0.92 + 0.5 * light.sunniness * light.sun) * light.exposure
    return np.clip(light.fade(lit, depth_m), 0, 255)


class Pedestrian(Figure):
    """Someone who walks, or stands where `stride` is zero."""

    HIP_L, HIP_R, KNEE_L, KNEE_R, ANKLE_L, ANKLE_R, TOE_L, TOE_R = range(8)
    PELVIS, CHEST, SHOULDER_L, SHOULDER_R, ELBOW_L, ELBOW_R, HAND_L, HAND_R, HEM = range(8, 17)
    PACK_LOW, PACK_HIGH, BAG, HEAD = range(17, 21)
    LEFT = HIP_L, KNEE_L, ANKLE_L, TOE_L, SHOULDER_L, ELBOW_L, HAND_L
    """Each is followed by its right twin."""

    def __init__(self, bars: list[Bar], size: float, stride: float, raised: float, **head: object) -> None:
        super().__init__(bars, **head)  # type: ignore[arg-type]
        self.size = size
        self.stride = stride
        self._raised = raised

    def joints(self, phase_rad: float) -> FloatArray:
        at = np.zeros((21, 3))
        bob = 0.02 * self.stride * np.cos(2 * phase_rad)
        for side, offset in ((-1, 0.0), (1, np.pi)):
            left = side < 0
            swing = 0.52 * self.stride * np.sin(phase_rad + offset)
            bend = 0.08 + 0.75 * self.stride * max(0.0, float(np.cos(phase_rad + offset)))
            hip = np.array([0.09 * side, 0.0, 0.9 + bob])
            knee = hip + 0.45 * np.array([0.0, np.sin(swing), -np.cos(swing)])
            ankle = knee + 0.42 * np.array([0.0, np.sin(swing - bend), -np.cos(swing - bend)])
            toe = ankle + 0.17 * np.array([0.15 * side, np.cos(swing - bend), -0.25])
            arm = -0.45 * self.stride * np.sin(phase_rad + offset)
            elbow_bend = 0.25 + (0.3 * self.stride if left else 0.3 * self.stride + self._raised)
            shoulder = np.array([0.19 * side, 0.0, 1.42 + bob])
            elbow = shoulder + 0.29 * np.array([0.12 * side, np.sin(arm), -np.cos(arm)])
            hand = elbow + 0.27 * np.array([-0.1 * side, np.sin(arm + elbow_bend), -np.cos(arm + elbow_bend)])
            for number, joint in zip(self.LEFT, (hip, knee, ankle, toe, shoulder, elbow, hand), strict=True):
                at[number if left else number + 1] = joint
        at[self.PELVIS] = (0, 0, 0.93 + bob)
        at[self.CHEST] = (0, 0.01, 1.38 + bob)
        at[self.HEM] = (0, 0.04 * self.stride * np.sin(2 * phase_rad), 0.55)
        at[self.PACK_LOW], at[self.PACK_HIGH] = (0, -0.2, 1.08 + bob), (0, -0.19, 1.36 + bob)
        at[self.BAG] = at[self.HAND_R] + (0.02, 0, -0.3)
        at[self.HEAD] = (0, 0.03, 1.62 + bob)
        return np.asarray(at * self.size)


def make_pedestrian(rng: np.random.Generator, standing: bool) -> Pedestrian:
    """Someone of random size, build, clothes and luggage."""
    p = Pedestrian
    child = rng.uniform() < 0.15
    size = float(rng.uniform(0.62, 0.8) if child else rng.uniform(0.93, 1.1))
    build = float(rng.uniform(0.85, 1.3))
    skin, hair, top, legs = _pick(rng, SKINS), _pick(rng, HAIRS), _pick(rng, CLOTHES), _pick(rng, TROUSERS)
    shoes = _pick(rng, SHOES)
    dress = rng.uniform() < 0.25
    coat = not dress and rng.uniform() < 0.3
    shorts = rng.uniform() < 0.25
    sleeves = skin if rng.uniform() < 0.35 else top * 0.9
    skirt = top if rng.uniform() < 0.6 else legs
    bars: list[Bar] = []
    for side, hip, knee, ankle, toe, shoulder, elbow, hand in (
        (-1.0, p.HIP_L, p.KNEE_L, p.ANKLE_L, p.TOE_L, p.SHOULDER_L, p.ELBOW_L, p.HAND_L),
        (1.0, p.HIP_R, p.KNEE_R, p.ANKLE_R, p.TOE_R, p.SHOULDER_R, p.ELBOW_R, p.HAND_R),
    ):
        shin = skin if shorts or dress else legs
        bars += [
            Bar((ankle, toe), (0.05 * size, 0.04 * size), shoes, side * 1.2),
            Bar((hip, knee), (0.095 * size * build, 0.07 * size), skin if dress else legs, side),
            Bar((knee, ankle), (0.065 * size, 0.05 * size), shin, side),
            Bar((shoulder, elbow), (0.062 * size * build, 0.052 * size), top * 0.92, side * 2),
            Bar((elbow, hand), (0.05 * size, 0.042 * size), sleeves, side * 2),
            Bar((hand, hand), (0.055 * size, 0.055 * size), skin, side * 2.1, min_px_per_m=18),
        ]
    width = 0.185 * size * build
    bars.append(Bar((p.PELVIS, p.CHEST), (width * 0.9, width), top, flat=True))
    if dress:
        bars.append(Bar((p.PELVIS, p.HEM), (width * 0.85, width * 1.35), skirt, front=0.01))
    elif coat:
        bars.append(Bar((p.PELVIS, p.HEM), (width * 0.95, width * 1.05), top, front=0.01))
    else:
        bars.append(Bar((p.PELVIS, p.PELVIS), (width * 0.86, width * 0.86), legs, front=-0.01, flat=True))
    if rng.uniform() < 0.3:
        stripe = _pick(rng, CLOTHES)
        bars.append(Bar((p.CHEST, p.CHEST), (width * 0.8, width * 0.8), stripe, front=0.9, min_px_per_m=16))
    if rng.uniform() < 0.3:
        bars.append(
            Bar(
                (p.PACK_LOW, p.PACK_HIGH),
                (0.17 * size, 0.15 * size),
                _pick(rng, CLOTHES),
                front=-1.5,
                flat=True,
            )
        )
    if rng.uniform() < 0.3:
        bars.append(Bar((p.BAG, p.BAG), (0.13 * size, 0.13 * size), _pick(rng, CLOTHES), 2.5))
    head = {"head_radius_m": 0.125 * size**0.5, "skin": skin, "hair": hair, "hat": bool(rng.uniform() < 0.2)}
    raised = 1.9 if standing and rng.uniform() < 0.5 else 0.0
    return Pedestrian(bars, size, 0.0 if standing else 1.0, raised, **head)


RIM_STEPS = 12


class Rider(Figure):
    """Someone on a bicycle, or on a scooter or motorcycle where `pedals` is false."""

    RIM = 0
    HUB_REAR, HUB_FRONT, CRANK, SADDLE, STEER_LOW, STEER_HIGH = range(2 * RIM_STEPS, 2 * RIM_STEPS + 6)
    HIP, SHOULDER, HAND_L, HAND_R, ELBOW_L, ELBOW_R = range(2 * RIM_STEPS + 6, 2 * RIM_STEPS + 12)
    KNEE_L, KNEE_R, FOOT_L, FOOT_R, HIP_L, HIP_R, HEAD = range(2 * RIM_STEPS + 12, 2 * RIM_STEPS + 19)

    def __init__(self, bars: list[Bar], pedals: bool, wheel_m: float, lean_m: float, **head: object) -> None:
        super().__init__(bars, **head)  # type: ignore[arg-type]
        self.pedals = pedals
        self._wheel_m = wheel_m
        self._lean_m = lean_m

    def joints(self, phase_rad: float) -> FloatArray:
        at = np.zeros((2 * RIM_STEPS + 19, 3))
        radius = self._wheel_m
        reach = 0.52 if self.pedals else 0.62
        angle = np.arange(RIM_STEPS) * 2 * np.pi / RIM_STEPS
        for start, hub in ((0, -reach), (RIM_STEPS, reach)):
            at[start : start + RIM_STEPS, 1] = hub + radius * np.sin(angle)
            at[start : start + RIM_STEPS, 2] = radius + radius * np.cos(angle)
        saddle_z = 0.92 if self.pedals else 0.78
        at[self.HUB_REAR], at[self.HUB_FRONT] = (0, -reach, radius), (0, reach, radius)
        at[self.CRANK], at[self.SADDLE] = (0, -0.05, 0.3), (0, -0.24, saddle_z)
        at[self.STEER_LOW], at[self.STEER_HIGH] = (0, 0.4, 0.75), (0, 0.34, 1.02)
        hip = np.array([0.0, -0.2, saddle_z + 0.06])
        shoulder = hip + np.array([0.0, self._lean_m, 0.5])
        at[self.HIP], at[self.SHOULDER] = hip, shoulder
        at[self.HEAD] = shoulder + np.array([0.0, 0.1, 0.24])
        for side, offset, hip_n, knee_n, foot_n, elbow_n, hand_n in (
            (-1, 0.0, self.HIP_L, self.KNEE_L, self.FOOT_L, self.ELBOW_L, self.HAND_L),
            (1, np.pi, self.HIP_R, self.KNEE_R, self.FOOT_R, self.ELBOW_R, self.HAND_R),
        ):
            turn = phase_rad + offset if self.pedals else 1.3
            foot = np.array([0.1 * side, -0.05 + 0.17 * np.sin(turn), 0.3 + 0.17 * np.cos(turn)])
            seat = hip + np.array([0.1 * side, 0.0, 0.0])
            # The knee lies ahead of the line from hip to foot, as far as thigh and shin are longer.
            line = foot - seat
            slack = np.sqrt(max(0.02, 0.44**2 - float(line @ line) / 4))
            ahead = np.array([0.0, -line[2], line[1]]) / max(float(np.hypot(line[1], line[2])), 1e-6)
            knee = (seat + foot) / 2 + ahead * slack + (0.03 * side, 0, 0)
            hand = np.array([0.24 * side, 0.36, 1.05])
            elbow = (shoulder + hand) / 2 + (0.2 * side, -0.02, -0.1)
            for number, joint in zip(
                (hip_n, knee_n, foot_n, elbow_n, hand_n), (seat, knee, foot, elbow, hand), strict=True
            ):
                at[number] = joint
        return at


def make_rider(rng: np.random.Generator) -> Rider:
    """A cyclist, or a rider of a scooter or motorcycle, with random colours."""
    r = Rider
    pedals = bool(rng.uniform() < 0.62)
    skin, top, legs = _pick(rng, SKINS), _pick(rng, CLOTHES), _pick(rng, TROUSERS)
    paint = _pick(rng, CLOTHES)
    helmet = not pedals or rng.uniform() < 0.5
    tyre = np.array([34.0, 34.0, 36.0])
    thick = 0.028 if pedals else 0.075
    bars = [
        Bar((wheel + step, wheel + (step + 1) % RIM_STEPS), (thick, thick), tyre)
        for wheel in (0, RIM_STEPS)
        for step in range(RIM_STEPS)
    ]
    if pedals:
        tubes = (
            (r.HUB_REAR, r.CRANK),
            (r.CRANK, r.SADDLE),
            (r.CRANK, r.STEER_LOW),
            (r.SADDLE, r.STEER_LOW),
            (r.HUB_REAR, r.SADDLE),
            (r.HUB_FRONT, r.STEER_HIGH),
        )
        bars += [Bar(ends, (0.024, 0.024), paint, front=0.001) for ends in tubes]
        bars.append(Bar((r.SADDLE, r.SADDLE), (0.07, 0.07), tyre, front=0.002))
    else:
        metal = np.array([110.0, 110.0, 112.0])
        bars += [
            Bar((r.HUB_REAR, r.HUB_REAR), (0.14, 0.14), metal, min_px_per_m=10),
            Bar((r.HUB_FRONT, r.HUB_FRONT), (0.14, 0.14), metal, min_px_per_m=10),
            Bar((r.HUB_REAR, r.CRANK), (0.1, 0.17), metal * 0.5, front=0.001),
            Bar((r.CRANK, r.STEER_LOW), (0.16, 0.12), paint, front=0.002),
            Bar((r.SADDLE, r.STEER_LOW), (0.13, 0.16), paint, front=0.003),
            Bar((r.HUB_REAR, r.SADDLE), (0.06, 0.16), paint * 0.8, front=0.002),
            Bar((r.HUB_FRONT, r.STEER_HIGH), (0.045, 0.07), metal, front=0.004),
            Bar((r.STEER_HIGH, r.STEER_HIGH), (0.1, 0.1), np.array([215.0, 230.0, 235.0]), front=0.5),
        ]
    bars.append(Bar((r.HAND_L, r.HAND_R), (0.025, 0.025), tyre, front=0.3))
    for side, hip, knee, foot, elbow, hand in (
        (-1.0, r.HIP_L, r.KNEE_L, r.FOOT_L, r.ELBOW_L, r.HAND_L),
        (1.0, r.HIP_R, r.KNEE_R, r.FOOT_R, r.ELBOW_R, r.HAND_R),
    ):
        bars += [
            Bar((hip, knee), (0.095, 0.07), legs, side),
            Bar((knee, foot), (0.065, 0.05), legs, side),
            Bar((foot, foot), (0.07, 0.07), tyre, side * 1.1),
            Bar((r.SHOULDER, elbow), (0.07, 0.055), top * 0.92, side * 2),
            Bar((elbow, hand), (0.05, 0.045), top * 0.92 if rng.uniform() < 0.7 else skin, side * 2),
        ]
    bars.append(Bar((r.HIP, r.SHOULDER), (0.17, 0.19), top, front=0.01, flat=True))
    if rng.uniform() < 0.25:
        bars.append(Bar((r.SADDLE, r.SHOULDER), (0.2, 0.14), _pick(rng, CLOTHES), front=-1.5, flat=True))
    hair = _pick(rng, CLOTHES) if helmet else _pick(rng, HAIRS)
    lean = float(rng.uniform(0.08, 0.35))
    return Rider(
        bars, pedals, 0.34 if pedals else 0.29, lean,
        head_radius_m=0.15 if helmet else 0.125, skin=skin, hair=hair, hat=False,
    )  # fmt: skip
