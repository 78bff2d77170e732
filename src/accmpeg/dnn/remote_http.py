"""The Open Inference Protocol over HTTP.

On urllib3, which is thread-safe and bounds every wait. `tritonclient.http` runs on gevent: its client belongs
to the thread that made it, and its time-outs begin anew with each piece of a body.
"""

import json
import ssl
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import urllib3
from numpy.typing import NDArray
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
    TimeoutError,
)

from accmpeg.dnn.remote_connection import ModelFacts, RemoteModel, RemoteTensor, array_of
from accmpeg.errors import DnnAwayError, DnnError, one_line

__all__ = ["HttpConnection"]

AWAY = frozenset({404, 408, 429, 502, 503, 504})
"""Of a server or a proxy before it that can't answer now: it starts, loads a model, or has too much to do."""
BINARY = "binary_tensor_data"
"""The extension, as a server's metadata name it."""
JSON_LENGTH = "Inference-Header-Content-Length"
PIECE_BYTES = 1 << 20


class HttpConnection:
    """Asks one model of one server, over a connection that stays open."""

    def __init__(self, model: RemoteModel) -> None:
        self._model = model
        where = model.location
        version = f"/versions/{quote(model.version, safe='')}" if model.version else ""
        self._base = f"{where.path.rstrip('/')}/v2"
        self._of_model = f"{self._base}/models/{quote(model.model, safe='')}{version}"
        self._binary = bool(model.binary)
        self._pool = urllib3.connection_from_url(
            f"{where.scheme}://{where.named}",
            **({"ssl_context": ssl.create_default_context(cafile=model.ca_file)} if model.is_secure else {}),
        )

    def facts(self, deadline_s: float) -> ModelFacts:
        """What the server says of the model; raises `DnnAwayError` unless both are ready, and `DnnError`."""
        model = self._model
        status, _ = self._ask("GET", f"{self._base}/health/live", deadline_s)
        if status != 200:
            raise self._refusal(
                status, f"{model.address} is no inference server that speaks v2 of the protocol"
            )
        status, _ = self._ask("GET", f"{self._of_model}/ready", deadline_s)
        described, text = self._ask("GET", self._of_model, deadline_s)
        if described in (400, 404):
            raise DnnAwayError(model.unknown(self._said(described, text)))
        if described != 200:
            raise self._refusal(described, f"{model.address} does not describe {model.model}", text)
        if status != 200:
            ready, _ = self._ask("GET", f"{self._base}/health/ready", deadline_s)
            raise DnnAwayError(model.not_ready(server=ready == 200))
        server_status, server_text = self._ask("GET", self._base, deadline_s)
        server = self._json(server_text) if server_status == 200 else {}
        found = self._json(text)
        if model.binary is None:
            self._binary = BINARY in (server.get("extensions") or ())
        try:
            return ModelFacts(
                server=f"{server.get('name', '')} {server.get('version', '')}".strip(),
                versions=tuple(map(str, found.get("versions") or ())),
                platform=str(found.get("platform", "")),
                inputs=_tensors(found.get("inputs")),
                outputs=_tensors(found.get("outputs")),
                binary=self._binary,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DnnError(f"what {model.address} says of {model.model} can't be understood") from error

    def infer(
        self, name: str, datatype: str, pictures: NDArray[Any], outputs: Sequence[str], deadline_s: float
    ) -> list[NDArray[Any]]:
        """The outputs for a batch; raises `DnnAwayError` and `DnnError`."""
        tensor: dict[str, Any] = {"name": name, "shape": list(pictures.shape), "datatype": datatype}
        wanted: list[dict[str, Any]] = [{"name": output} for output in outputs]
        if not self._binary:
            tensor["data"] = pictures.ravel().tolist()
            body, headers = json.dumps({"inputs": [tensor], "outputs": wanted}).encode(), {}
        else:
            tensor["parameters"] = {"binary_data_size": pictures.nbytes}
            wanted = [each | {"parameters": {"binary_data": True}} for each in wanted]
            head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
            body, headers = (
                b"".join([head, np.ascontiguousarray(pictures).data]),
                {JSON_LENGTH: str(len(head))},
            )
        headers["Content-Type"] = "application/octet-stream" if self._binary else "application/json"
        status, answer, split = self._exchange("POST", f"{self._of_model}/infer", deadline_s, body, headers)
        if status == 413:
            raise DnnError(self._model.too_large(self._said(status, answer)))
        if status != 200:
            raise self._refusal(status, f"{self._model} failed", answer)
        return self._outputs(answer, split, outputs)

    def close(self) -> None:
        self._pool.close()

    def _outputs(self, answer: bytes, split: str | None, wanted: Sequence[str]) -> list[NDArray[Any]]:
        try:
            length = len(answer) if split is None else int(split)
            at, found = length, {}
            for each in json.loads(answer[:length])["outputs"]:
                size = (each.get("parameters") or {}).get("binary_data_size")
                data = each["data"] if size is None else memoryview(answer)[at : at + int(size)]
                at += int(size or 0)
                found[each["name"]] = (each["datatype"], each["shape"], data)
            missing = next((name for name in wanted if name not in found), None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DnnError(f"{self._model} answered what is no inference response") from error
        if missing is not None:
            raise DnnError(f"{self._model} gave no output '{missing}', only {', '.join(found)}")
        return [array_of(self._model, name, *found[name]) for name in wanted]

    def _ask(self, method: str, path: str, deadline_s: float) -> tuple[int, bytes]:
        status, answer, _ = self._exchange(method, path, deadline_s, None, {})
        return status, answer

    def _exchange(
        self, method: str, path: str, deadline_s: float, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, str | None]:
        """Status, body, and where its JSON ends; raises `DnnAwayError`."""
        model = self._model
        try:
            # What is safe to ask again is known by the caller.
            response = self._pool.urlopen(
                method,
                path,
                body,
                model.headers | headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(total=self._left_s(deadline_s)),
                preload_content=False,
            )
            pieces = []
            try:
                while piece := response.read1(PIECE_BYTES):
                    pieces.append(piece)
                    self._left_s(deadline_s)
            except BaseException:
                response.close()  # what is left of the answer must not be taken for the next one
                raise
            response.release_conn()
            return response.status, b"".join(pieces), response.headers.get(JSON_LENGTH)
        except NameResolutionError as error:
            raise DnnAwayError(model.unknown_host) from error
        except NewConnectionError as error:
            raise DnnAwayError(model.refused, broken=True) from error
        except TimeoutError as error:
            raise DnnAwayError(model.silent) from error
        except SSLError as error:
            raise DnnAwayError(f"no TLS with {model.location.named}: {one_line(error)}") from error
        except ProtocolError as error:
            raise DnnAwayError(f"{model.address} broke the connection", broken=True) from error
        except (HTTPError, OSError, ValueError) as error:
            raise DnnAwayError(f"{model.address} can't be asked: {one_line(error)}") from error

    def _left_s(self, deadline_s: float) -> float:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DnnAwayError(self._model.silent)
        return left_s

    def _refusal(self, status: int, what: str, text: bytes = b"") -> DnnError:
        said = self._said(status, text)
        if status in (401, 403):
            return DnnError(self._model.unwelcome(said))
        return (DnnAwayError if status in AWAY else DnnError)(f"{what}: {said}")

    def _said(self, status: int, text: bytes) -> str:
        """The status, and the reason that a server gives in its JSON."""
        try:
            reason = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            return f"HTTP {status}"
        return f"HTTP {status}, {one_line(reason)}"

    def _json(self, text: bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DnnError(f"{self._model.address} answers no JSON: is it an inference server?")
        return found


def _tensors(described: Any) -> tuple[RemoteTensor, ...]:
    return tuple(
        RemoteTensor(str(each["name"]), str(each["datatype"]), tuple(int(size) for size in each["shape"]))
        for each in described or ()
    )
