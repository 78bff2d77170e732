"""What servers offered, on disk: the last offer of each address, and AccModels by their hash."""

import contextlib
import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from accmpeg.files import write_whole
from accmpeg.protocol.wire import ACCMODEL_LIMIT_BYTES, Offer

__all__ = ["OfferCache", "default_folder"]

MOST_ACCMODELS = 8
"""The ones used last; a server that offers another one each day does not fill the disk."""
_OFFER_LIMIT_BYTES = 64 << 10


def default_folder() -> Path:
    """`accmpeg` among the user's caches."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "accmpeg"
    except RuntimeError:  # a user without a home: nothing can be kept there, which the log then says
        return Path(os.devnull) / "accmpeg"


class OfferCache:
    """Several cameras may share a folder: files appear whole. What can't be read is as if it were not there.

    Args:
        folder: Made when something is kept.
        server: The address whose offers these are, with the DNN that was asked for.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self._accmodels = folder / "accmodels"
        self._offer = folder / "offers" / f"{hashlib.sha256(server.encode()).hexdigest()[:32]}.json"

    def offer(self) -> Offer | None:
        """The last one that was adopted."""
        data = _read(self._offer, _OFFER_LIMIT_BYTES)
        with contextlib.suppress(ValidationError):
            return None if data is None else Offer.model_validate_json(data)
        return None

    def remember(self, offer: Offer | None) -> None:
        """Keeps the offer for the next start; None forgets it. Raises OSError."""
        if offer is None:
            self._offer.unlink(missing_ok=True)
        else:
            _write(self._offer, offer.model_dump_json().encode())

    def weights(self, sha256: str) -> bytes | None:
        """The ONNX file of this hash, if it is there and whole."""
        file = self._accmodels / f"{sha256}.onnx"
        data = _read(file, ACCMODEL_LIMIT_BYTES)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # it is in use
        return data

    def keep(self, sha256: str, weights: bytes) -> None:
        """Stores an ONNX file, and deletes those that were used longest ago. Raises OSError."""
        _write(self._accmodels / f"{sha256}.onnx", weights)
        files = sorted(self._accmodels.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[MOST_ACCMODELS:]:
            file.unlink(missing_ok=True)


def _read(file: Path, limit_bytes: int) -> bytes | None:
    try:
        with file.open("rb") as opened:
            data = opened.read(limit_bytes + 1)
    except OSError:
        return None
    return data if len(data) <= limit_bytes else None


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, data)
