"""Sweeps whose truth is known: clips have a curve of S over bitrate, methods need their own share of bits.

    S(QP) = ceiling · (1 − 0.3 · 2^(−0.8·x)),   bitrate = base · share · 2^x,   x = (40 − QP) / 4

Blocks scatter: what a block shows (bytes, number of objects) all methods share, what chance does to an answer
they do not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accmpeg.evaluation.bench.rows import CellRow

__all__ = ["LINK", "QUALITIES", "bitrate_at_bps", "clip_rows", "point", "relative_at"]

LINK = "1 Mbit/s"
QUALITIES = (40, 37, 34, 31, 28, 24, 18)
FRAME_RATE, WARM_FRAMES, GOP_FRAMES = 30.0, 30, 250


def relative_at(quality: float) -> float:
    """S over the ceiling at a QP, without noise.

    >>> relative_at(40)
    0.7
    """
    return float(1 - 0.3 * 2 ** (-0.8 * (40 - quality) / 4))


def bitrate_at_bps(target: float, base_bps: float = 200_000.0) -> float:
    """Where a method with share 1 reaches a target, without noise."""
    return float(base_bps * (0.3 / (1 - target)) ** (1 / 0.8))


def point(clip: str, method: str, quality: float, relative: float, bps: float, **more: Any) -> CellRow:
    """A cell without noise: twelve blocks, `relative` of a ceiling of 0.95; `more` overrides fields."""
    return clip_rows(clip, {method: 1.0}, plain={(method, quality): (relative, bps)}, **more)[1]


def clip_rows(
    clip: str,
    shares: Mapping[str, float],
    *,
    generator: np.random.Generator | None = None,
    noise: float = 0.0,
    qualities: Mapping[str, Sequence[float]] | None = None,
    blocks: int = 12,
    objects: float = 30.0,
    ceiling: float = 0.95,
    base_bps: float = 200_000.0,
    harder: float = 0.0,
    references: Sequence[str] = ("own",),
    plain: Mapping[tuple[str, float], tuple[float, float]] | None = None,
    delay_ms: float | None = 40.0,
    **more: Any,
) -> list[CellRow]:
    """The ceiling and all methods of a clip; `shares`: bits of each method over those of share 1.

    `noise`: standard deviation of S on one block, from point to point by chance. `harder`: S is that of a QP
    higher by so much, for all methods. `plain` gives (S over the ceiling, bit/s) by method and QP instead of
    the formula.
    """
    generator = generator or np.random.default_rng(0)
    scatter = 1.0 if noise else 0.0
    found = np.maximum(1.0, objects * np.exp(0.3 * scatter * generator.standard_normal(blocks)))
    look = np.exp(0.2 * scatter * generator.standard_normal(blocks))
    look /= look.mean()
    frames = WARM_FRAMES + 10 * blocks

    def cell(method: str, role: str, quality: float, relative: float, bps: float) -> CellRow:
        chance = noise * generator.standard_normal(blocks)
        sizes = bps / FRAME_RATE / 8 * 0.9 * look * np.exp(noise * generator.standard_normal(blocks)) * 10
        found_right = found * np.clip(ceiling * relative + chance, 0.0, 1.0)
        counts = np.stack([found_right, found, found], axis=1)[:, None, :]
        sent = [round(size) for size in sizes]
        keyframe = bps / FRAME_RATE / 8 * 0.1 * GOP_FRAMES
        bitrate_bps = (keyframe / GOP_FRAMES + sum(sent) / (10 * blocks)) * 8 * FRAME_RATE
        timed = {} if delay_ms is None else {LINK: _delay(delay_ms + bps / 10_000)}
        fields: dict[str, Any] = {
            "key": f"{clip}/{method}/{quality}/{role}",
            "clip": clip,
            "dnn": "tiny",
            "task": "detection",
            "method": method,
            "role": role,
            "quality": quality,
            "frames": frames,
            "warm_frames": WARM_FRAMES,
            "frame_rate": FRAME_RATE,
            "gop_frames": GOP_FRAMES,
            "width_px": 320,
            "height_px": 180,
            "stream_width_px": 320,
            "stream_height_px": 180,
            "keyframe_bytes": keyframe,
            "bitrate_bps": bitrate_bps,
            "blocks": {
                "frames": [10] * blocks,
                "bytes": sent,
                "counts": {name: counts.tolist() for name in references},
                "delay_ms": {link: [delay["mean_ms"]] * blocks for link, delay in timed.items()},
            },
            "measures": {"ap50": relative, "f1": relative},
            "objects": float(found.sum()),
            "camera_ms": 6.0,
            "camera_ratio": 1.1,
            "camera_load": 0.2,
            "server_load": 0.4,
            "delays": timed,
        }
        return CellRow.model_validate(fields | more)

    rows = [cell("aq-1", "ceiling", 12, 1.0, 20 * base_bps)]
    if plain is not None:
        return rows + [cell(m, "method", q, relative, bps) for (m, q), (relative, bps) in plain.items()]
    for method, share in shares.items():
        for quality in (qualities or {}).get(method, QUALITIES):
            bps = base_bps * share * 2 ** ((40 - quality) / 4)
            rows.append(cell(method, "method", quality, relative_at(quality + harder), bps))
    return rows


def _delay(mean_ms: float) -> dict[str, float]:
    return {
        "mean_ms": mean_ms,
        "p50_ms": mean_ms - 2,
        "p95_ms": mean_ms + 20,
        "camera_ms": 6.0,
        "uplink_ms": mean_ms - 36.0,
        "propagation_ms": 20.0,
        "serve_ms": 10.0,
        "wait_ms": 0.0,
        "age_mean_ms": mean_ms + 15,
        "age_p95_ms": mean_ms + 40,
    }
