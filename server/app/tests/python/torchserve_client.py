"""TorchServe's gRPC services, through stubs generated from the interface that it publishes (.ci/get-published-stubs)."""

import contextlib

import grpc
import inference_pb2
import inference_pb2_grpc
import management_pb2
import management_pb2_grpc
import open_inference_grpc_pb2
import open_inference_grpc_pb2_grpc


def request(model: str, fields: dict[str, bytes], version: str = "", **more) -> inference_pb2.PredictionsRequest:
    return inference_pb2.PredictionsRequest(model_name=model, model_version=version, input=fields, **more)


@contextlib.contextmanager
def inference(address: str):
    """A stub of the inference service."""
    with grpc.insecure_channel(address) as channel:
        yield inference_pb2_grpc.InferenceAPIsServiceStub(channel)


@contextlib.contextmanager
def management(address: str):
    """The messages of the management service, and a stub of it."""
    with grpc.insecure_channel(address) as channel:
        yield management_pb2, management_pb2_grpc.ManagementAPIsServiceStub(channel)


@contextlib.contextmanager
def open_inference(address: str):
    """The messages of the open-inference service, which has a package of its own, and a stub of it."""
    with grpc.insecure_channel(address) as channel:
        yield open_inference_grpc_pb2, open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)
