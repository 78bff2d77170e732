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

from accmpeg.accmodel.runtime import AccModel
from accmpeg.camera import Camera, SteeredEncoder, stream
from accmpeg.errors import AccmpegError
from accmpeg.media.encoder import EncoderSettings
from accmpeg.media.sink import open_sink
from accmpeg.media.source import open_source
from accmpeg.version import __version__

__all__ = [
    "AccModel",
    "AccmpegError",
    "Camera",
    "EncoderSettings",
    "SteeredEncoder",
    "__version__",
    "open_sink",
    "open_source",
    "stream",
]
