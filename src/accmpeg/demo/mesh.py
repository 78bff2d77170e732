"""Low-polygon solids: built from convex parts, culled, shaded and sorted for the painter's algorithm."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accmpeg.demo.camera import Camera

__all__ = ["SHIFT", "Light", "Mesh", "MeshBuilder", "Polygon", "inset"]

SHIFT = 4
"""Binary digits after the point in polygon coordinates, as OpenCV's drawing functions take them."""

FloatArray = NDArray[np.float64]
Polygon = tuple[NDArray[np.int32], tuple[float, float, float]]


@dataclass(frozen=True)
class Light:
    """Sun and sky at one moment. Colours are BGR gains on a surface's own colour."""

    sun_direction: FloatArray
    sun: FloatArray
    sky: FloatArray
    sunniness: float
    exposure: float
    haze: FloatArray
    haze_m: float

    def shade(self, colours: FloatArray, normals: FloatArray) -> FloatArray:
        """Lambert's law plus a sky that is brighter from above; `(n, 3)` colours and unit normals."""
        facing = np.maximum(normals @ self.sun_direction, 0.0)[:, None]
        sky = self.sky * (0.78 + 0.22 * normals[:, 2:3]) + 0.12 * self.sun * self.sunniness
        return colours * (sky + self.sunniness * facing * self.sun) * self.exposure

    def fade(self, colours: FloatArray, depth_m: float) -> FloatArray:
        """Haze over a distance."""
        share = 1 - np.exp(-depth_m / self.haze_m)
        return np.asarray(colours + share * (self.haze * self.exposure - colours))


@dataclass
class MeshBuilder:
    """Collects faces part by part; a part is convex, so its faces need no sorting among themselves."""

    vertices: list[FloatArray] = field(default_factory=list)
    faces: list[NDArray[np.intp]] = field(default_factory=list)
    colours: list[Sequence[float]] = field(default_factory=list)
    normals: list[FloatArray] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    stacks: list[int] = field(default_factory=list)
    centres: list[FloatArray] = field(default_factory=list)
    min_px_per_m: list[float] = field(default_factory=list)
    glows: list[bool] = field(default_factory=list)
    wheels: list[tuple[NDArray[np.intp], FloatArray]] = field(default_factory=list)

    def part(self, centre: Sequence[float], stack: int) -> None:
        """Starts a part; higher stacks are drawn later, parts of one stack far to near."""
        self.centres.append(np.array(centre, dtype=np.float64))
        self.stacks.append(stack)

    def face(
        self,
        points: Sequence[Sequence[float]] | FloatArray,
        colour: Sequence[float],
        *,
        normal: Sequence[float] | None = None,
        min_px_per_m: float = 0.0,
        glows: bool = False,
    ) -> NDArray[np.intp]:
        """Adds a polygon `(n, 3)` to the open part and returns its vertex numbers."""
        corners = np.asarray(points, dtype=np.float64)
        if normal is None:
            across = np.cross(corners[1] - corners[0], corners[2] - corners[0])
            outward = np.sign(across @ (corners.mean(axis=0) - self.centres[-1])) or 1.0
            unit = outward * across / (np.linalg.norm(across) or 1.0)
        else:
            unit = np.array(normal, dtype=np.float64)
        numbers = np.arange(len(self.vertices), len(self.vertices) + len(corners))
        self.vertices.extend(corners)
        self.faces.append(numbers)
        self.colours.append(colour)
        self.normals.append(unit)
        self.parts.append(len(self.centres) - 1)
        self.min_px_per_m.append(min_px_per_m)
        self.glows.append(glows)
        return numbers

    def box(
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], colour: Sequence[float]
    ) -> None:
        """Adds the five visible faces of a box to the open part."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        dark = [channel * 0.72 for channel in colour]
        for side in (x0, x1):
            mid = z0 + 0.4 * (z1 - z0)
            self.face([(side, y0, mid), (side, y1, mid), (side, y1, z1), (side, y0, z1)], colour)
            self.face([(side, y0, z0), (side, y1, z0), (side, y1, mid), (side, y0, mid)], dark)
        for end in (y0, y1):
            self.face([(x0, end, z0), (x1, end, z0), (x1, end, z1), (x0, end, z1)], colour)
        self.face([(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], colour)

    def wheel(self, x: float, y: float, radius: float, rim: Sequence[float]) -> None:
        """Adds a wheel in the plane `x`, facing away from the mesh's middle."""
        out = (float(np.sign(x)), 0.0, 0.0)
        centre = np.array([x, y, radius])

        def ring(size: float, count: int, lift: float) -> FloatArray:
            angle = np.arange(count) * 2 * np.pi / count
            up = np.stack([np.full(count, lift * out[0]), np.cos(angle) * size, np.sin(angle) * size], axis=1)
            return np.asarray(centre + up)

        self.face(ring(radius * 1.18, 12, 0.0), (16, 16, 16), normal=out)
        self.face(ring(radius, 12, 0.01), (38, 36, 35), normal=out)
        self.face(ring(radius * 0.64, 10, 0.02), rim, normal=out)
        for spoke in range(5):
            angle = spoke * 2 * np.pi / 5
            wedge = np.array([(0.16, -0.3), (0.58, -0.34), (0.58, 0.34), (0.16, 0.3)])
            at = np.stack([np.cos(angle + wedge[:, 1]), np.sin(angle + wedge[:, 1])], axis=1)
            points = centre + np.column_stack([np.full(4, 0.03 * out[0]), at * wedge[:, :1] * radius])
            dark = [channel * 0.42 for channel in rim]
            self.wheels.append((self.face(points, dark, normal=out, min_px_per_m=38), centre))

    def build(self) -> "Mesh":
        """The finished mesh."""
        return Mesh(
            vertices=np.array(self.vertices),
            faces=self.faces,
            colours=np.array(self.colours, dtype=np.float64),
            normals=np.array(self.normals),
            centroids=np.array([np.array(self.vertices)[face].mean(axis=0) for face in self.faces]),
            parts=np.array(self.parts),
            stacks=np.array(self.stacks),
            part_centres=np.array(self.centres),
            min_px_per_m=np.array(self.min_px_per_m),
            glows=np.array(self.glows),
            wheel_vertices=np.concatenate([numbers for numbers, _ in self.wheels] or [np.zeros(0, np.intp)]),
            wheel_centres=np.concatenate(
                [np.tile(centre, (len(numbers), 1)) for numbers, centre in self.wheels] or [np.zeros((0, 3))]
            ),
        )


