"""Who moves through a street: paths, and the vehicles, riders and people on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.camera import Camera
from accmpeg.demo.mesh import Mesh
from accmpeg.demo.people import Figure, make_pedestrian, make_rider
from accmpeg.demo.vehicles import CAR_KINDS, LARGE_KINDS, make_vehicle

__all__ = ["LANE_M", "Actor", "Path", "Place", "populate"]

FloatArray = NDArray[np.float64]

PERSON, CAR, LARGE, BIKE = range(4)
LANE_M = 3.3


class _Daylight(Protocol):
    @property
    def dusk(self) -> bool: ...


class Place(Protocol):
    """What traffic needs to know of the street that it moves through; sizes in metres."""

    @property
    def camera(self) -> Camera: ...
    @property
    def light(self) -> _Daylight: ...
    @property
    def junction_m(self) -> float: ...
    @property
    def road_half_m(self) -> float: ...


@dataclass(frozen=True)
class Path:
    """Straight along y, then (where `turn_x` is not zero) round a corner and away along x."""

    x_m: float
    start_m: float
    corner_m: float
    turn_x: float
    radius_m: float
    tail_m: float
    reverse: bool

    @property
    def length_m(self) -> float:
        bend = self.radius_m * np.pi / 2 if self.turn_x else 0.0
        return float(self.corner_m - self.start_m + bend + self.tail_m)

    def pose(self, along_m: float) -> tuple[float, float, float]:
        """x, y and heading after a distance, which wraps round."""
        at = along_m % self.length_m
        if self.reverse:
            at = self.length_m - at
        straight = self.corner_m - self.start_m
        bend = self.radius_m * np.pi / 2
        if at <= straight or not self.turn_x:
            x, y, heading = self.x_m, self.start_m + at, 0.0
        elif at <= straight + bend:
            heading = self.turn_x * (at - straight) / self.radius_m
            x = self.x_m + self.turn_x * self.radius_m * (1 - np.cos(heading))
            y = self.corner_m + self.radius_m * abs(np.sin(heading))
        else:
            heading = self.turn_x * np.pi / 2
            x = self.x_m + self.turn_x * (self.radius_m + at - straight - bend)
            y = self.corner_m + self.radius_m
        return float(x), float(y), float(heading + (np.pi if self.reverse else 0.0))


@dataclass(frozen=True)
class Actor:
    """Something that is labelled. `stroke_per_m` turns metres travelled into its wheels' or legs' phase."""

    body: Mesh | Figure
    class_id: int
    path: Path
    offset_m: float
    speed_mps: float
    surge_m: float
    stroke_per_m: float
    facing_rad: float | None = None
    side_m: float = 0.0

    def pose(self, time_s: float) -> tuple[tuple[float, float, float], float]:
        """(x, y, heading) and phase at one time."""
        travelled = self.speed_mps * time_s + self.surge_m * np.sin(0.35 * time_s)
        x, y, heading = self.path.pose(self.offset_m + travelled)
        if self.facing_rad is not None:
            heading = self.facing_rad
        return (x + self.side_m, y, heading), float((self.offset_m + travelled) * self.stroke_per_m)


def _seen(street: Place, x_m: float, low_m: float, high_m: float) -> tuple[float, float]:
    """The part of a line along y that any frame may show, in metres."""
    y = np.linspace(low_m, high_m, 200)
    at, depth = street.camera.project(np.stack([np.full(200, x_m), y, np.full(200, 1.0)], axis=1))
    width, height = street.camera.canvas_width_px, street.camera.canvas_height_px
    inside = (depth > 1.5) & (at[:, 0] > 0) & (at[:, 0] < width) & (at[:, 1] < height * 1.1)
    if not inside.any():
        return 0.0, 1.0
    return float(y[inside].min()), float(y[inside].max())


def populate(
    rng: np.random.Generator,
    street: Place,
    lanes: int,
    parking: list[bool],
    kerb: list[float],
    walk_m: list[float],
    fronts: list[float],
) -> list[Actor]:
    """Everything that is labelled in one street; two-element lists hold its left and right side."""
    actors: list[Actor] = []
    dusk = street.light.dusk
    corner = street.junction_m + 3 + LANE_M / 2
    large_share = float(rng.uniform(0.15, 0.45))

    def path(x: float, reach: float, radius: float, reverse: bool, margin: float) -> Path:
        """From before the frame's edge to out of sight: out of the frame, or round the far corner."""
        low, high = _seen(street, x, -40.0, corner)
        turn = float(np.sign(x) or 1.0)
        if high < corner - radius - 6:
            return Path(x, low - margin, high + margin, 0.0, radius, 0.0, reverse)
        front = abs(fronts[1] if turn > 0 else fronts[0])
        tail = max(1.0, front - abs(x) + 14)
        return Path(x, low - margin, reach - radius, turn, radius, tail, reverse)

    def fill(way: Path, count: int, gap_m: float) -> FloatArray:
        """Places along a path that keep their distance."""
        count = max(0, min(count, int(way.length_m / gap_m)))
        slack = way.length_m - count * gap_m
        return np.sort(rng.uniform(0, 1, count)) * slack + np.arange(count) * gap_m

    def vehicle() -> tuple[Mesh, float, int]:
        large = rng.uniform() < large_share
        kind = str(rng.choice(LARGE_KINDS if large else CAR_KINDS))
        mesh, length = make_vehicle(rng, kind, dusk)
        return mesh, length, LARGE if large else CAR

    slow = float(rng.choice([0.25, 1.0], p=[0.25, 0.75]))
    left_hand = bool(rng.uniform() < 0.3)
    per_lane = float(rng.uniform(2.2, 5.0)) * 2.6 / (lanes + 0.6)
    for lane in range(lanes):
        x = -street.road_half_m + (lane + 0.5) * LANE_M
        reverse = (x < 0) != left_hand if abs(x) > 0.1 else bool(rng.uniform() < 0.5)
        way = path(x, corner, 4.5, reverse, 9.0)
        speed = slow * float(rng.uniform(5, 11))
        surge = float(rng.uniform(0, 3)) * slow
        for at in fill(way, int(per_lane + rng.uniform()), 13.5):
            if rng.uniform() < 0.16:
                rider = make_rider(rng)
                actors.append(
                    Actor(rider, BIKE, way, at, speed, surge, 1.6, None, float(rng.uniform(-0.8, 0.8)))
                )
                continue
            mesh, _, class_id = vehicle()
            actors.append(
                Actor(mesh, class_id, way, at, speed, surge, 3.0, None, float(rng.uniform(-0.2, 0.2)))
            )
    for i, sign in enumerate((-1.0, 1.0)):
        if parking[i]:
            x = sign * (street.road_half_m + 1.1)
            low, high = _seen(street, x, -40.0, street.junction_m - 6)
            for y in np.arange(low, high, 6.2):
                if rng.uniform() < 0.45:
                    kind = str(rng.choice([*CAR_KINDS, "van"]))
                    mesh, _ = make_vehicle(rng, kind, False)
                    heading = 0.0 if rng.uniform() < 0.5 else np.pi
                    still = Path(x, float(y), float(y) + 1, 0.0, 1.0, 0.0, False)
                    class_id = LARGE if kind == "van" else CAR
                    actors.append(Actor(mesh, class_id, still, 0.0, 0.0, 0.0, 0.0, heading))
        actors += _walkers(rng, street, sign, kerb[i], walk_m[i], path)
    return actors


