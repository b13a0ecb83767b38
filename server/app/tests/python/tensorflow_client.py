"""Predictions through a client of TensorFlow Serving's gRPC interface, in a process of its own.

    python3 tensorflow_client.py HOST:PORT < questions > answers

A question is a line of JSON, {"model", "version", "inputs": {name: nested list}, "dtypes": {name: dtype}}; the answer a
line with the outputs as nested lists, or {"error": [code, message]}.
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


def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    client = TensorServingClient(host, int(port))
    for line in sys.stdin:
        print(json.dumps(answer(client, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
