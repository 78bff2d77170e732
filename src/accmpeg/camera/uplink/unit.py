"""A coded frame on its way to the server, and how the spool's files hold it."""

import json
import struct
from dataclasses import dataclass

__all__ = ["TimedUnit"]

_HEAD = struct.Struct(">QqqqHH?H")


@dataclass(frozen=True, slots=True)
class TimedUnit:
    """An access unit and what the camera knows of it; times are those of its clock that never jumps.

    `stages_ms` is what each stage took: `wait` and `encode_wall` by the clock, others CPU time. A map counts
    with the first frame that it steers, though it is made before that one comes.
    """

    data: bytes
    pts: int
    is_keyframe: bool
    captured_us: int
    encoded_us: int
    size_px: tuple[int, int]
    stages_ms: dict[str, float]

    def to_bytes(self, sequence: int) -> bytes:
        """The unit under its number in the stream."""
        stages = json.dumps(self.stages_ms, separators=(",", ":")).encode()
        head = _HEAD.pack(
            sequence,
            self.pts,
            self.captured_us,
            self.encoded_us,
            *self.size_px,
            self.is_keyframe,
            len(stages),
        )
        return b"".join((head, stages, self.data))

    @classmethod
    def from_bytes(cls, record: bytes) -> tuple[int, "TimedUnit"]:
        """What `to_bytes` made. Raises ValueError for anything else."""
        try:
            sequence, pts, captured_us, encoded_us, width_px, height_px, is_keyframe, size = (
                _HEAD.unpack_from(record)
            )
            stages_ms = json.loads(record[_HEAD.size : _HEAD.size + size])
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"no unit of a spool: {error}") from error
        data = record[_HEAD.size + size :]
        unit = cls(data, pts, is_keyframe, captured_us, encoded_us, (width_px, height_px), stages_ms)
        return sequence, unit
