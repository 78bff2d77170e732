"""The camera's side: it installs no PyTorch, OpenCV or web framework."""

from accmpeg.camera.steering import SteeredEncoder, StageTimes

__all__ = ["StageTimes", "SteeredEncoder"]
