"""Streams, compression and the limit of a message's size."""

import gzip
import queue

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import reference
from clients import Client, request

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
ANSWER_SECONDS_MAX = 60


def test_stream_answers_every_request(server):
    answers = queue.Queue()
    with Client(server, "grpc") as client:
        client.triton.start_stream(lambda result, error: answers.put((result, error)))
        sent = {}
        for number in range(50):
            inputs = reference.rows("digits", "1", 1 + number % 4, seed=number)
            sent[str(number)] = reference.expected("digits", "1", inputs)
            tensors = [client.input(name, value) for name, value in inputs.items()]
            client.triton.async_stream_infer("digits", tensors, request_id=str(number))
        for _ in range(50):
            result, error = answers.get(timeout=ANSWER_SECONDS_MAX)
            assert error is None
            answer = client.answer(result)
            reference.assert_same(answer.outputs, sent.pop(answer.id))
        client.triton.stop_stream()
    assert not sent
    assert answers.empty()


def test_a_faulty_request_leaves_the_stream_open(server):
    good = reference.rows("diabetes", "2", 2, seed=1)
    bad = {"measurements": np.zeros((2, 9), dtype=np.float32)}
    answers = queue.Queue()
    with Client(server, "grpc") as client:
        client.triton.start_stream(lambda result, error: answers.put((result, error)))
        for inputs in (good, bad, good):
            tensors = [client.input(name, value) for name, value in inputs.items()]
            client.triton.async_stream_infer("diabetes", tensors)
        received = [answers.get(timeout=ANSWER_SECONDS_MAX) for _ in range(3)]
        client.triton.stop_stream()
    errors = [error for _, error in received if error is not None]
    assert len(errors) == 1
    assert "measurements" in errors[0].message()
    for result, error in received:
        if error is None:
            reference.assert_same(client.answer(result).outputs, reference.expected("diabetes", "2", good))


@pytest.mark.parametrize("model, version", reference.MODELS)
def test_grpc_gzip(server, model, version):
    inputs = reference.rows(model, version, 64, seed=2)
    with Client(server, "grpc") as client:
        answer = client.infer(model, inputs, version, compression_algorithm="gzip")
    reference.assert_same(answer.outputs, reference.expected(model, version, inputs))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("protocol", ["json", "binary"])
def test_http_compression(server, protocol, algorithm):
    inputs = reference.rows("digits", "1", 64, seed=3)
    with Client(server, protocol) as client:
        answer = client.infer(
            "digits", inputs, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
    reference.assert_same(answer.outputs, reference.expected("digits", "1", inputs))


def test_below_the_limit_it_is_the_rows_that_are_counted(server):
    rows = 200_000
    inputs = {"image": np.zeros((rows, 1, 8, 8), dtype=np.float32)}
    assert 0.7 * MESSAGE_BYTES_MAX < inputs["image"].nbytes < MESSAGE_BYTES_MAX
    with Client(server, "grpc") as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("digits", inputs)
    assert error.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    for word in ("digits", str(rows), "queue.rows_max"):
        assert word in error.value.message()


def test_a_longer_grpc_message_names_the_limit_and_the_flag(server):
    message = service_pb2.ModelInferRequest(model_name="digits")
    message.inputs.add(name="image", datatype="FP32", shape=[1, 1, 8, 8])
    message.raw_input_contents.append(bytes(MESSAGE_BYTES_MAX))
    with Client(server, "grpc") as client:
        with pytest.raises(grpc.RpcError) as error:
            client.triton._client_stub.ModelInfer(message)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_names_the_limit(error.value.details(), message.ByteSize())


def test_a_longer_http_body_names_the_limit_and_the_flag(server):
    size = MESSAGE_BYTES_MAX + 1
    reply = request(server.http, "POST", "/v2/models/digits/infer", bytes(size))
    assert reply.status == 413
    assert_names_the_limit(reply.json["error"], size)


def assert_names_the_limit(message: str, size: int) -> None:
    assert str(MESSAGE_BYTES_MAX) in message or "64 MiB" in message
    assert str(size) in message
    assert "--" in message


def test_a_compressed_message_is_limited_by_what_it_unpacks_to(server):
    bomb = gzip.compress(bytes(4 * MESSAGE_BYTES_MAX))
    reply = request(server.http, "POST", "/v2/models/digits/infer", bomb, {"Content-Encoding": "gzip"})
    assert reply.status == 413
    assert "error" in reply.json


def test_a_client_with_compression_it_cannot_have_is_told(server):
    reply = request(server.http, "POST", "/v2/models/digits/infer", b"x", {"Content-Encoding": "br"})
    assert reply.status == 415
    assert "br" in reply.json["error"]
