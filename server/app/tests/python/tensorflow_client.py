"""TensorFlow Serving's gRPC interface, through the stubs of PyPI's tensorflow-serving-api and a client made of them."""

import contextlib

import grpc
import numpy as np
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import tensor_proto_to_ndarray
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

import reference
from clients import SECONDS_MAX

Examples = list[dict[str, list[float]]]


class Client:
    """Faults are raised as `grpc.RpcError`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.predictions = PredictionServiceStub(channel)
        self.models = ModelServiceStub(channel)

    def predict_raw(self, model: str, inputs: reference.Tensors, version: str | None = None, *outputs: str) -> dict:
        """With the bytes of FP32 elements, as TensorFlow's own `make_tensor_proto` writes them; outputs as arrays."""
        request = PredictRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = int(version)
        for name, value in inputs.items():
            tensor = TensorProto(dtype=DT_FLOAT, tensor_content=value.astype("<f4").tobytes())
            for size in value.shape:
                tensor.tensor_shape.dim.add(size=size)
            request.inputs[name].CopyFrom(tensor)
        request.output_filter.extend(outputs)
        return arrays(self.predictions.Predict(request, SECONDS_MAX))

    def classify(self, model: str, examples: Examples) -> list:
        """The labels and scores of each row."""
        request = ClassificationRequest()
        request.model_spec.name = model
        add_examples(request.input, examples)
        return classes(self.predictions.Classify(request, SECONDS_MAX).result)

    def regress(self, model: str, examples: Examples) -> list[float]:
        request = RegressionRequest()
        request.model_spec.name = model
        add_examples(request.input, examples)
        return values(self.predictions.Regress(request, SECONDS_MAX).result)

    def multi_inference(self, tasks: list[tuple[str, str]], examples: Examples) -> list:
        """One of the above for each task, a model and "classify" or "regress"."""
        request = MultiInferenceRequest()
        for model, method in tasks:
            task = request.tasks.add()
            task.model_spec.name = model
            task.method_name = f"tensorflow/serving/{method}"
        add_examples(request.input, examples)
        results = self.predictions.MultiInference(request, SECONDS_MAX).results
        read = {"classification_result": classes, "regression_result": values}
        kinds = [result.WhichOneof("result") for result in results]
        return [read[kind](getattr(result, kind)) for kind, result in zip(kinds, results)]

    def signatures(self, model: str) -> SignatureDefMap:
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        answer = self.predictions.GetModelMetadata(request, SECONDS_MAX)
        signatures = SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(signatures)
        return signatures

    def status(self, model: str) -> GetModelStatusResponse:
        request = GetModelStatusRequest()
        request.model_spec.name = model
        return self.models.GetModelStatus(request, SECONDS_MAX)

    def reload(self, *models: dict) -> int:
        """The code in the answer. Of a model there are `name` and perhaps `base_path`, `labels` and `latest`."""
        request = ReloadConfigRequest()
        for model in models:
            config = request.config.model_config_list.config.add()
            config.name = model["name"]
            config.base_path = model.get("base_path", "")
            config.model_platform = "tensorflow"
            for label, version in model.get("labels", {}).items():
                config.version_labels[label] = version
            if "latest" in model:
                config.model_version_policy.latest.num_versions = model["latest"]
        return self.models.HandleReloadConfigRequest(request, SECONDS_MAX).status.error_code


@contextlib.contextmanager
def connect(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield Client(channel)


def predict(server, model: str, inputs: reference.Tensors, version: str | None = None) -> dict[str, np.ndarray]:
    """By the client that is made of the stubs, which writes elements as numbers and texts."""
    host, port = server.grpc.rsplit(":", 1)
    client = TensorServingClient(host, int(port))
    answer = client.predict_request(model, inputs, SECONDS_MAX, None if version is None else int(version))
    assert answer.model_spec.name == model
    return arrays(answer)


def arrays(answer) -> dict[str, np.ndarray]:
    return {name: reference.plain(tensor_proto_to_ndarray(tensor)) for name, tensor in answer.outputs.items()}


def add_examples(input, examples: Examples) -> None:
    for row in examples:
        example = Example()
        for name, value in row.items():
            example.features.feature[name].float_list.value.extend(value)
        input.example_list.examples.append(example)


def classes(result) -> list:
    return [[(entry.label, entry.score) for entry in row.classes] for row in result.classifications]


def values(result) -> list[float]:
    return [regression.value for regression in result.regressions]
