"""One face for the ways in which Triton's clients ask for a prediction, and raw HTTP for what they cannot send."""

import dataclasses
import http.client
import json

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from reference import Tensors
from served import Server

# gRPC with raw tensors, HTTP with numbers in JSON, HTTP with Triton's binary tensors.
PROTOCOLS = ["grpc", "json", "binary"]
SECONDS_MAX = 60


@dataclasses.dataclass(frozen=True)
class Answer:
    outputs: Tensors
    id: str
    model: str
    version: str


class Client:
    """A connection for one thread: the HTTP client of Triton must not be shared."""

    def __init__(self, server: Server, protocol: str):
        self.protocol = protocol
        if protocol == "grpc":
            self.triton = tritonclient.grpc.InferenceServerClient(server.grpc)
            self.types = tritonclient.grpc
        else:
            self.triton = tritonclient.http.InferenceServerClient(server.http, network_timeout=SECONDS_MAX)
            self.types = tritonclient.http

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.triton.close()

    def infer(self, model: str, inputs: Tensors, version: str = "", outputs=None, id: str = "", **options) -> Answer:
        """Asks for `outputs`, or for all of them; `options` go to Triton's client as they are."""
        requested = None if outputs is None else [self.requested_output(name) for name in outputs]
        if requested is None and self.protocol == "json":
            # Without a list of outputs Triton's client asks for all of them in binary form.
            names = [output["name"] for output in self.triton.get_model_metadata(model, version)["outputs"]]
            requested = [self.requested_output(name) for name in names]
        tensors = [self.input(name, value) for name, value in inputs.items()]
        result = self.triton.infer(model, tensors, version, requested, request_id=id, **options)
        return self.answer(result)

    def input(self, name: str, value: np.ndarray):
        tensor = self.types.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        if self.protocol == "grpc":
            tensor.set_data_from_numpy(value)
        else:
            tensor.set_data_from_numpy(value, binary_data=self.protocol == "binary")
        return tensor

    def requested_output(self, name: str):
        if self.protocol == "grpc":
            return self.types.InferRequestedOutput(name)
        return self.types.InferRequestedOutput(name, binary_data=self.protocol == "binary")

    def answer(self, result) -> Answer:
        if self.protocol == "grpc":
            response = result.get_response()
            names = [output.name for output in response.outputs]
            about = response.id, response.model_name, response.model_version
        else:
            response = result.get_response()
            names = [output["name"] for output in response["outputs"]]
            about = response.get("id", ""), response["model_name"], response["model_version"]
        return Answer({name: result.as_numpy(name) for name in names}, *about)


@dataclasses.dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def request(address: str, method: str, path: str, body=None, headers: dict[str, str] | None = None) -> Reply:
    """One HTTP request with exactly these headers; `body` is bytes, or anything that becomes JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    connection = http.client.HTTPConnection(address, timeout=SECONDS_MAX)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, names, response.read())
    finally:
        connection.close()
