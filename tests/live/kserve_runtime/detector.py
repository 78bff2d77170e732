"""A KServe model server: an ONNX file. It runs in KServe's own environment, which knows no accmpeg."""

import sys

import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Detector(Model):
    def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession("detector.onnx", options)
        self.ready = True
        return self.ready

    def get_input_types(self) -> list[dict]:
        return [{"name": "images", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]

    def get_output_types(self) -> list[dict]:
        return [{"name": "output0", "datatype": "FP32", "shape": [-1, 8, -1]}]

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        pictures = {each.name: each.as_numpy() for each in payload.inputs}
        (found,) = self.session.run(["output0"], pictures)
        output = InferOutput("output0", list(found.shape), "FP32")
        output.set_data_from_numpy(found, binary_data=True)
        return InferResponse(payload.id or "", self.name, [output])


http_port, grpc_port = map(int, sys.argv[1:])
model = Detector("detector")
model.load()
ModelServer(http_port=http_port, grpc_port=grpc_port, workers=1).start([model])
