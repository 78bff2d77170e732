"""The names of devices that server DNNs run on."""

import re

from accmpeg.errors import UsageError

__all__ = ["cuda_index"]

_CUDA = re.compile(r"cuda(?::(\d{1,3}))?")


def cuda_index(device: str) -> int | None:
    """Which GPU `cuda` (the first) or `cuda:N` means; None for `cpu`. Raises `UsageError` for another name.

    >>> cuda_index("cuda:1"), cuda_index("cuda"), cuda_index("cpu")
    (1, 0, None)
    """
    if device == "cpu":
        return None
    found = _CUDA.fullmatch(device)
    if found is None:
        raise UsageError(f"there is no device '{device}': use 'cpu', 'cuda' or 'cuda:N', the GPU of number N")
    return int(found[1] or 0)
