"""Networks on an inference server elsewhere: `model` is their name there, `[options]` say where that is.

```toml
adapter = "remote"
model = "street"

[options]
address = "grpc://triton.example:8001"   # or grpcs://, http://, https://
version = "3"                            # the server's choice
timeout_ms = 5000                        # for one batch, with all that it takes to get there
max_batch = 8                            # any number
binary = true                            # HTTP: where the server says that it can
token_variable = "TRITON_TOKEN"          # the environment variable that holds the token, or
token_file = "/run/secrets/triton"       # the file
ca_file = "ca.pem"                       # this machine's authorities
insecure = false                         # true lets a token cross the network unencrypted
```

The server describes its model when the connection opens, and the card must agree. While a server is away,
frames fail at once, and it is asked again after the waits of `Backoff`.
"""

import functools
import logging
import math
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from accmpeg.dnn.card import DnnCard, explain
from accmpeg.dnn.picture_input import PictureInput, wanted_outputs
from accmpeg.dnn.remote_connection import Connection, ModelFacts, RemoteModel
from accmpeg.errors import (
    AccmpegError,
    CardError,
    DnnAwayError,
    DnnError,
    MissingExtraError,
    NoGradientError,
    UsageError,
)
from accmpeg.media.addresses import describe, is_loopback, locate
from accmpeg.protocol.backoff import Backoff

if TYPE_CHECKING:
    import torch

__all__ = ["RemoteNetwork", "open_remote"]

SCHEMES = ("http", "https", "grpc", "grpcs")

log = logging.getLogger(__name__)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    version: str | int = ""
    timeout_ms: int = Field(default=5000, ge=1, le=600_000)
    max_batch: int | None = Field(default=None, ge=1)
    binary: bool | None = None
    token_variable: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _check(self) -> "_Options":
        if self.token_variable and self.token_file:
            raise ValueError("token_variable and token_file: give one of them")
        return self


def open_remote(card: DnnCard, model: Path, threads: int | None, device: str) -> "RemoteNetwork":
    """Reaches the server that the card names, and holds what it says of the model against the card.

    Files in the options are relative to the card. `threads` and `device` are that server's own.

    Raises:
        CardError: An option that can't be meant, or a token that is not there.
        DnnAwayError: The server can't be reached, or it or the model is not ready.
        DnnError: The model does not fit its card.
        MissingExtraError: A client library is not installed.
    """
    if not re.fullmatch(r"[\w.-]+", card.model):
        raise CardError(f"{card.name}: model = '{card.model}' is no name of a model on an inference server")
    try:
        options = _Options.model_validate(card.options)
    except ValidationError as error:
        raise CardError(f"{card.name}: [options]: {explain(error, _Options)}") from error
    find = functools.partial(_model, card, options, model.parent)
    return RemoteNetwork(card, options.max_batch, find, _protocol(options))


def _model(card: DnnCard, options: _Options, folder: Path) -> RemoteModel:
    shown = describe(options.address)
    try:
        found = locate(options.address)
    except UsageError as error:
        raise CardError(f"{card.name}: [options]: address = {error}") from None
    is_grpc = found.scheme.startswith("grpc")
    if found.scheme not in SCHEMES or not found.host:
        raise CardError(
            f"{card.name}: [options]: address = '{shown}' is no inference server: give http://host:port, "
            "https://…, grpc://host:port or grpcs://…"
        )
    if found.user is not None or found.is_doubtful or "?" in found.path or "#" in found.path:
        raise CardError(
            f"{card.name}: [options]: address = '{shown}' may hold no secret: name a token with "
            "token_variable or token_file"
        )
    if is_grpc and (found.port is None or found.path not in ("", "/")):
        raise CardError(
            f"{card.name}: [options]: address = '{shown}': give {found.scheme}://host:port, no path"
        )
    token = _token(card, options, folder)
    if token and found.scheme in ("http", "grpc") and not options.insecure and not is_loopback(found.host):
        raise CardError(
            f"{card.name}: the token would cross the network unencrypted to {shown}: use {found.scheme}s://, "
            "or insecure = true in [options] where the network itself is encrypted"
        )
    ca_file = folder / options.ca_file if options.ca_file else None
    if ca_file is not None:
        try:
            ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = "there is no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise CardError(f"{card.name}: [options]: ca_file = {ca_file}: {reason}") from error
    return RemoteModel(
        address=shown.rstrip("/"),
        location=found,
        model=card.model,
        version=str(options.version),
        timeout_ms=options.timeout_ms,
        binary=options.binary,
        ca_file=ca_file,
        token=token,
    )


def _token(card: DnnCard, options: _Options, folder: Path) -> str | None:
    if options.token_variable:
        token, where = os.environ.get(options.token_variable, ""), f"the variable {options.token_variable}"
        reason = "is not set"
    elif options.token_file:
        where = str(folder / options.token_file)
        try:
            token, reason = (folder / options.token_file).read_text(encoding="utf-8-sig"), "is empty"
        except (OSError, UnicodeDecodeError) as error:
            token, reason = "", f"can't be read ({getattr(error, 'strerror', None) or error})"
    else:
        return None
    token = token.strip()
    if not token:
        raise CardError(f"{card.name}: {where} {reason}: it must hold the token of the inference server")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CardError(f"{card.name}: {where} must hold one line, the token of the inference server")
    return token


