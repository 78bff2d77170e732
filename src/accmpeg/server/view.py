"""Pictures for dashboards: made only while somebody watches, one for all who do.

A message to a viewer is binary, so that picture, detections and map are surely of the same frame:

```
n, big-endian u32 │ JSON (n bytes) │ JPEG (jpeg_bytes) │ one byte of QP per macroblock (map_cols × map_rows)
```
"""

import asyncio
import json
import struct
import time
from concurrent.futures import Executor
from typing import Any

import cv2
import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation

from accmpeg.server.changes import Changes
from accmpeg.server.decoding import ReceivedUnit, read_quality_map

__all__ = ["Gallery", "Viewer", "make_snapshot"]

SNAPSHOT_WIDTH_PX = 640
JPEG_QUALITY = 75
_LENGTH = struct.Struct(">I")


def make_snapshot(
    frame: VideoFrame, event: dict[str, Any], keyframe: tuple[ReceivedUnit, bytes] | None
) -> bytes:
    """The message for viewers, with a map if there is a keyframe; for a worker thread.

    Args:
        frame: The picture.
        event: Its result, as subscribers get it.
        keyframe: That before it, and the stream's parameter sets.
    """
    width_px = min(SNAPSHOT_WIDTH_PX, frame.width)
    height_px = max(1, round(frame.height * width_px / frame.width))
    picture = frame.reformat(
        width=width_px, height=height_px, format="bgr24", interpolation=Interpolation.AREA, threads=1
    ).to_ndarray()
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    header = {**event, "jpeg_bytes": len(jpeg)}
    qps = b""
    if keyframe is not None:
        quality = read_quality_map(*keyframe)
        if quality is not None:
            header |= {
                "map_rows": quality.shape[0],
                "map_cols": quality.shape[1],
                "map_sequence": keyframe[0].sequence,
                "map_size_px": list(keyframe[0].size_px),
            }
            qps = np.clip(quality, 0, 255).astype(np.uint8).tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((_LENGTH.pack(len(text)), text, jpeg.tobytes(), qps))


class Viewer:
    """One dashboard: the newest message of each camera it watches, older ones give way."""

    def __init__(self) -> None:
        self.cameras: frozenset[str] = frozenset()
        self.maps: frozenset[str] = frozenset()
        self._messages: dict[str, bytes] = {}
        self._changes = Changes()

    def offer(self, camera: str, message: bytes) -> None:
        if camera in self.cameras:
            self._messages.pop(camera, None)
            self._messages[camera] = message
            self._changes.notify()

    def watch(self, cameras: frozenset[str], maps: frozenset[str]) -> None:
        self.cameras, self.maps = cameras, maps
        self._messages = {name: each for name, each in self._messages.items() if name in cameras}

    async def next(self) -> bytes:
        await self._changes.until(lambda: self._messages)
        return self._messages.pop(next(iter(self._messages)))


class Gallery:
    """All dashboards; decides when a picture of a camera is due."""

    def __init__(self, snapshots_per_s: float) -> None:
        self.viewers: list[Viewer] = []
        self._interval_s = 1 / snapshots_per_s
        self._due_s: dict[str, float] = {}
        self._making: set[str] = set()

    def watches(self, camera: str) -> bool:
        return any(camera in each.cameras for each in self.viewers)

    def wants(self, camera: str) -> bool:
        """Whether somebody watches this camera and its next picture is due; one is then to be made."""
        if not self.watches(camera) or camera in self._making:
            return False
        now = time.monotonic()
        if now < self._due_s.get(camera, 0.0):
            return False
        self._due_s = {name: due for name, due in self._due_s.items() if due > now}
        self._due_s[camera] = now + self._interval_s
        return True

    def wants_map(self, camera: str) -> bool:
        return any(camera in each.maps for each in self.viewers)

    async def show(
        self,
        camera: str,
        frame: VideoFrame,
        event: dict[str, Any],
        keyframe: tuple[ReceivedUnit, bytes] | None,
        executor: Executor,
    ) -> None:
        """Makes the picture in a worker thread and hands it to who watches."""
        self._making.add(camera)
        loop = asyncio.get_running_loop()
        try:
            message = await loop.run_in_executor(executor, make_snapshot, frame, event, keyframe)
        finally:
            self._making.discard(camera)
        for viewer in self.viewers:
            viewer.offer(camera, message)
