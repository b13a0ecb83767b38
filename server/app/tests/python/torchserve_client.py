"""TorchServe's gRPC services as its clients call them, through stubs that `grpc_tools` generates from their interface.

`proto/tests` holds names, numbers and types of that interface to those that TorchServe published.
"""

import contextlib
import functools
import importlib
import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc

import served

INTERFACE = served.ROOT / "proto"
FILES = ["google/rpc/status.proto", "torchserve/inference.proto", "torchserve/management.proto"]


@functools.cache
def generated() -> dict:
    """The modules by their names, for example `inference_pb2_grpc`."""
    well_known = pathlib.Path(grpc_tools.__file__).with_name("_proto")
    with tempfile.TemporaryDirectory() as directory:
        outputs = [f"--python_out={directory}", f"--grpc_python_out={directory}"]
        code = protoc.main(["protoc", f"--proto_path={INTERFACE}", f"--proto_path={well_known}", *outputs, *FILES])
        assert code == 0, f"grpc_tools cannot compile {FILES}"
        sys.path.insert(0, directory)
        try:
            names = [f"{part}{suffix}" for part in ("inference", "management") for suffix in ("_pb2", "_pb2_grpc")]
            return {name: importlib.import_module(f"torchserve.{name}") for name in names}
        finally:
            sys.path.remove(directory)


def request(model: str, fields: dict[str, bytes], version: str = "", **more):
    return generated()["inference_pb2"].PredictionsRequest(model_name=model, model_version=version, input=fields, **more)


@contextlib.contextmanager
def inference(address: str):
    """A stub of the inference service."""
    with grpc.insecure_channel(address) as channel:
        yield generated()["inference_pb2_grpc"].InferenceAPIsServiceStub(channel)


@contextlib.contextmanager
def management(address: str):
    """The messages of the management service, and a stub of it."""
    with grpc.insecure_channel(address) as channel:
        yield generated()["management_pb2"], generated()["management_pb2_grpc"].ManagementAPIsServiceStub(channel)
