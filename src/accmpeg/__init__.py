"""AccMPEG: video streams whose macroblock quality follows the accuracy of a server DNN.

```python
import accmpeg

model = accmpeg.AccModel.load("cheap.card.toml")
with accmpeg.open_source("street.mp4") as source:
    settings = accmpeg.EncoderSettings.for_source(source.info, bitrate_bps=800_000)
    with accmpeg.SteeredEncoder(settings, model) as camera:
        with accmpeg.open_sink("steered.mp4", camera.encoder) as sink:
            for frame in source:
                for unit in camera.encode(frame):
                    sink.write(unit)
            for unit in camera.flush():
                sink.write(unit)
```
"""

import os
from typing import TYPE_CHECKING

from accmpeg.lazy import lazily
from accmpeg.version import __version__

# Since 1.29 ONNX Runtime tells Microsoft what runs where, with a lasting mark of the machine, unless this is
# set before it is loaded. Nobody asked cameras and servers to; who wants it sets 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from accmpeg import errors, evaluation, server, training
    from accmpeg.accmodel.card import AccModelCard
    from accmpeg.accmodel.runtime import AccModel, Scores
    from accmpeg.camera.camera import Camera, stream
    from accmpeg.camera.options import CameraOptions
    from accmpeg.camera.outputs import FrameResult
    from accmpeg.camera.uplink.address import ServerAddress
    from accmpeg.errors import AccmpegError
    from accmpeg.media.decoder import Decoder
    from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
    from accmpeg.media.footage import Footage, find_footage
    from accmpeg.media.inputs import InputOptions
    from accmpeg.media.sink import Sink, open_sink
    from accmpeg.media.source import Source, SourceInfo, open_source
    from accmpeg.steering.encoder import Scorer, StageTimes, SteeredEncoder
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "AccModel",
    "AccModelCard",
    "AccessUnit",
    "AccmpegError",
    "Camera",
    "CameraOptions",
    "Decoder",
    "Encoder",
    "EncoderSettings",
    "Footage",
    "FrameResult",
    "InputOptions",
    "Scorer",
    "Scores",
    "ServerAddress",
    "Sink",
    "Source",
    "SourceInfo",
    "StageTimes",
    "SteeredEncoder",
    "__version__",
    "errors",
    "evaluation",
    "find_footage",
    "open_sink",
    "open_source",
    "server",
    "stream",
    "training",
]
