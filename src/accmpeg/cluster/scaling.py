"""How many replicas of the server a cluster runs. Loads no Ray."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from accmpeg.errors import UsageError
from accmpeg.options import Option
from accmpeg.server.cameras import CameraRecord
from accmpeg.server.settings import ServerSettings

__all__ = ["CamerasAndDelay", "Scale", "longest_wait_ms", "replicas_wanted"]

CALM = 0.5
"""Replicas are given back only while the wait is below this share of what is allowed."""
SILENT_S = 10.0
"""A camera that has sent nothing for so long waits for nothing."""


def replicas_wanted(
    running: int,
    cameras: Iterable[float],
    queue_ms: Iterable[float],
    *,
    cameras_each: float,
    allowed_ms: float,
) -> float:
    """Replicas for the cameras that are here, and one more where frames wait for the DNN for too long.

    `cameras` and `queue_ms` are those of each replica: its connected cameras, and their median wait.

    >>> replicas_wanted(2, [8, 8], [10, 12], cameras_each=4, allowed_ms=100)
    4.0
    >>> replicas_wanted(2, [3, 3], [10, 250], cameras_each=4, allowed_ms=100)
    3.0

    Where the wait is not short, none is given back:

    >>> replicas_wanted(2, [1, 1], [10, 60], cameras_each=4, allowed_ms=100)
    2.0
    """
    by_cameras = sum(cameras) / cameras_each
    longest_ms = max(queue_ms, default=0.0)
    if longest_ms > allowed_ms:
        return max(by_cameras, running + 1.0)
    if longest_ms > CALM * allowed_ms:
        return max(by_cameras, float(running))
    return by_cameras


def longest_wait_ms(cameras: Iterable[CameraRecord], now_s: float) -> float:
    """The median wait for the DNN, of the camera for which it is longest; `now_s` is of `time.monotonic`."""
    waits = [
        each.stages_ms["queue"]
        for each in cameras
        if each.connected and now_s - each.last_frame_s < SILENT_S and each.stages_ms.get("queue")
    ]
    return max(map(statistics.median, waits), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many replicas of the server run, and what each takes of its node."""

    min_replicas: Annotated[int, Option("Fewest replicas.", min=1)] = 1
    max_replicas: Annotated[int, Option("Most replicas.", min=1)] = 8
    cameras_per_replica: Annotated[
        float, Option("Cameras that a replica is meant for; with more of them another starts.", min=0.1)
    ] = 16.0
    queue_ms: Annotated[
        float, Option("Another replica starts too where frames wait for the DNN for longer.", min=1)
    ] = 100.0
    cpus: Annotated[float, Option("CPUs of each replica.", min=0)] = 1.0
    gpus: Annotated[float, Option("GPUs of each replica; 0.5 lets two share one.", min=0)] = 0.0

    def check(self, settings: ServerSettings) -> None:
        """Raises `UsageError` for what can't be meant."""
        if self.max_replicas < self.min_replicas:
            raise UsageError(f"--max-replicas {self.max_replicas}: give {self.min_replicas} or more")
        on_gpu = settings.device != "cpu"
        if on_gpu != (self.gpus > 0):
            raise UsageError(
                f"--device {settings.device} needs --gpus, the share of each replica"
                if on_gpu
                else f"--gpus {self.gpus:g} with --device cpu: give --device cuda"
            )
        for name, given, way_out in (
            ("--results", settings.results, "every replica would write a file of its own: give --mqtt"),
            ("--input", settings.inputs, "every replica would fetch it: run `accmpeg serve --input` for it"),
            ("--dnn-folder", settings.dnn_folder, "only one replica would change: deploy again"),
        ):
            if given:
                raise UsageError(f"{name} is not for a cluster, {way_out}")


class CamerasAndDelay:
    """The autoscaling policy that Ray Serve asks; what the replicas report is `record_autoscaling_stats`."""

    def __init__(self, cameras_each: float, allowed_ms: float) -> None:
        self._cameras_each = cameras_each
        self._allowed_ms = allowed_ms

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        told = context.aggregated_metrics or {}
        wanted = replicas_wanted(
            context.current_num_replicas,
            told.get("cameras", {}).values(),
            told.get("queue_ms", {}).values(),
            cameras_each=self._cameras_each,
            allowed_ms=self._allowed_ms,
        )
        return wanted, {}