def _walkers(
    rng: np.random.Generator,
    street: Place,
    sign: float,
    kerb_m: float,
    walk_m: float,
    path: Callable[[float, float, float, bool, float], Path],
) -> list[Actor]:
    """People on one pavement, and riders at its kerb."""
    actors: list[Actor] = []
    count = int(rng.integers(3, 11))
    for _ in range(count):
        x = sign * (kerb_m + float(rng.uniform(1.0, walk_m - 0.5)))
        way = path(x, street.junction_m + 1.6, 1.0, bool(rng.uniform() < 0.5), 2.0)
        at = float(rng.uniform(0, way.length_m))
        if rng.uniform() < 0.22:
            heading = float(rng.uniform(0, 2 * np.pi))
            figure = make_pedestrian(rng, standing=True)
            still = Path(x, way.start_m, street.junction_m - 2, 0.0, 1.0, 0.0, False)
            actors.append(Actor(figure, PERSON, still, at % still.length_m, 0.0, 0.0, 0.0, heading))
            continue
        walker = make_pedestrian(rng, standing=False)
        speed = float(rng.uniform(0.9, 1.9))
        actors.append(Actor(walker, PERSON, way, at, speed, 0.0, 4.2 / walker.size))
        if rng.uniform() < 0.3:
            friend = make_pedestrian(rng, standing=False)
            aside = float(rng.choice([-0.65, 0.65]))
            actors.append(Actor(friend, PERSON, way, at + 0.2, speed, 0.0, 4.2 / walker.size, None, aside))
    for _ in range(int(rng.integers(0, 3))):
        x = sign * (street.road_half_m - 0.45) if rng.uniform() < 0.6 else sign * (kerb_m + 0.9)
        way = path(x, street.junction_m + 3.5, 2.0, bool(rng.uniform() < 0.5), 3.0)
        at = float(rng.uniform(0, way.length_m))
        actors.append(Actor(make_rider(rng), BIKE, way, at, float(rng.uniform(3.0, 6.5)), 0.0, 1.6))
    return actors
