"""The camera's side: it installs no PyTorch, OpenCV or web framework."""

from accmpeg.camera.camera import Camera, stream
from accmpeg.camera.options import CameraOptions
from accmpeg.camera.outputs import FrameResult
from accmpeg.steering.encoder import StageTimes, SteeredEncoder

__all__ = ["Camera", "CameraOptions", "FrameResult", "StageTimes", "SteeredEncoder", "stream"]
