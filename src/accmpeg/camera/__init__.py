"""The camera's side: it installs no PyTorch, OpenCV or web framework."""

from accmpeg.camera.steering import StageTimes, SteeredEncoder

__all__ = ["StageTimes", "SteeredEncoder"]
