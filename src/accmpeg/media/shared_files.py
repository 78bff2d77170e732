"""Footage in object stores and on other servers: any address that fsspec reads, such as `s3://bucket/footage`.

Such a file is fetched whole where and when it is read, and deleted after that: decoders seek.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from accmpeg.errors import MissingExtraError, SourceError, reason
from accmpeg.media.addresses import with_small_scheme

__all__ = ["is_shared_address", "local_file", "shared_files"]


def is_shared_address(location: str | Path) -> bool:
    """Whether it is an address and no path."""
    return isinstance(location, str) and "://" in location


def shared_files(address: str) -> list[str]:
    """The addresses of all files under one, without hidden ones; raises SourceError."""
    files, path = _opened(address)
    try:
        # On a web server a folder's page is a file too: there its address ends with a slash.
        if not address.endswith("/") and files.isfile(path):
            return [address]
        found = files.find(path)
    except Exception as error:  # every file system has its own
        raise SourceError(f"can't list {address}: {reason(error)}") from error
    root = PurePosixPath(path)
    within = [PurePosixPath(name).relative_to(root) for name in found]
    shown = [each for each in within if not any(part.startswith(".") for part in each.parts)]
    return [f"{address.rstrip('/')}/{each}" for each in shown]


@contextmanager
def local_file(location: str | Path) -> Iterator[Path]:
    """A path as it is, or the file at an address for as long as the context lasts; raises SourceError."""
    if not is_shared_address(location):
        yield Path(location)
        return
    address = str(location)
    files, path = _opened(address)
    with tempfile.TemporaryDirectory(prefix="accmpeg-") as folder:
        copy = Path(folder) / PurePosixPath(path).name
        try:
            files.get_file(path, str(copy))
        except Exception as error:
            raise SourceError(f"can't read {address}: {reason(error)}") from error
        try:
            yield copy
        except SourceError as error:
            raise SourceError(str(error).replace(str(copy), address)) from error


def _opened(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(address, "cluster") from error
    try:
        files, path = url_to_fs(with_small_scheme(address))
    except (ImportError, ValueError) as error:  # the package of this protocol, or the protocol
        raise SourceError(f"can't open {address}: {reason(error)}") from error
    return files, path
