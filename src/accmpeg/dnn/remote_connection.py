"""What an inference server is asked and says in the Open Inference Protocol (KServe v2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from accmpeg.errors import DnnError
from accmpeg.media.addresses import Location

__all__ = ["Connection", "ModelFacts", "RemoteModel", "RemoteTensor", "array_of"]

_DATATYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """Which model on which server, and how to get there. The token is not shown."""

    address: str
    """As messages show it; it holds no secret."""
    location: Location
    model: str
    version: str = ""
    timeout_ms: int = 5000
    binary: bool | None = None
    """Whether HTTP carries tensors as bytes; None: where the server says that it can."""
    ca_file: Path | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def is_secure(self) -> bool:
        return self.location.scheme in ("https", "grpcs")

    @property
    def headers(self) -> dict[str, str]:
        """In lower case, as gRPC wants them."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def __str__(self) -> str:
        version = f" (version {self.version})" if self.version else ""
        return f"the model '{self.model}'{version} at {self.address}"

    # What goes wrong in either protocol, in the same words.

    @property
    def silent(self) -> str:
        return (
            f"{self.address} did not answer within {self.timeout_ms} ms: see how busy it is, lower max_batch "
            "or raise timeout_ms in the card's [options]"
        )

    @property
    def refused(self) -> str:
        return f"nothing listens at {self.location.named}: is the inference server running?"

    @property
    def unknown_host(self) -> str:
        return f"no host is called {self.location.host}: correct address in the card's [options]"

    def unwelcome(self, answer: str) -> str:
        return (
            f"{self.address} refused the token ({answer}): correct token_variable or token_file in the "
            "card's [options]"
        )

    def too_large(self, answer: str) -> str:
        return (
            f"{self.address} takes no request of this size ({answer}): raise its limit, or lower max_batch "
            "in the card's [options]"
        )

    def unknown(self, answer: str) -> str:
        return (
            f"there is nothing called {self} ({answer}): correct model in the card, or version in its "
            "[options], or load it there"
        )

    def not_ready(self, *, server: bool) -> str:
        if not server:
            return f"{self.address} is not ready yet: wait until it has loaded its models"
        return f"{self} is not ready: load it there, or see that server's log"


@dataclass(frozen=True, slots=True)
class RemoteTensor:
    """An input or output in a model's metadata; a size of −1 is open."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a server says of itself and a model: all there is to identify a network that lies elsewhere."""

    server: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[RemoteTensor, ...]
    outputs: tuple[RemoteTensor, ...]
    binary: bool
    """Whether tensors travel as bytes."""


class Connection(Protocol):
    """A way to a model. `deadline_s` is of `time.monotonic`: no call lasts longer.

    Both raise `DnnAwayError` for a server that can't be asked now, and `DnnError` for what it refuses.
    """

    def facts(self, deadline_s: float) -> ModelFacts:
        """What the server says of the model, which is ready."""
        ...

    def infer(
        self, name: str, datatype: str, pictures: NDArray[Any], outputs: Sequence[str], deadline_s: float
    ) -> list[NDArray[Any]]:
        """The outputs of these names for the input `name`."""
        ...

    def close(self) -> None: ...


def array_of(model: RemoteModel, name: str, datatype: str, shape: Sequence[int], data: Any) -> NDArray[Any]:
    """An answered tensor: `data` are its bytes, or its numbers. Raises `DnnError` for what is none."""
    dtype = _DATATYPES.get(datatype)
    if dtype is None:
        raise DnnError(
            f"the output '{name}' of {model} is {datatype}, which holds no numbers that are read here: name "
            "those that do as head.outputs in the card"
        )
    try:
        if isinstance(data, bytes | memoryview):
            return np.frombuffer(data, dtype).reshape(tuple(shape))
        return np.asarray(data, dtype).reshape(tuple(shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise DnnError(
            f"the output '{name}' of {model} is no {datatype} tensor of {list(shape)}: see that server's log"
        ) from error
