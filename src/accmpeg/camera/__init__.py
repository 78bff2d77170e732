"""The camera's side: it installs no PyTorch, OpenCV or web framework."""

from accmpeg.camera.live import Camera, CameraOptions, stream
from accmpeg.camera.outputs import LiveResult
from accmpeg.steering.encoder import StageTimes, SteeredEncoder

__all__ = ["Camera", "CameraOptions", "LiveResult", "StageTimes", "SteeredEncoder", "stream"]
