"""What accuracy means: a file per task, each with its result type, accuracy and differentiable agreement."""

from typing import get_args

from accmpeg.errors import UsageError
from accmpeg.tasks.base import ClipAccuracy, Dense, Task, TaskName

__all__ = ["ClipAccuracy", "Dense", "Task", "TaskName", "get_task"]


def get_task(name: str, *, score_threshold: float = 0.25, visibility_threshold: float = 0.5) -> Task:
    """The task of that name, with the thresholds of a server DNN (0 to 1).

    Raises `UsageError` for an unknown name.
    """
    # Imported here so that a camera or a card reader never pays for OpenCV (a second).
    match name:
        case "detection":
            from accmpeg.tasks.detection import DetectionTask

            return DetectionTask(score_threshold)
        case "segmentation":
            from accmpeg.tasks.segmentation import SegmentationTask

            return SegmentationTask()
        case "keypoints":
            from accmpeg.tasks.keypoints import KeypointTask

            return KeypointTask(score_threshold, visibility_threshold)
        case "instances":
            from accmpeg.tasks.instances import InstanceTask

            return InstanceTask(score_threshold)
    raise UsageError(f"there is no task '{name}': choose one of {', '.join(get_args(TaskName))}")
