"""Rows of a made-up sweep whose answers are known by hand."""

from typing import Any

from accmpeg.evaluation.rows import CellRow

__all__ = ["LINK", "curve", "row"]

LINK = "1 Mbit/s"
FRAMES, FRAME_RATE = 100, 25.0


def row(
    clip: str, method: str, quality: int, size_bytes: int, accuracy: float | None, **more: Any
) -> CellRow:
    """One finished cell of a four-second clip; `more` overrides fields."""
    fields: dict[str, Any] = {
        "key": f"{clip}/{method}/{quality}/{more.get('role', 'method')}",
        "clip": clip,
        "dnn": "tiny",
        "task": "detection",
        "method": method,
        "quality": quality,
        "frames": FRAMES,
        "frame_rate": FRAME_RATE,
        "width_px": 320,
        "height_px": 180,
        "bytes": size_bytes,
        "uplink_bytes": size_bytes,
        "bitrate_bps": size_bytes * 8 * FRAME_RATE / FRAMES,
        "accuracy": accuracy,
        "objects": 50,
        "camera_ms": 5.0,
        "server_ms": 12.0,
        "infer_ms": 10.0,
        "delay_mean_ms": {LINK: 50 + size_bytes / 1000},
        "delay_p50_ms": {LINK: 50 + size_bytes / 1000},
        "delay_p95_ms": {LINK: 90 + size_bytes / 1000},
        "paper_delay_s": {LINK: 0.4},
    }
    return CellRow.model_validate(fields | more)


def curve(
    clip: str, method: str, scale: float = 1.0, accuracies: tuple[float, ...] = (0.86, 0.9, 0.95), **more: Any
) -> list[CellRow]:
    """Points of 100, 200, 400 … kB times `scale`, at QP 40, 36, 32 …"""
    return [
        row(clip, method, 40 - 4 * number, round(100_000 * scale * 2**number), accuracy, **more)
        for number, accuracy in enumerate(accuracies)
    ]
