"""Predictions through a client of TensorFlow Serving's gRPC interface, in a process of its own.

    python3 tensorflow_client.py HOST:PORT < questions > answers

A question is a line of JSON, {"model", "version", "inputs": {name: nested list}, "dtypes": {name: dtype}}; the answer a
line with the outputs as nested lists, or {"error": [code, message]}. Other questions have a "method":

    {"method": "classify", "model", "examples": [{name: list}]}     [[[label, score], ...], ...]
    {"method": "regress", "model", "examples"}                      [value, ...]
    {"method": "multi", "tasks": [[model, method]], "examples"}     a list with one of these for each task
    {"method": "reload", "models": [{"name", "labels", "latest"}]}  the code in the answer

They go through the stubs of tensorflow-serving-api, which this client carries.
"""

import json
import os
import sys

# The client's messages were generated long ago. Today's protobuf takes them only in its implementation in Python, which
# this chooses for the whole process, and has to be told which of them are entries of maps: those with this option.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
MAP_ENTRY = b"8\x01"

from google.protobuf import descriptor


init = descriptor.Descriptor.__init__


def init_with_maps(self, *args, **named):
    if named.get("serialized_options") == MAP_ENTRY:
        named["is_map_entry"] = True
    init(self, *args, **named)


descriptor.Descriptor.__init__ = init_with_maps

import grpc
import numpy as np
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import tensor_proto_to_ndarray
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.apis.regression_pb2 import RegressionRequest


def answer(client: TensorServingClient, question: dict) -> dict:
    inputs = {name: np.array(value, dtype=question["dtypes"][name]) for name, value in question["inputs"].items()}
    try:
        response = client.predict_request(question["model"], inputs, model_version=question["version"])
    except grpc.RpcError as error:
        return {"error": [error.code().name, error.details()]}
    assert response.model_spec.name == question["model"]
    arrays = {name: tensor_proto_to_ndarray(tensor) for name, tensor in response.outputs.items()}
    texts = {name: np.char.decode(array.astype("S")) if array.dtype.kind in "OS" else array for name, array in arrays.items()}
    return {name: array.tolist() for name, array in texts.items()}


def answer_by_stub(channel: grpc.Channel, question: dict):
    try:
        return METHODS[question["method"]](channel, question)
    except grpc.RpcError as error:
        return {"error": [error.code().name, error.details()]}


def classify(channel: grpc.Channel, question: dict):
    request = ClassificationRequest()
    request.model_spec.name = question["model"]
    add_examples(request.input, question["examples"])
    return classes(PredictionServiceStub(channel).Classify(request).result)


def regress(channel: grpc.Channel, question: dict):
    request = RegressionRequest()
    request.model_spec.name = question["model"]
    add_examples(request.input, question["examples"])
    return values(PredictionServiceStub(channel).Regress(request).result)


def multi(channel: grpc.Channel, question: dict):
    request = MultiInferenceRequest()
    for model, method in question["tasks"]:
        task = request.tasks.add()
        task.model_spec.name = model
        task.method_name = f"tensorflow/serving/{method}"
    add_examples(request.input, question["examples"])
    results = PredictionServiceStub(channel).MultiInference(request).results
    read = {"classification_result": classes, "regression_result": values}
    kinds = [result.WhichOneof("result") for result in results]
    return [read[kind](getattr(result, kind)) for kind, result in zip(kinds, results)]


def reload(channel: grpc.Channel, question: dict):
    request = ReloadConfigRequest()
    for model in question["models"]:
        config = request.config.model_config_list.config.add()
        config.name = model["name"]
        config.base_path = model.get("base_path", "")
        config.model_platform = "tensorflow"
        for label, version in model.get("labels", {}).items():
            config.version_labels[label] = version
        if "latest" in model:
            config.model_version_policy.latest.num_versions = model["latest"]
    return ModelServiceStub(channel).HandleReloadConfigRequest(request).status.error_code


METHODS = {"classify": classify, "regress": regress, "multi": multi, "reload": reload}


def add_examples(input, examples: list[dict]) -> None:
    for values in examples:
        example = Example()
        for name, value in values.items():
            example.features.feature[name].float_list.value.extend(value)
        input.example_list.examples.append(example)


def classes(result) -> list:
    return [[[entry.label, entry.score] for entry in row.classes] for row in result.classifications]


def values(result) -> list:
    return [regression.value for regression in result.regressions]


def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    client = TensorServingClient(host, int(port))
    channel = grpc.insecure_channel(sys.argv[1])
    for line in sys.stdin:
        question = json.loads(line)
        found = answer_by_stub(channel, question) if "method" in question else answer(client, question)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
