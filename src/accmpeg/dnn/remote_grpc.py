"""The Open Inference Protocol over gRPC, with the stubs and the client of `tritonclient`."""

import os
import ssl
import time
from collections.abc import Sequence
from typing import Any

# Read when gRPC is loaded. It remarks on every connection on stderr; what matters is in its errors too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from accmpeg.dnn.remote_connection import ModelFacts, RemoteModel, RemoteTensor, array_of
from accmpeg.errors import DnnAwayError, DnnError, one_line

__all__ = ["GrpcConnection"]

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A new connection must be tried when it is asked for: others would share this one's own waits.
    ("grpc.use_local_subchannel_pool", 1),
]
CONTENTS = {
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""Where an answer has its numbers that does not have them as bytes."""


class GrpcConnection:
    """Asks one model of one server, over a channel that stays open."""

    def __init__(self, model: RemoteModel) -> None:
        self._model = model
        # gRPC brings authorities of its own; those of this machine are what HTTP trusts too.
        authorities = model.ca_file or ssl.get_default_verify_paths().cafile
        self._client = InferenceServerClient(
            model.location.named,
            ssl=model.is_secure,
            root_certificates=str(authorities) if authorities else None,
            channel_args=CHANNEL,
        )

    def facts(self, deadline_s: float) -> ModelFacts:
        """What the server says of the model; raises `DnnAwayError` unless both are ready, and `DnnError`."""
        model, client = self._model, self._client
        named = {"model_name": model.model, "model_version": model.version}
        if not self._call(client.is_server_live, deadline_s):
            raise DnnAwayError(model.not_ready(server=False))
        try:
            found = self._call(client.get_model_metadata, deadline_s, **named)
        except _RefusedError as error:
            raise DnnAwayError(model.unknown(error.said)) from error
        if not self._call(client.is_model_ready, deadline_s, **named):
            raise DnnAwayError(model.not_ready(server=self._call(client.is_server_ready, deadline_s)))
        server = self._call(client.get_server_metadata, deadline_s)
        return ModelFacts(
            server=f"{server.name} {server.version}".strip(),
            versions=tuple(found.versions),
            platform=found.platform,
            inputs=_tensors(found.inputs),
            outputs=_tensors(found.outputs),
            binary=True,
        )

    def infer(
        self, name: str, datatype: str, pictures: NDArray[Any], outputs: Sequence[str], deadline_s: float
    ) -> list[NDArray[Any]]:
        """The outputs for a batch; raises `DnnAwayError` and `DnnError`."""
        model = self._model
        tensor = InferInput(name, list(pictures.shape), datatype).set_data_from_numpy(pictures)
        try:
            response = self._call(
                self._client.infer,
                deadline_s,
                model_name=model.model,
                model_version=model.version,
                inputs=[tensor],
                outputs=[InferRequestedOutput(output) for output in outputs],
            ).get_response()
        except _RefusedError as error:
            raise DnnError(f"{model} failed: {error.said}") from error
        found = {}
        for index, each in enumerate(response.outputs):
            data: Any = b""
            if index < len(response.raw_output_contents):
                data = response.raw_output_contents[index]
            elif each.datatype in CONTENTS:
                data = getattr(each.contents, CONTENTS[each.datatype])
            found[each.name] = (each.datatype, each.shape, data)
        missing = next((output for output in outputs if output not in found), None)
        if missing is not None:
            raise DnnError(f"{model} gave no output '{missing}', only {', '.join(found)}")
        return [array_of(model, output, *found[output]) for output in outputs]

    def close(self) -> None:
        self._client.close()

    def _call(self, method: Any, deadline_s: float, **arguments: Any) -> Any:
        model = self._model
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DnnAwayError(model.silent)
        try:
            return method(headers=model.headers, client_timeout=left_s, **arguments)
        except InferenceServerException as error:
            said = one_line(error.message())
            match str(error.status()).removeprefix("StatusCode."):
                case "DEADLINE_EXCEEDED":
                    raise DnnAwayError(model.silent) from error
                case "UNAVAILABLE" if "Connection refused" in said:
                    raise DnnAwayError(model.refused, broken=True) from error
                case "UNAVAILABLE" if "DNS" in said or "resol" in said:
                    raise DnnAwayError(model.unknown_host) from error
                case "UNAVAILABLE":
                    raise DnnAwayError(f"{model.address} can't be asked: {said}", broken=True) from error
                case "UNAUTHENTICATED" | "PERMISSION_DENIED" as code:
                    raise DnnError(model.unwelcome(f"{code}, {said}")) from error
                case "RESOURCE_EXHAUSTED":
                    raise DnnError(model.too_large(said)) from error
                case "UNIMPLEMENTED":
                    raise DnnError(
                        f"{model.address} is no inference server that speaks v2 of the protocol: {said}"
                    ) from error
                case code:
                    raise _RefusedError(model, f"{code}, {said}") from error


class _RefusedError(DnnError):
    """The server understood, and says no."""

    def __init__(self, model: RemoteModel, said: str) -> None:
        super().__init__(f"{model.address} refused ({said}): see that server's log")
        self.said = said


def _tensors(described: Any) -> tuple[RemoteTensor, ...]:
    return tuple(RemoteTensor(each.name, each.datatype, tuple(each.shape)) for each in described)
