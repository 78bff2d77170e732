"""Delay from capture to result: a first-in first-out link, and the paper's closed formula."""

from collections.abc import Sequence

__all__ = ["fifo_delays_ms", "paper_delay_s"]

_CHUNK_FRAMES = 10
_BASE_S = 0.1
_ENCODE_S = 0.131
_ACCMODEL_S = 0.08


def fifo_delays_ms(
    capture_ms: Sequence[float],
    camera_ms: Sequence[float],
    frame_bytes: Sequence[int],
    *,
    bandwidth_bps: float,
    propagation_ms: float,
    server_ms: float,
) -> list[float]:
    """Capture-to-result delay of each frame over a link that serialises frames one after another.

    The camera works on one frame at a time; a frame waits until the link has sent those before it.

    >>> fifo_delays_ms([0, 40], [5, 5], [1250, 1250], bandwidth_bps=1e6, propagation_ms=10, server_ms=20)
    [45.0, 45.0]
    >>> fifo_delays_ms([0, 40], [5, 5], [12500, 1250], bandwidth_bps=1e6, propagation_ms=10, server_ms=20)
    [135.0, 105.0]
    """
    delays: list[float] = []
    camera_free_ms = link_free_ms = 0.0
    for captured_ms, work_ms, size_bytes in zip(capture_ms, camera_ms, frame_bytes, strict=True):
        camera_free_ms = max(captured_ms, camera_free_ms) + work_ms
        link_free_ms = max(camera_free_ms, link_free_ms) + size_bytes * 8000 / bandwidth_bps
        delays.append(link_free_ms + propagation_ms + server_ms - captured_ms)
    return delays


def paper_delay_s(size_bytes: int, frames: int, bandwidth_bps: float, *, accmodel: bool = True) -> float:
    """The AccMPEG paper's mean delay: 0.1 s, a ten-frame chunk's bits over the bandwidth, fixed compute.

    >>> round(paper_delay_s(8_000_484, 1800, 0.5e6), 3)
    1.022
    """
    chunk_bits = size_bytes * 8 / (frames / _CHUNK_FRAMES)
    return _BASE_S + chunk_bits / bandwidth_bps + _ENCODE_S + (_ACCMODEL_S if accmodel else 0.0)
