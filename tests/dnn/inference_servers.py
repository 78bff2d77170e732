"""Real inference servers on real sockets that run a real ONNX network, and can be told to misbehave.

`python -m tests.dnn.inference_servers FOLDER` runs both until it is stopped, and writes their cards.
"""

import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import grpc
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from accmpeg.demo import assets_path
from accmpeg.dnn.card import read_card, write_card

__all__ = ["DETECTOR", "GrpcServer", "HttpServer", "Model", "remote_card"]

DETECTOR = assets_path() / "detector.card.toml"

TYPES = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8, "INT64": np.int64}
NAMES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(uint8)": "UINT8",
    "tensor(int64)": "INT64",
}


def remote_card(folder: Path, address: str, *, like: Path = DETECTOR, **changes: Any) -> Path:
    """Writes a remote card that is else like another one; `changes` of other names are its options."""
    old = read_card(like)
    known = {key: changes.pop(key) for key in list(changes) if key in type(old).model_fields}
    settings = {"adapter": "remote", "model": "detector", "sha256": None, **known}
    settings["options"] = {"address": address, **changes}
    path = folder / "remote.card.toml"
    write_card(old.model_copy(update=settings), path)
    return path


class Model:
    """The demo's detector as an inference server has it; what it says and does may be changed."""

    name = "detector"

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(assets_path() / "detector.onnx", options)
        self.inputs = self._described(self._session.get_inputs())
        self.outputs = self._described(self._session.get_outputs())
        self.extensions = ["binary_tensor_data"]
        self.is_live = self.is_ready = self.server_is_ready = True
        self.answers: list[dict[str, Any]] | None = None
        """In the place of what the network gives (HTTP only)."""
        self.wait_s = 0.0
        self.batches: list[int] = []
        self.token: str | None = None

    def infer(self, pictures: NDArray[Any], wanted: list[str]) -> list[NDArray[Any]]:
        self.batches.append(len(pictures))
        time.sleep(self.wait_s)
        outputs: list[NDArray[Any]] = self._session.run(wanted, {self.inputs[0]["name"]: pictures})
        return outputs

    @staticmethod
    def _described(tensors: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "datatype": NAMES[each.type],
                "shape": [size if isinstance(size, int) else -1 for size in each.shape],
            }
            for each in tensors
        ]


class HttpServer:
    """The protocol over HTTP, with bytes or JSON."""

    def __init__(self, model: Model, port: int = 0, certificate: tuple[Path, Path] | None = None) -> None:
        self.model = model
        self.requests: list[str] = []
        self.wrong: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False
        """Answers a request itself, if it returns True."""
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.address = f"{scheme}://127.0.0.1:{self.port}"
        self.connections: set[Any] = set()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """As a killed process: its connections break too."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server_of: ClassVar[HttpServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server_of.connections.add(self.connection)

    def finish(self) -> None:
        self.server_of.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        model = self.server_of.model
        if self._is_odd():
            return
        of_model = f"/v2/models/{model.name}"
        match self.path:
            case "/v2/health/live":
                self.answer(200 if model.is_live else 503)
            case "/v2/health/ready":
                self.answer(200 if model.server_is_ready else 503)
            case "/v2":
                told = {"name": "tiny", "version": "1", "extensions": model.extensions}
                self.answer(200, json.dumps(told).encode())
            case path if path == f"{of_model}/ready":
                self.answer(200 if model.is_ready else 503)
            case path if path == of_model:
                told = {"name": model.name, "versions": ["1"], "platform": "onnxruntime"}
                told |= {"inputs": model.inputs, "outputs": model.outputs}
                self.answer(200, json.dumps(told).encode())
            case _:
                self.answer(404, json.dumps({"error": f"no such thing: {self.path}"}).encode())

    def do_POST(self) -> None:
        model = self.server_of.model
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_odd():
            return
        if self.path != f"/v2/models/{model.name}/infer":
            self.answer(404)
            return
        length = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        asked = json.loads(body[:length])
        (tensor,) = asked["inputs"]
        numbers = tensor.get("data")
        data = np.frombuffer(body[length:], TYPES[tensor["datatype"]]) if numbers is None else numbers
        pictures = np.asarray(data, TYPES[tensor["datatype"]]).reshape(tensor["shape"])
        if model.answers is not None:
            self.answer(200, json.dumps({"model_name": model.name, "outputs": model.answers}).encode())
            return
        outputs = model.infer(pictures, [each["name"] for each in asked["outputs"]])
        told, raw = [], b""
        for wanted, output in zip(asked["outputs"], outputs, strict=True):
            each = {"name": wanted["name"], "shape": output.shape, "datatype": "FP32"}
            if wanted.get("parameters", {}).get("binary_data"):
                raw += output.tobytes()
                told.append(each | {"parameters": {"binary_data_size": output.nbytes}})
            else:
                told.append(each | {"data": output.ravel().tolist()})
        head = json.dumps({"model_name": model.name, "outputs": told}).encode()
        self.answer(200, head + raw, {"Inference-Header-Content-Length": str(len(head))} if raw else {})

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _is_odd(self) -> bool:
        server = self.server_of
        server.requests.append(self.path)
        token = server.model.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self.answer(401)
            return True
        return server.wrong(self)


class GrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The protocol over gRPC."""

    def __init__(
        self,
        model: Model,
        port: int = 0,
        certificate: tuple[Path, Path] | None = None,
        max_bytes: int = -1,
    ) -> None:
        self.model = model
        self.is_raw = True
        """Whether answers hold their numbers as bytes."""
        self.refuses: grpc.StatusCode | None = None
        self._server = grpc.server(
            ThreadPoolExecutor(4),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_bytes)],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        where, scheme = f"127.0.0.1:{port}", "grpc"
        if certificate is None:
            self.port = self._server.add_insecure_port(where)
        else:
            chain, key = (file.read_bytes() for file in certificate)
            scheme = "grpcs"
            self.port = self._server.add_secure_port(where, grpc.ssl_server_credentials([(key, chain)]))
        self.address = f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """As a killed process: its calls break too."""
        self._server.stop(None).wait()

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        self._admit(context)
        return pb.ServerLiveResponse(live=self.model.is_live)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=self.model.server_is_ready)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(name="tiny", version="1")

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=self.model.is_ready)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        model = self.model
        if request.name != model.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=["1"],
            platform="onnxruntime",
            inputs=[tensor(**each) for each in model.inputs],
            outputs=[tensor(**each) for each in model.outputs],
        )

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._admit(context)
        (asked,) = request.inputs
        pictures = np.frombuffer(request.raw_input_contents[0], TYPES[asked.datatype]).reshape(asked.shape)
        names = [each.name for each in request.outputs]
        response = pb.ModelInferResponse(model_name=self.model.name)
        for name, output in zip(names, self.model.infer(pictures, names), strict=True):
            tensor = response.outputs.add(name=name, datatype="FP32", shape=output.shape)
            if self.is_raw:
                response.raw_output_contents.append(output.tobytes())
            else:
                tensor.contents.fp32_contents.extend(output.ravel().tolist())
        return response

    def _admit(self, context: Any) -> None:
        token = self.model.token
        if token is not None and ("authorization", f"Bearer {token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        if self.refuses is not None:
            context.abort(self.refuses, "no")


def main() -> None:
    with HttpServer(Model()) as http, GrpcServer(Model()) as over_grpc:
        for server in (http, over_grpc):
            folder = Path(sys.argv[1]) / server.address.partition(":")[0]
            folder.mkdir(parents=True, exist_ok=True)
            print(remote_card(folder, server.address), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
