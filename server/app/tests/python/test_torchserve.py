"""TorchServe's gRPC inference service, with stubs as its clients generate them."""

import json

import grpc
import numpy as np
import pytest
from google.protobuf.empty_pb2 import Empty

import reference
import torchserve_client
from clients import SECONDS_MAX
from torchserve_client import request

ROW = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]


@pytest.fixture
def stub(server):
    with torchserve_client.inference(server.grpc) as stub:
        yield stub


def test_ping(stub):
    assert json.loads(stub.Ping(Empty(), timeout=SECONDS_MAX).health) == {"status": "Healthy"}


@pytest.mark.parametrize(
    "fields",
    [
        {"data": json.dumps(ROW).encode()},
        {"body": json.dumps({"measurements": ROW}).encode()},
        {"data": json.dumps({"data": ROW}).encode()},
        {"data": np.array(ROW, dtype=np.float32).tobytes()},
        {"measurements": json.dumps(ROW).encode()},
    ],
    ids=["list", "object", "envelope", "bytes", "by name"],
)
def test_forms_of_one_row(stub, fields):
    prediction = json.loads(stub.Predictions(request("diabetes", fields), timeout=SECONDS_MAX).prediction)
    wanted = reference.expected("diabetes", "2", {"measurements": np.array([ROW], dtype=np.float32)})["progression"]
    np.testing.assert_allclose(prediction, wanted[0], rtol=1e-5)


def test_a_stream_of_one_answer(stub):
    answers = list(stub.StreamPredictions(request("diabetes", {"data": json.dumps(ROW).encode()}), timeout=SECONDS_MAX))
    assert len(answers) == 1
    alone = stub.Predictions(request("diabetes", {"data": json.dumps(ROW).encode()}), timeout=SECONDS_MAX)
    assert answers[0].prediction == alone.prediction


def test_a_stream_of_requests(stub):
    """Each is answered, in order; what is wrong with one stays with it."""
    body = json.dumps(ROW).encode()
    requests = [
        request("diabetes", {"data": body}, sequence_id="one"),
        request("nothing", {"data": body}, sequence_id="one"),
        request("diabetes", {"data": b"[1, 2]"}, sequence_id="two"),
        request("diabetes", {"data": body}),
        request("diabetes", {"data": body}, "1", sequence_id="two"),
    ]
    answers = list(stub.StreamPredictions2(iter(requests), timeout=SECONDS_MAX))
    assert [answer.sequence_id for answer in answers] == ["one", "one", "two", "", "two"]
    internal, invalid = (code.value[0] for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT))
    assert [answer.status.code for answer in answers] == [0, internal, invalid, internal, 0]
    assert [answer.HasField("status") for answer in answers] == [False, True, True, True, False]
    assert answers[1].status.message.endswith("ModelNotFoundException")
    assert "sequence_id" in answers[3].status.message
    predictions = [json.loads(answers[index].prediction) for index in (0, 4)]
    inputs = {"measurements": np.array([ROW], dtype=np.float32)}
    wanted = [reference.expected("diabetes", version, inputs)["progression"][0] for version in ("2", "1")]
    np.testing.assert_allclose(predictions, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "model, version, body, code, end",
    [
        ("nothing", "", b"[1]", grpc.StatusCode.INTERNAL, "org.pytorch.serve.archive.model.ModelNotFoundException"),
        ("diabetes", "9", b"[1]", grpc.StatusCode.INTERNAL, "org.pytorch.serve.archive.model.ModelVersionNotFoundException"),
        ("", "", b"[1]", grpc.StatusCode.INTERNAL, "BadRequestException.()"),
        ("diabetes", "", b"[1]", grpc.StatusCode.INVALID_ARGUMENT, ""),
        ("diabetes", "", b"[1,", grpc.StatusCode.INVALID_ARGUMENT, ""),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_faults(stub, stream, model, version, body, code, end):
    with pytest.raises(grpc.RpcError) as raised:
        message = request(model, {"data": body}, version)
        if stream:
            list(stub.StreamPredictions(message, timeout=SECONDS_MAX))
        else:
            stub.Predictions(message, timeout=SECONDS_MAX)
    assert raised.value.code() == code
    assert raised.value.details().endswith(end)


def test_no_input(stub):
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predictions(request("diabetes", {}), timeout=SECONDS_MAX)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "data" in raised.value.details()


def test_a_deadline(stub):
    # Megabytes of JSON, so that no answer can be earlier.
    rows = json.dumps([ROW] * 30_000).encode()
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predictions(request("diabetes", {"data": rows}), timeout=1e-3)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_open_inference_service(server):
    """Predictions are compared with those of all dialects in test_dialects.py."""
    with torchserve_client.open_inference(server.grpc) as (messages, stub):
        assert stub.ServerLive(messages.ServerLiveRequest(), timeout=SECONDS_MAX).live
        assert stub.ServerReady(messages.ServerReadyRequest(), timeout=SECONDS_MAX).ready
        assert stub.ServerMetadata(messages.ServerMetadataRequest(), timeout=SECONDS_MAX).name == "gristmill"
        assert stub.ModelReady(messages.ModelReadyRequest(name="diabetes"), timeout=SECONDS_MAX).ready
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="diabetes"), timeout=SECONDS_MAX)
        assert (metadata.name, metadata.versions) == ("diabetes", ["1", "2"])
        assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in metadata.inputs] == [("measurements", "FP32", [-1, 10])]
        assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in metadata.outputs] == [("progression", "FP32", [-1, 1])]
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(messages.ModelInferRequest(model_name="nothing"), timeout=SECONDS_MAX)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND
        assert "nothing" in raised.value.details()
