"""How much memory decoded pictures may take, over all cameras: what is beyond it is not taken on.

Coded video says little about it: a camera of 200 kB/s may hold 25 frames of 4K, 300 MB.
"""

import threading

from accmpeg.server.refusal import RefusalError

__all__ = ["LEAST_FRAMES", "MemoryBudget"]

DECODER_FRAMES = 5
"""What the decoder of a 4K stream holds at its level: references, and the frame that it is at."""
LEAST_FRAMES = DECODER_FRAMES + 2
"""A camera is taken on only with so many: one more that waits, and one that is being inferred."""
_BYTES_PER_PIXEL = 1.5


class MemoryBudget:
    """Divides `total_bytes` among cameras by the size of their frames. For any thread."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._frame_bytes: dict[object, float] = {}
        self._lock = threading.Lock()

    def reserve(self, camera: object, pixels: int) -> None:
        """Gives frames of this size their place, beside what is there and instead of the camera's before.

        Raises:
            RefusalError: They do not fit in; then the camera's place is as it was.
        """
        frame_bytes = pixels * _BYTES_PER_PIXEL
        with self._lock:
            others = sum(size for each, size in self._frame_bytes.items() if each != camera)
            if (others + frame_bytes) * LEAST_FRAMES > self.total_bytes:
                raise RefusalError(
                    "busy",
                    f"frames of {pixels / 1e6:.1f} megapixels do not fit in beside the other cameras: the "
                    f"server's --memory is {self.total_bytes / 2**20:.0f} MiB, for "
                    f"{self.cameras_of(pixels)} such cameras",
                    retry=True,
                )
            self._frame_bytes[camera] = frame_bytes

    def give_back(self, camera: object) -> None:
        """Its frames are gone."""
        with self._lock:
            self._frame_bytes.pop(camera, None)

    def waiting_frames(self, camera: object, most: int) -> int:
        """How many decoded frames of a camera may wait: what is left over is shared in equal parts."""
        with self._lock:
            frame_bytes = self._frame_bytes.get(camera, 0.0)
            if not frame_bytes:
                return 1
            spare = self.total_bytes - sum(self._frame_bytes.values()) * LEAST_FRAMES
            return max(1, min(most, 1 + int(spare / len(self._frame_bytes) / frame_bytes)))

    def cameras_of(self, pixels: int) -> int:
        """How many cameras of one size fit in."""
        return int(self.total_bytes / (pixels * _BYTES_PER_PIXEL * LEAST_FRAMES))
