"""Vehicles as meshes: saloons, hatchbacks, estates, off-roaders, taxis, vans, lorries, buses and coaches."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.mesh import Mesh, MeshBuilder, inset

__all__ = ["CAR_KINDS", "LARGE_KINDS", "make_vehicle"]

CAR_KINDS = ("saloon", "hatchback", "estate", "off-roader", "mini", "taxi")
LARGE_KINDS = ("van", "lorry", "tipper", "bus", "coach")

FloatArray = NDArray[np.float64]

GLASS = (64.0, 54.0, 46.0)
SKY_IN_GLASS = (150.0, 132.0, 112.0)
TRIM = (34.0, 33.0, 32.0)
PAINTS = (
    (235, 236, 238), (190, 190, 188), (128, 128, 126), (62, 62, 64), (30, 29, 30), (40, 38, 165),
    (150, 70, 30), (95, 45, 25), (60, 85, 40), (90, 130, 165), (35, 150, 215), (175, 150, 95), (70, 50, 95),
    (205, 215, 225), (45, 95, 190),
)  # fmt: skip


def make_vehicle(rng: np.random.Generator, kind: str, lights_on: bool) -> tuple[Mesh, float]:
    """One vehicle of a kind in random colours and proportions, and its length in metres."""
    if kind in ("bus", "coach"):
        return _bus(rng, kind, lights_on)
    if kind in ("lorry", "tipper"):
        return _lorry(rng, kind, lights_on)
    return _car(rng, kind, lights_on)


def _paint(rng: np.random.Generator) -> list[float]:
    base = np.array(PAINTS[int(rng.integers(len(PAINTS)))], dtype=np.float64)
    paint = np.clip(base * rng.uniform(0.85, 1.12) + rng.uniform(-8, 8, 3), 12, 245)
    return [float(channel) for channel in paint]


def _glass(build: MeshBuilder, corners: FloatArray, u: tuple[float, float], v: tuple[float, float]) -> None:
    """A pane with the sky mirrored in its upper part."""
    build.face(inset(corners, u, v), GLASS)
    split = v[0] + 0.62 * (v[1] - v[0])
    build.face(inset(corners, u, (split, v[1])), SKY_IN_GLASS, min_px_per_m=14)


def _lamps(
    build: MeshBuilder, corners: FloatArray, height: tuple[float, float], rear: bool, lights_on: bool
) -> None:
    """Two lamps and a number plate on an end face; its corners run round from left low by right low."""
    if rear:
        colour: Sequence[float] = (40, 40, 245) if lights_on else (34, 30, 170)
    else:
        colour = (225, 250, 255) if lights_on else (215, 220, 222)
    for u in ((0.03, 0.2), (0.8, 0.97)):
        build.face(inset(corners, u, height), colour, glows=lights_on, min_px_per_m=9)
    build.face(inset(corners, (0.36, 0.64), (0.12, 0.3)), (205, 222, 225), min_px_per_m=20)


def _car(rng: np.random.Generator, kind: str, lights_on: bool) -> tuple[Mesh, float]:
    length, width, height, belt, hood, tail, clearance = {
        "saloon": (4.6, 1.8, 1.44, 0.92, 0.30, 0.15, 0.2),
        "taxi": (4.7, 1.82, 1.5, 0.94, 0.29, 0.13, 0.2),
        "hatchback": (4.1, 1.76, 1.48, 0.94, 0.27, 0.02, 0.2),
        "estate": (4.7, 1.82, 1.5, 0.94, 0.29, 0.02, 0.2),
        "off-roader": (4.6, 1.92, 1.76, 1.1, 0.26, 0.02, 0.3),
        "mini": (3.5, 1.62, 1.5, 0.92, 0.2, 0.03, 0.18),
        "van": (5.6, 2.05, 2.45, 1.25, 0.17, 0.0, 0.3),
    }[kind]
    length *= rng.uniform(0.95, 1.06)
    height *= rng.uniform(0.97, 1.04)
    paint = [40.0, 190.0, 235.0] if kind == "taxi" else _paint(rng)
    if kind == "van" and rng.uniform() < 0.6:
        paint = [float(rng.uniform(215, 240))] * 3
    half, front, rear = width / 2, length / 2, -length / 2
    mid = clearance + 0.45 * (belt - clearance)
    hood_y, tail_y = front - hood * length, rear + tail * length
    hood_z, tail_z = belt - 0.14, belt - 0.05
    build = MeshBuilder()
    build.part((0, 0, (clearance + belt) / 2), 0)
    dark = [channel * 0.7 for channel in paint]
    light = [min(250.0, channel * 1.1) for channel in paint]
    for x in (-half, half):
        low = [(x, rear, clearance), (x, front, clearance), (x, front, mid), (x, rear, mid)]
        build.face(low, dark)
        build.face([(x, rear, clearance), (x, front, clearance), (x, front, clearance + 0.1),
                    (x, rear, clearance + 0.1)], TRIM)  # fmt: skip
        high = [(x, rear, mid), (x, front, mid), (x, front - 0.08, hood_z), (x, hood_y, belt),
                (x, tail_y, belt), (x, rear + 0.04, tail_z)]  # fmt: skip
        build.face(high, paint)
        build.face([(x, rear + 0.05, belt - 0.16), (x, front - 0.2, belt - 0.2), (x, hood_y, belt - 0.08),
                    (x, rear + 0.05, belt - 0.08)], light, min_px_per_m=14)  # fmt: skip
        for seam in np.linspace(tail_y + 0.2 * length, hood_y - 0.05, 2 if kind in ("van", "mini") else 3):
            build.face([(x, seam, clearance + 0.1), (x, seam + 0.025, clearance + 0.1),
                        (x, seam + 0.025, belt), (x, seam, belt)], dark, min_px_per_m=26)  # fmt: skip
            build.face([(x, seam + 0.1, belt - 0.2), (x, seam + 0.28, belt - 0.2),
                        (x, seam + 0.28, belt - 0.16), (x, seam + 0.1, belt - 0.16)], TRIM,
                       min_px_per_m=34)  # fmt: skip
    nose = np.array([(-half, front, clearance), (half, front, clearance), (half, front - 0.08, hood_z),
                     (-half, front - 0.08, hood_z)])  # fmt: skip
    stern = np.array([(half, rear, clearance), (-half, rear, clearance), (-half, rear + 0.04, tail_z),
                      (half, rear + 0.04, tail_z)])  # fmt: skip
    build.face(nose, paint)
    build.face(inset(nose, (0.0, 1.0), (0.0, 0.2)), TRIM)
    build.face(inset(nose, (0.24, 0.76), (0.34, 0.72)), (28, 27, 26), min_px_per_m=9)
    _lamps(build, nose, (0.5, 0.8), rear=False, lights_on=lights_on)
    build.face(stern, paint)
    build.face(inset(stern, (0.0, 1.0), (0.0, 0.22)), TRIM)
    _lamps(build, stern, (0.55, 0.85), rear=True, lights_on=lights_on)
    bonnet = [(-half, hood_y, belt), (half, hood_y, belt), (half, front - 0.08, hood_z)]
    build.face([*bonnet, (-half, front - 0.08, hood_z)], light)
    if tail > 0.05:
        boot = [(-half, rear + 0.04, tail_z), (half, rear + 0.04, tail_z), (half, tail_y, belt)]
        build.face([*boot, (-half, tail_y, belt)], light)
    _cabin(build, kind, paint, (half, belt, height, hood_y, tail_y, length))
    radius = {"off-roader": 0.38, "van": 0.36, "mini": 0.29}.get(kind, 0.32)
    build.part((0, 0, 0.3), 2)
    rim = [float(rng.choice([95, 150, 185]))] * 3
    for x in (-half - 0.01, half + 0.01):
        for y in (rear + 0.19 * length, front - 0.19 * length):
            build.wheel(x, y, radius, rim)
    if kind == "taxi":
        build.part((0, 0, height + 0.1), 3)
        build.box((-0.3, 0.3), (-0.1, 0.1), (height, height + 0.16), (60, 225, 250))
    return build.build(), length


def _cabin(build: MeshBuilder, kind: str, paint: list[float], size: tuple[float, ...]) -> None:
    half, belt, height, hood_y, tail_y, length = size
    rake_front = 0.09 * length if kind != "van" else 0.07 * length
    rake_rear = {"saloon": 0.12, "taxi": 0.11, "hatchback": 0.06, "mini": 0.05}.get(kind, 0.025) * length
    low, high = half - 0.03, half - (0.2 if kind != "van" else 0.12)
    roof_front, roof_rear = hood_y - rake_front, tail_y + rake_rear
    build.part((0, (hood_y + tail_y) / 2, (belt + height) / 2), 1)
    screen = np.array([(-low, hood_y, belt), (low, hood_y, belt), (high, roof_front, height),
                       (-high, roof_front, height)])  # fmt: skip
    back = np.array([(low, tail_y, belt), (-low, tail_y, belt), (-high, roof_rear, height),
                     (high, roof_rear, height)])  # fmt: skip
    build.face(screen, paint)
    _glass(build, screen, (0.06, 0.94), (0.04, 0.92) if kind != "van" else (0.04, 0.72))
    build.face(back, paint)
    if kind != "van":
        _glass(build, back, (0.08, 0.92), (0.15, 0.88))
    else:
        build.face(inset(back, (0.49, 0.51), (0.0, 0.95)), TRIM, min_px_per_m=14)
        for u in ((0.1, 0.42), (0.58, 0.9)):
            _glass(build, back, u, (0.4, 0.8))
    for x, roof_x in ((-low, -high), (low, high)):
        side = np.array([(x, tail_y, belt), (x, hood_y, belt), (roof_x, roof_front, height),
                         (roof_x, roof_rear, height)])  # fmt: skip
        build.face(side, paint)
        if kind == "van":
            _glass(build, side, (0.72, 0.94), (0.05, 0.6))
            build.face(inset(side, (0.06, 0.62), (0.35, 0.55)), [c * 0.55 for c in paint], min_px_per_m=9)
            continue
        splits = (
            (0.07, 0.36, 0.4, 0.64, 0.68, 0.93)
            if kind in ("estate", "off-roader")
            else (0.08, 0.46, 0.5, 0.93)
        )
        for start, end in zip(splits[::2], splits[1::2], strict=True):
            _glass(build, side, (start, end), (0.06, 0.86))
        mirror = np.sign(x) * (half + 0.16)
        build.face([(x, hood_y - 0.25, belt), (mirror, hood_y - 0.25, belt),
                    (mirror, hood_y - 0.25, belt + 0.16),
                    (x, hood_y - 0.25, belt + 0.16)], [c * 0.8 for c in paint], normal=(0, 0, 1),
                   min_px_per_m=20)  # fmt: skip
    roof = [(-high, roof_rear, height), (high, roof_rear, height), (high, roof_front, height)]
    build.face([*roof, (-high, roof_front, height)], [min(250.0, channel * 1.05) for channel in paint])


def _bus(rng: np.random.Generator, kind: str, lights_on: bool) -> tuple[Mesh, float]:
    length = float(rng.uniform(10.5, 12.5))
    half, height, clearance = 1.27, 3.05 if kind == "bus" else 3.45, 0.3
    paint, stripe = _paint(rng), _paint(rng)
    front, rear = length / 2, -length / 2
    build = MeshBuilder()
    build.part((0, 0, height / 2), 0)
    build.box((-half, half), (rear, front), (clearance, height), paint)
    low = 1.2 if kind == "bus" else 1.65
    for x in (-half, half):
        side = np.array([(x, rear, clearance), (x, front, clearance), (x, front, height), (x, rear, height)])

        def share(z: float) -> float:
            return (z - clearance) / (height - clearance)

        build.face(inset(side, (0, 1), (0, 0.06)), TRIM)
        build.face(inset(side, (0, 1), (share(low) - 0.12, share(low) - 0.04)), stripe)
        build.face(inset(side, (0.01, 0.985), (share(low), share(height - 0.5))), (40, 36, 33))
        panes = 7 if kind == "bus" else 8
        for pane in range(panes):
            u = (0.02 + 0.96 * pane / panes, 0.02 + 0.96 * (pane + 0.9) / panes)
            build.face(inset(side, u, (share(low) + 0.02, share(height - 0.55))), GLASS, min_px_per_m=9)
            build.face(
                inset(side, u, (share(low) + 0.22, share(height - 0.55))), SKY_IN_GLASS, min_px_per_m=12
            )
            if rng.uniform() < 0.5:
                # A passenger's head behind the pane.
                at = u[0] + 0.05
                build.face(inset(side, (at, at + 0.022), (share(low) + 0.02, share(low) + 0.16)),
                           (60, 70, 95), min_px_per_m=20)  # fmt: skip
        if x > 0 or kind == "coach":
            for u in ((0.88, 0.97), (0.5, 0.59))[: 2 if kind == "bus" else 1]:
                build.face(inset(side, u, (0.04, 0.8)), (52, 48, 44), min_px_per_m=9)
                for leaf in (0.02, 0.53):
                    span = u[1] - u[0]
                    leaf_u = (u[0] + leaf * span, u[0] + (leaf + 0.45) * span)
                    build.face(inset(side, leaf_u, (0.1, 0.76)), (105, 96, 86), min_px_per_m=14)
    nose = np.array([(-half, front, clearance), (half, front, clearance), (half, front, height),
                     (-half, front, height)])  # fmt: skip
    stern = np.array([(half, rear, clearance), (-half, rear, clearance), (-half, rear, height),
                      (half, rear, height)])  # fmt: skip
    _glass(build, nose, (0.04, 0.96), (0.3, 0.8))
    build.face(inset(nose, (0.15, 0.85), (0.84, 0.96)), (20, 20, 20))
    build.face(inset(nose, (0.25, 0.75), (0.87, 0.93)), (60, 180, 245), glows=True, min_px_per_m=9)
    build.face(inset(nose, (0.0, 1.0), (0.0, 0.07)), TRIM)
    _lamps(build, nose, (0.1, 0.2), rear=False, lights_on=lights_on)
    _glass(build, stern, (0.12, 0.88), (0.5, 0.82))
    build.face(inset(stern, (0.2, 0.8), (0.12, 0.4)), [c * 0.6 for c in paint], min_px_per_m=9)
    _lamps(build, stern, (0.14, 0.3), rear=True, lights_on=lights_on)
    build.part((0, 0, 0.4), 1)
    for x in (-half - 0.01, half + 0.01):
        for y in (rear + 0.26 * length, front - 0.22 * length):
            build.wheel(x, y, 0.48, (120, 120, 120))
    if kind == "bus":
        build.part((0, rear + 2.5, height + 0.15), 2)
        build.box((-0.9, 0.9), (rear + 1.0, rear + 4.0), (height, height + 0.28), (190, 190, 190))
    return build.build(), length


def _lorry(rng: np.random.Generator, kind: str, lights_on: bool) -> tuple[Mesh, float]:
    cab_m, load_m = 2.0, float(rng.uniform(4.6, 8.0))
    length = cab_m + load_m + 0.35
    half, front = 1.2, length / 2
    cab_h = float(rng.uniform(2.5, 3.0))
    load_h = float(rng.uniform(3.0, 3.6)) if kind == "lorry" else 2.1
    paint = _paint(rng)
    load = _paint(rng) if rng.uniform() < 0.6 else [float(rng.uniform(205, 238))] * 3
    rear = -length / 2
    build = MeshBuilder()
    build.part((0, 0, 0.7), 0)
    build.box((-0.9, 0.9), (rear + 0.1, front - 0.4), (0.55, 0.95), (48, 46, 45))
    build.part((0, rear + load_m / 2, 2.0), 1)
    load_z = 0.95
    build.box((-half, half), (rear, rear + load_m), (load_z, load_h), load)
    trim = _paint(rng)
    for x in (-half, half):
        side = np.array([(x, rear, load_z), (x, rear + load_m, load_z), (x, rear + load_m, load_h),
                         (x, rear, load_h)])  # fmt: skip
        ribs = int(load_m / 0.6)
        for rib in range(1, ribs):
            at = rib / ribs
            build.face(inset(side, (at, at + 0.012), (0, 1)), [c * 0.8 for c in load], min_px_per_m=16)
        if kind == "lorry" and rng.uniform() < 0.75:
            build.face(inset(side, (0.15, 0.85), (0.42, 0.72)), trim, min_px_per_m=6)
            for letter in np.arange(0.22, 0.78, 0.08):
                span = (float(letter), float(letter) + 0.05)
                build.face(inset(side, span, (0.49, 0.65)), (240, 240, 240), min_px_per_m=16)
        build.face(inset(side, (0, 1), (0, 0.05)), TRIM)
    stern = np.array(
        [(half, rear, load_z), (-half, rear, load_z), (-half, rear, load_h), (half, rear, load_h)]
    )
    build.face(inset(stern, (0.49, 0.51), (0.04, 0.98)), TRIM, min_px_per_m=14)
    for u in ((0.02, 0.05), (0.95, 0.98)):
        build.face(inset(stern, u, (0.04, 0.98)), [c * 0.7 for c in load], min_px_per_m=14)
    for u in ((0.02, 0.16), (0.84, 0.98)):
        build.face(inset(stern, u, (-0.08, 0.0)), (36, 32, 180), min_px_per_m=8)
    if kind == "tipper":
        build.face([(-half + 0.1, rear + 0.1, load_h - 0.1), (half - 0.1, rear + 0.1, load_h - 0.1),
                    (half - 0.1, rear + load_m - 0.1, load_h - 0.05),
                    (-half + 0.1, rear + load_m - 0.1, load_h)],
                   (70, 100, 130), normal=(0, 0, 1))  # fmt: skip
    cab_y = front - cab_m
    build.part((0, front - cab_m / 2, 1.6), 1)
    build.box((-half + 0.04, half - 0.04), (cab_y, front), (0.55, cab_h), paint)
    nose = np.array(
        [(-half, front + 0.01, 0.55), (half, front + 0.01, 0.55), (half, front, cab_h), (-half, front, cab_h)]
    )
    _glass(build, nose, (0.06, 0.94), (0.46, 0.84))
    build.face(inset(nose, (0.2, 0.8), (0.16, 0.4)), (36, 35, 34), min_px_per_m=8)
    build.face(inset(nose, (0.03, 0.97), (0.0, 0.1)), TRIM)
    _lamps(build, nose, (0.1, 0.2), rear=False, lights_on=lights_on)
    for x in (-half, half):
        side = np.array([(x, cab_y, 0.55), (x, front, 0.55), (x, front, cab_h), (x, cab_y, cab_h)])
        _glass(build, side, (0.32, 0.92), (0.48, 0.84))
        build.face(inset(side, (0.28, 0.3), (0.08, 0.9)), TRIM, min_px_per_m=20)
        build.face(inset(side, (0.1, 0.95), (0.0, 0.12)), TRIM)
    build.part((0, 0, 0.5), 2)
    for x in (-half - 0.01, half + 0.01):
        axles = [front - 1.1, rear + 1.2] + ([rear + 2.3] if load_m > 6 else [])
        for y in axles:
            build.wheel(x, y, 0.48, (135, 135, 135))
    return build.build(), length
