"""Files that are there whole or not at all."""

import uuid
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file in one step, and makes its folder.

    Raises:
        OSError: It can't be written (full disk). It names the file, and the old one is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, because two programs may write the same file at once.
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        # A failed write, unlike a failed open, does not say of which file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
