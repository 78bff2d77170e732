"""The scene's pinhole camera, and the slow motion of its picture.

World axes in metres: x across the street, y along it, z up. The backdrop is rendered once on a canvas larger
than the frame; pan, shake, roll and zoom then move the frame's window over that canvas by one affine map, and
moving objects are projected on the canvas and carried through the same map.

```
world (x, y, z) ──Camera.project──▶ canvas px ──CameraMotion.affine(t)──▶ frame px
```
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR_M", "Camera", "CameraMotion", "apply_affine"]

NEAR_M = 1.0

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll; `focal_px` is in canvas pixels."""

    x_m: float
    height_m: float
    yaw_rad: float
    pitch_rad: float
    focal_px: float
    canvas_width_px: int
    canvas_height_px: int

    @cached_property
    def position(self) -> FloatArray:
        return np.array([self.x_m, 0.0, self.height_m])

    @cached_property
    def axes(self) -> FloatArray:
        """Rows: right, down and forward unit vectors, `(3, 3)`."""
        sin_yaw, cos_yaw = np.sin(self.yaw_rad), np.cos(self.yaw_rad)
        sin_pitch, cos_pitch = np.sin(self.pitch_rad), np.cos(self.pitch_rad)
        right = (cos_yaw, -sin_yaw, 0.0)
        down = (-sin_pitch * sin_yaw, -sin_pitch * cos_yaw, -cos_pitch)
        forward = (cos_pitch * sin_yaw, cos_pitch * cos_yaw, -sin_pitch)
        return np.array([right, down, forward])

    @property
    def horizon_px(self) -> float:
        """The canvas row of the horizon."""
        return self.canvas_height_px / 2 - self.focal_px * float(np.tan(self.pitch_rad))

    def project(self, points_m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Canvas positions `(n, 2)` and depths `(n,)` of world points `(n, 3)`."""
        seen = (points_m - self.position) @ self.axes.T
        depth = seen[:, 2]
        at = seen[:, :2] * (self.focal_px / np.maximum(depth, 1e-3))[:, None]
        return at + np.array([self.canvas_width_px / 2, self.canvas_height_px / 2]), depth

    def project_clipped(self, polygon_m: FloatArray) -> FloatArray:
        """Canvas polygon of a world polygon `(n, 3)` cut off at the near plane; empty if all lies behind."""
        depth = (polygon_m - self.position) @ self.axes[2] - NEAR_M
        kept: list[FloatArray] = []
        for i, point in enumerate(polygon_m):
            after = (i + 1) % len(polygon_m)
            if depth[i] >= 0:
                kept.append(point)
            if (depth[i] >= 0) != (depth[after] >= 0):
                share = depth[i] / (depth[i] - depth[after])
                kept.append(point + share * (polygon_m[after] - point))
        return self.project(np.array(kept))[0] if kept else np.zeros((0, 2))

    def ground_rows(self) -> tuple[int, NDArray[np.float32], NDArray[np.float32], FloatArray]:
        """The ground seen by each pixel below the horizon.

        Returns the first such row, x and y `(rows, width)`, and each row's depth `(rows,)`, in metres.
        """
        first = int(np.clip(np.ceil(self.horizon_px + 2), 0, self.canvas_height_px))
        u = (np.arange(self.canvas_width_px) + 0.5 - self.canvas_width_px / 2) / self.focal_px
        v = (np.arange(first, self.canvas_height_px) + 0.5 - self.canvas_height_px / 2) / self.focal_px
        right, down, forward = self.axes
        depth = self.height_m / -(v * down[2] + forward[2])
        x = self.x_m + depth[:, None] * (u[None] * right[0] + (v * down[0] + forward[0])[:, None])
        y = depth[:, None] * (u[None] * right[1] + (v * down[1] + forward[1])[:, None])
        return first, x.astype(np.float32), y.astype(np.float32), depth


@dataclass(frozen=True)
class CameraMotion:
    """Sways, pans and zooms: sums of sines in seconds, so that any frame is computed on its own."""

    frame_width_px: int
    frame_height_px: int
    canvas_width_px: int
    canvas_height_px: int
    pan_px: tuple[float, float]
    pan_period_s: float
    shake_px: float
    roll_rad: float
    zoom: float
    phase_rad: float

    def affine(self, time_s: float) -> FloatArray:
        """The `(2, 3)` map from canvas pixels to frame pixels at one time."""
        turn = 2 * np.pi * time_s
        slow = np.sin(turn / self.pan_period_s + self.phase_rad)
        slower = np.cos(turn / (1.7 * self.pan_period_s) + 2 * self.phase_rad)
        jitter_x = np.sin(1.3 * turn + self.phase_rad) + 0.6 * np.sin(3.1 * turn + 1.0)
        jitter_y = np.sin(1.7 * turn + 2.0) + 0.6 * np.sin(3.7 * turn + self.phase_rad)
        centre_x = self.canvas_width_px / 2 + self.pan_px[0] * slow + self.shake_px * jitter_x
        centre_y = self.canvas_height_px / 2 + self.pan_px[1] * slower + self.shake_px * jitter_y
        scale = 1.04 + self.zoom * slower
        angle = self.roll_rad * np.sin(0.6 * turn + self.phase_rad)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        shift_x = self.frame_width_px / 2 - cos * centre_x + sin * centre_y
        shift_y = self.frame_height_px / 2 - sin * centre_x - cos * centre_y
        return np.array([[cos, -sin, shift_x], [sin, cos, shift_y]])


def apply_affine(affine: FloatArray, points_px: FloatArray) -> FloatArray:
    """Points `(n, 2)` carried through a `(2, 3)` affine map."""
    return points_px @ affine[:, :2].T + affine[:, 2]
