"""An emulated clip in a few figures, and the paper's closed formula beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.bench.rows import BLOCK_FRAMES, Delay
from accmpeg.evaluation.link.emulator import Emulated

__all__ = ["LOAD_LIMIT", "DelaySummary", "paper_delay_s", "summarise"]

LOAD_LIMIT = 0.9
"""Of camera and server. Above it a queue grows with the clip, and says nothing about the stream."""

_CHUNK_FRAMES = 10
_BASE_S = 0.1
_ENCODE_S = 0.131
_ACCMODEL_S = 0.08


@dataclass(frozen=True)
class DelaySummary:
    """The delays of a clip's measured frames; `delay` or the `reason` why there is none."""

    delay: Delay | None
    reason: str | None
    blocks_ms: list[float | None]
    """Mean delay per block of ten of the frames; None throughout where there is no delay."""


def summarise(emulated: Emulated, frames: Sequence[int]) -> DelaySummary:
    """Sums up the delays of `frames` (indices, as `range(warm_frames, len(clip.frames))`).

    There is no delay where the camera, the server's decoder or its DNN is busy for more than 0.9 of the time,
    where a direction of the link is given more than it can carry, where one of the frames has no result, or
    where no result was there before the last of them was captured, so that there is no age.
    Raises EvaluationError if there are no frames.
    """
    if len(frames) == 0:
        raise EvaluationError("no frame is left after the warm-up to take the delay of")
    index = np.asarray(frames)
    delay_ms = emulated.delay_ms[index]
    reason = _overload(emulated)
    if reason is None and np.isnan(delay_ms).any():
        reason = f"frame {index[np.isnan(delay_ms)][0]} has no result"
    ages_ms = emulated.age_ms[index]
    ages_ms = ages_ms[~np.isnan(ages_ms)]
    if reason is None and ages_ms.size == 0:
        reason = "no result was there when the last frame was captured: the clip is too short"
    starts = range(0, len(index), BLOCK_FRAMES)
    if reason is not None:
        return DelaySummary(None, reason, [None] * len(starts))
    p50_ms, p95_ms = np.percentile(delay_ms, [50, 95])
    delay = Delay(
        mean_ms=_rounded(delay_ms.mean()),
        p50_ms=_rounded(p50_ms),
        p95_ms=_rounded(p95_ms),
        camera_ms=_rounded(emulated.camera_ms[index].mean()),
        uplink_ms=_rounded(emulated.uplink_ms[index].mean()),
        propagation_ms=_rounded(emulated.propagation_ms[index].mean()),
        serve_ms=_rounded(emulated.serve_ms[index].mean()),
        wait_ms=_rounded(emulated.wait_ms[index].mean()),
        age_mean_ms=_rounded(ages_ms.mean()),
        age_p95_ms=_rounded(np.percentile(ages_ms, 95)),
    )
    return DelaySummary(
        delay, None, [_rounded(delay_ms[start : start + BLOCK_FRAMES].mean()) for start in starts]
    )


def paper_delay_s(size_bytes: float, frames: int, bandwidth_bps: float, *, accmodel: bool = True) -> float:
    """The AccMPEG paper's mean delay: 0.1 s, a ten-frame chunk's bits over the bandwidth, fixed compute.

    >>> round(paper_delay_s(8_000_484, 1800, 0.5e6), 3)
    1.022
    """
    chunk_bits = size_bytes * 8 / (frames / _CHUNK_FRAMES)
    return _BASE_S + chunk_bits / bandwidth_bps + _ENCODE_S + (_ACCMODEL_S if accmodel else 0.0)


def _overload(emulated: Emulated) -> str | None:
    places = (
        ("the camera", emulated.camera_load, LOAD_LIMIT),
        ("the server's decoder", emulated.server_load, LOAD_LIMIT),
        ("the server DNN", emulated.dnn_load, LOAD_LIMIT),
        ("the uplink", emulated.uplink_load, 1.0),
        ("the downlink", emulated.downlink_load, 1.0),
    )
    for name, load, limit in places:
        if load > limit:
            return f"{name} has a load of {load:.2f}, above {limit:g}: its queue grows with the clip"
    return None


def _rounded(value_ms: float) -> float:
    return round(float(value_ms), 3)
