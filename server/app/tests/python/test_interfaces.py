"""The gRPC interfaces that the server tells by reflection have the names, numbers and types of those that clients have.

Triton's are published in its Python client, TensorFlow Serving's in tensorflow-serving-api, TorchServe's in its server.
"""

from collections.abc import Iterable, Iterator

import grpc
import inference_pb2
import management_pb2
import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2
from tritonclient.grpc import service_pb2

PUBLISHED = {
    "Triton": {"inference.GRPCInferenceService": service_pb2},
    "TensorFlow Serving": {
        "tensorflow.serving.PredictionService": prediction_service_pb2,
        "tensorflow.serving.ModelService": model_service_pb2,
    },
    "TorchServe": {
        "org.pytorch.serve.grpc.inference.InferenceAPIsService": inference_pb2,
        "org.pytorch.serve.grpc.management.ManagementAPIsService": management_pb2,
    },
}
# Of the Open Inference Protocol; Triton's clients skip it.
BEYOND = {
    "inference.ModelMetadataResponse.PropertiesEntry in proto3",
    "inference.ModelMetadataResponse.properties = 6: repeated inference.ModelMetadataResponse.PropertiesEntry",
    "inference.ModelMetadataResponse.PropertiesEntry.key = 1: string",
    "inference.ModelMetadataResponse.PropertiesEntry.value = 2: string",
}
SCALARS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower() for name in dir(FieldDescriptor) if name.startswith("TYPE_")
}


@pytest.mark.parametrize("dialect", PUBLISHED)
def test_an_interface_is_the_published_one(server, dialect):
    services = PUBLISHED[dialect]
    published = set().union(*(facts(module.DESCRIPTOR) for module in services.values()))
    assert {fact.partition(" has ")[0] for fact in published if " has " in fact} == services.keys()
    with grpc.insecure_channel(server.grpc) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        found = set().union(*(facts(pool.FindServiceByName(service).file) for service in services))
    assert found - published - BEYOND == set()
    missing = published - found
    if dialect == "TensorFlow Serving":
        # Its messages reach far into TensorFlow; the server passes over what it has no use for.
        missing = {fact for fact in missing if " has " in fact}
    assert missing == set()


def facts(file: FileDescriptor) -> set[str]:
    """A line for each message, field, value and method of a file and of what it imports, but for protobuf's and Google's."""
    if file.package.startswith("google."):
        return set()
    lines = {
        *of_services(file.services_by_name.values()),
        *of_messages(file.message_types_by_name.values()),
        *of_enums(file.enum_types_by_name.values()),
    }
    return lines.union(*map(facts, file.dependencies))


def of_services(services: Iterable[ServiceDescriptor]) -> Iterator[str]:
    for service in services:
        for method in service.methods:
            streams = ["stream " if streaming else "" for streaming in (method.client_streaming, method.server_streaming)]
            types = [kind.full_name for kind in (method.input_type, method.output_type)]
            yield f"{service.full_name} has {method.name}({streams[0]}{types[0]}) returns ({streams[1]}{types[1]})"


def of_messages(messages: Iterable[Descriptor]) -> Iterator[str]:
    for message in messages:
        # Which of the two decides how numbers are packed.
        file = FileDescriptorProto()
        message.file.CopyToProto(file)
        yield f"{message.full_name} in {file.syntax or 'proto2'}"
        for field in message.fields:
            named = field.message_type or field.enum_type
            many = "repeated " if field.is_repeated else "optional " if field.has_presence else ""
            kind = many + (named.full_name if named else SCALARS[field.type])
            choice = f" in {field.containing_oneof.name}" if field.containing_oneof else ""
            yield f"{message.full_name}.{field.name} = {field.number}: {kind}{choice}"
        yield from of_messages(message.nested_types)
        yield from of_enums(message.enum_types)


def of_enums(enums: Iterable[EnumDescriptor]) -> Iterator[str]:
    for enum in enums:
        for value in enum.values:
            yield f"{enum.full_name}.{value.name} = {value.number}"
