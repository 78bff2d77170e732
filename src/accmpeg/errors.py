"""Every error that AccMPEG raises on purpose.

Each one is also the builtin a caller would reach for, its message names the thing that is wrong and the
way out, and the command line prints it as one line. Library errors are translated where they arise.

```
AccmpegError
├─ UsageError (ValueError)              an option or argument that can't be meant; exit code 2
├─ MissingExtraError (ImportError)      an optional part is not installed
├─ MediaError
│  ├─ SourceError (OSError)             can't open or read footage
│  ├─ SinkError (OSError)               can't write a stream or a file
│  ├─ EncoderError (RuntimeError)       the encoder refused its settings or a frame
│  │  └─ MapIgnoredError                the encoder would drop the quality map
│  └─ DecoderError (RuntimeError)       a bitstream that can't be decoded
├─ CardError (ValueError)               a card that can't be understood
├─ WeightsError (OSError)               weights missing, changed, or unsafe to load
├─ DnnError (RuntimeError)              a server DNN that does not fit its card or fails
│  ├─ DnnAwayError                      an inference server that can't be asked now
│  └─ NoGradientError                   a server DNN that has no usable input gradient
├─ LabelError (RuntimeError)            labels that can't be made or read
├─ TrainingError (RuntimeError)         an AccModel that can't be trained
├─ AccModelError (RuntimeError)         an AccModel that can't run
├─ WireError (ValueError)               a message that is not what the wire says
├─ ClusterError (RuntimeError)          a Ray cluster that is not there, or can't do the work
├─ LinkError (ConnectionError)          a camera that can't talk to its server
└─ EvaluationError (RuntimeError)       a comparison that can't be made
   └─ MethodError                       a method that failed, or did what no real system could
```
"""

import difflib
import re
from collections.abc import Collection

__all__ = [
    "AccModelError",
    "AccmpegError",
    "CardError",
    "ClusterError",
    "DecoderError",
    "DnnAwayError",
    "DnnError",
    "EncoderError",
    "EvaluationError",
    "LabelError",
    "LinkError",
    "MapIgnoredError",
    "MediaError",
    "MethodError",
    "MissingExtraError",
    "NoGradientError",
    "SinkError",
    "SourceError",
    "TrainingError",
    "UsageError",
    "WeightsError",
    "WireError",
    "did_you_mean",
    "one_line",
    "reason",
]

_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class AccmpegError(Exception):
    """Base of every error raised on purpose; `str(error)` is one line for a person."""


class UsageError(AccmpegError, ValueError):
    """An option or argument that can't be meant; the command line exits with 2."""


class MissingExtraError(AccmpegError, ImportError):
    """An optional part of the package is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'accmpeg[{extra}]'")


class MediaError(AccmpegError):
    """Base of everything that goes wrong with pixels and bitstreams."""


class SourceError(MediaError, OSError):
    """Footage that can't be opened or read."""


class SinkError(MediaError, OSError):
    """A stream or file that can't be written."""


class EncoderError(MediaError, RuntimeError):
    """An encoder that refused its settings or a frame."""


class MapIgnoredError(EncoderError):
    """An encoder that would silently drop the quality map."""


class DecoderError(MediaError, RuntimeError):
    """A bitstream that can't be decoded."""


class CardError(AccmpegError, ValueError):
    """A card with a missing, misspelt or senseless key."""


class WeightsError(AccmpegError, OSError):
    """Weights that are missing, differ from their card, or can't be loaded safely."""


class DnnError(AccmpegError, RuntimeError):
    """A server DNN that does not fit its card, or that failed."""


class DnnAwayError(DnnError):
    """An inference server that can't be asked now, and perhaps can later.

    `broken`: the connection was refused or broke before anything came back.
    """

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


class NoGradientError(DnnError):
    """A server DNN without a usable gradient with respect to its input."""


class LabelError(AccmpegError, RuntimeError):
    """Accuracy-gradient labels that can't be made or read."""


class TrainingError(AccmpegError, RuntimeError):
    """An AccModel that can't be trained from what was given."""


class AccModelError(AccmpegError, RuntimeError):
    """An AccModel that can't run."""


class EvaluationError(AccmpegError, RuntimeError):
    """A comparison that can't be made from what was given."""


class MethodError(EvaluationError):
    """A compared method that failed, or that did what no real system could."""


class WireError(AccmpegError, ValueError):
    """A message between camera and server that is not what the wire says."""


class ClusterError(AccmpegError, RuntimeError):
    """A Ray cluster that is not there, or whose nodes can't do the work."""


class LinkError(AccmpegError, ConnectionError):
    """A camera that can't talk to its server, or was refused by it.

    `final`: coming back can't help until somebody changes something. `refused`: the server itself said so.
    """

    def __init__(self, message: str, *, final: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.final = final
        self.refused = refused


def did_you_mean(name: str, valid: Collection[str], others: str = "choose one of") -> str:
    """The way out of a misspelling: the nearest valid name, or where none is near all of them."""
    near = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean '{near[0]}'?" if near else f"{others} {', '.join(valid) or 'none'}"


def one_line(said: object, part: slice = slice(300)) -> str:
    """What a library says, in paragraphs and colours, as one line of bearable length."""
    return " ".join(_COLOUR.sub("", str(said)).split())[part] or type(said).__name__


def reason(error: Exception) -> str:
    """What the system or a library says of its error, without the names and numbers around it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