def _protocol(options: _Options) -> "Callable[[RemoteModel], Connection]":
    """Imported only for cards that need it: the libraries are an extra."""
    try:
        if options.address.lower().startswith("grpc"):
            from accmpeg.dnn.remote_grpc import GrpcConnection

            return GrpcConnection
        from accmpeg.dnn.remote_http import HttpConnection

        return HttpConnection
    except ModuleNotFoundError as error:
        raise MissingExtraError("the adapter 'remote'", "remote") from error


@dataclass(frozen=True, slots=True)
class _Opened:
    """A connection whose model fits the card."""

    connection: Connection
    picture: PictureInput
    datatype: str
    outputs: Sequence[str]


class RemoteNetwork:
    """A model of an inference server; one thread at a time. `max_batch` is the card's, or the model's own.

    `find` says where it is and with which token, `connect` goes there.
    """

    def __init__(
        self,
        card: DnnCard,
        max_batch: int | None,
        find: Callable[[], RemoteModel],
        connect: Callable[[RemoteModel], Connection],
    ) -> None:
        self._card = card
        self._find = find
        self._connect = connect
        self._model = find()
        self._most = max_batch
        self._backoff = Backoff(random.random)
        self._asked_again_s = -math.inf
        self._problem = ""
        self.max_batch = max_batch
        self._opened: _Opened | None = self._open(self._deadline_s())

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """The model's outputs for `(n, 3, height, width)`, within the card's `timeout_ms`.

        Raises `DnnAwayError` while the server can't be asked, at once where that was so a moment ago, and
        `DnnError` for what it refuses.
        """
        wait_s = self._asked_again_s - time.monotonic()
        if wait_s > 0:
            raise DnnAwayError(f"{self._problem}; it is asked again in {wait_s:.0f} s")
        try:
            outputs = self._ask(batch, self._deadline_s())
        except AccmpegError as error:
            is_away = isinstance(error, DnnAwayError) or self._opened is None
            # What refused a request may have changed: its model is looked at again before the next.
            self._close()
            if is_away:
                self._problem = str(error)
                self._asked_again_s = time.monotonic() + self._backoff.failed()
            raise
        self._backoff.succeeded()
        return outputs

    def differentiable(self, device: str) -> "Callable[[torch.Tensor], Sequence[torch.Tensor]]":
        """Raises `NoGradientError`: the protocol carries none."""
        raise NoGradientError(
            f"{self._card.name} runs on {self._model.address}, which gives no gradient: label with a card of "
            "the same network on this machine, or in the black-box mode (--black-box N)"
        )

    def _deadline_s(self) -> float:
        return time.monotonic() + self._model.timeout_ms / 1000

    def _ask(self, batch: NDArray[np.float32], deadline_s: float) -> list[NDArray[Any]]:
        if self._opened is None:
            self._opened = self._open(deadline_s)
        try:
            return self._infer(self._opened, batch, deadline_s)
        except DnnAwayError as error:
            if not error.broken:
                raise
        # The server closed a connection that was idle, or has been started anew. An inference leaves no
        # trace, so it may be asked twice; after a time-out the server may still be at the first.
        self._close()
        self._opened = self._open(deadline_s)
        return self._infer(self._opened, batch, deadline_s)

    def _infer(self, opened: _Opened, batch: NDArray[np.float32], deadline_s: float) -> list[NDArray[Any]]:
        pictures = opened.picture.of(batch)
        asked = len(pictures) if pictures.ndim == 4 else 1
        name = self._card.input.name
        outputs = opened.connection.infer(name, opened.datatype, pictures, opened.outputs, deadline_s)
        for output, called in zip(outputs, opened.outputs, strict=True):
            # One picture's answer may be without a batch axis.
            if asked > 1 and (output.ndim == 0 or len(output) != asked):
                raise DnnError(
                    f"{self._model} gave '{called}' of {output.shape} for {asked} pictures: write "
                    "max_batch = 1 into the card's [options] if it takes one at a time"
                )
        return [output[: len(batch)] for output in outputs] if asked > len(batch) else outputs

    def _open(self, deadline_s: float) -> _Opened:
        self._model = self._find()  # anew: tokens in files are exchanged while a server runs
        connection = self._connect(self._model)
        try:
            facts = connection.facts(deadline_s)
            opened = self._fitting(connection, facts)
            self.max_batch = min(filter(None, (self._most, opened.picture.batch)), default=None)
        except BaseException:
            connection.close()
            raise
        log.info(
            "inference server reached",
            extra={
                "dnn": self._card.name,
                "address": self._model.address,
                "server": facts.server,
                "model": self._model.model,
                "versions": ",".join(facts.versions),
                "platform": facts.platform,
            },
        )
        return opened

    def _fitting(self, connection: Connection, facts: ModelFacts) -> _Opened:
        """Raises `DnnError` unless the card says what the server says."""
        card, model = self._card, str(self._model)
        if not facts.inputs or not facts.outputs:
            kind = "outputs" if facts.inputs else "inputs"
            raise DnnError(
                f"{model} names no {kind}, so the card of {card.name} can't be held against it: describe the "
                f"model's {kind} on that server (MLServer: in model-settings.json)"
            )
        picture = PictureInput(model, facts.inputs, card.input.layout)
        picture.check(card, model)
        if facts.inputs[0].type == "FP16" and not facts.binary:
            raise DnnError(
                f"{model} reads FP16, which JSON can't carry: use grpc://, or binary = true in the card's "
                "[options] where that server takes bytes over HTTP"
            )
        outputs = wanted_outputs(card, model, [output.name for output in facts.outputs])
        return _Opened(connection, picture, facts.inputs[0].type, outputs)

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.connection.close()
            self._opened = None
