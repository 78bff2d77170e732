"""A runtime for MLServer: an ONNX file. It runs in MLServer's own environment, which knows no accmpeg."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Detector(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pictures = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        names = [each.name for each in self.session.get_outputs()]
        outputs = self.session.run(names, pictures)
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, each) for name, each in zip(names, outputs, strict=True)],
        )