@dataclass(frozen=True)
class Mesh:
    """A solid in its own axes: x to its right, y forward, z up, metres, standing on z = 0."""

    vertices: FloatArray
    faces: list[NDArray[np.intp]]
    colours: FloatArray
    normals: FloatArray
    centroids: FloatArray
    parts: NDArray[np.intp]
    stacks: NDArray[np.intp]
    part_centres: FloatArray
    min_px_per_m: FloatArray
    glows: NDArray[np.bool_]
    wheel_vertices: NDArray[np.intp]
    wheel_centres: FloatArray

    def placed(self, x_m: float, y_m: float, heading_rad: float, rolled_rad: float) -> FloatArray:
        """World positions of all vertices; heading 0 looks along +y, positive turns towards +x."""
        local = self.vertices
        if len(self.wheel_vertices):
            local = local.copy()
            arm = local[self.wheel_vertices] - self.wheel_centres
            cos, sin = np.cos(rolled_rad), np.sin(rolled_rad)
            turned = np.stack(
                [arm[:, 0], cos * arm[:, 1] + sin * arm[:, 2], cos * arm[:, 2] - sin * arm[:, 1]], 1
            )
            local[self.wheel_vertices] = self.wheel_centres + turned
        return np.asarray(local @ _turn(heading_rad) + (x_m, y_m, 0.0))

    def polygons(
        self,
        points: FloatArray,
        px_per_m: float,
        depth_m: float,
        at: tuple[float, float, float],
        camera: Camera,
        light: Light | None,
    ) -> list[Polygon]:
        """Visible faces far to near, from the vertices' frame positions; black without a `light`."""
        x_m, y_m, heading_rad = at
        turn = _turn(heading_rad)
        eye = (camera.position - (x_m, y_m, 0.0)) @ turn.T
        fixed = np.round(points * (1 << SHIFT)).astype(np.int32)
        facing = np.einsum("fc,fc->f", self.normals, eye - self.centroids) > 0
        shown = np.flatnonzero(facing & (self.min_px_per_m <= px_per_m))
        distance = np.linalg.norm(self.part_centres - eye, axis=1)
        order = np.lexsort((shown, -distance[self.parts[shown]], self.stacks[self.parts[shown]]))
        shown = shown[order]
        colours = np.zeros((len(shown), 3))
        if light is not None:
            colours = light.shade(self.colours[shown], self.normals[shown] @ turn)
            glows = self.glows[shown]
            colours[glows] = self.colours[shown][glows]
            colours = np.clip(light.fade(colours, depth_m), 0, 255)
        return [
            (fixed[self.faces[face]], (b, g, r))
            for face, (b, g, r) in zip(shown, colours.tolist(), strict=True)
        ]


def _turn(heading_rad: float) -> FloatArray:
    cos, sin = np.cos(heading_rad), np.sin(heading_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def inset(corners: FloatArray, u: tuple[float, float], v: tuple[float, float]) -> FloatArray:
    """A part of a quad: corners run (u0,v0), (u1,v0), (u1,v1), (u0,v1) in its own 0..1 coordinates."""
    low_left, low_right, high_right, high_left = np.asarray(corners, dtype=np.float64)

    def at(s: float, t: float) -> FloatArray:
        low, high = low_left + s * (low_right - low_left), high_left + s * (high_right - high_left)
        return np.asarray(low + t * (high - low))

    return np.array([at(u[0], v[0]), at(u[1], v[0]), at(u[1], v[1]), at(u[0], v[1])])
