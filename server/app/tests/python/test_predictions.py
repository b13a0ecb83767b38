"""Every example model gives what Python's onnxruntime gives, by every protocol, alone and among others."""

import concurrent.futures
import threading

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

import reference
from clients import PROTOCOLS, Client

THREADS = 32
REQUESTS_PER_THREAD = 8


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_outputs_equal_onnxruntime(server, model, version, protocol, rows):
    inputs = reference.rows(model, version, rows, seed=rows)
    with Client(server, protocol) as client:
        answer = client.infer(model, inputs, version)
    assert (answer.model, answer.version) == (model, version)
    reference.assert_same(answer.outputs, reference.expected(model, version, inputs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_threads_get_their_own_rows(server, model, version, protocol):
    everyone = threading.Barrier(THREADS)

    def ask(thread: int) -> None:
        with Client(server, protocol) as client:
            everyone.wait()
            for turn in range(REQUESTS_PER_THREAD):
                seed = 1000 * (thread + 1) + turn
                inputs = reference.rows(model, version, count=1 + seed % 5, seed=seed)
                answer = client.infer(model, inputs, version, id=f"{thread}-{turn}")
                assert answer.id == f"{thread}-{turn}"
                reference.assert_same(answer.outputs, reference.expected(model, version, inputs))

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(ask, thread) for thread in range(THREADS)]:
            done.result()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_more_rows_than_a_batch_holds(server, model, version, protocol):
    inputs = reference.rows(model, version, 1000, seed=5)
    with Client(server, protocol) as client:
        answer = client.infer(model, inputs, version)
    reference.assert_same(answer.outputs, reference.expected(model, version, inputs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_golden_answers(server, model, version, protocol):
    inputs, outputs, tolerance = reference.golden(model, version)
    with Client(server, protocol) as client:
        answer = client.infer(model, inputs, version)
    reference.assert_same(answer.outputs, outputs, tolerance)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_version_means_the_newest(server, protocol):
    inputs = reference.rows("diabetes", "2", 3, seed=6)
    with Client(server, protocol) as client:
        answer = client.infer("diabetes", inputs)
    assert answer.version == "2"
    reference.assert_same(answer.outputs, reference.expected("diabetes", "2", inputs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_the_requested_outputs_in_their_order(server, protocol):
    inputs = reference.rows("digits", "1", 2, seed=7)
    wanted = reference.expected("digits", "1", inputs)
    with Client(server, protocol) as client:
        one = client.infer("digits", inputs, outputs=["probabilities"])
        both = client.infer("digits", inputs, outputs=["probabilities", "digit"])
    reference.assert_same(one.outputs, {"probabilities": wanted["probabilities"]})
    assert list(both.outputs) == ["probabilities", "digit"]
    reference.assert_same(both.outputs, wanted)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_inputs_are_matched_by_name(server, protocol):
    inputs = reference.rows("breast_cancer", "1", 4, seed=8)
    with Client(server, protocol) as client:
        answer = client.infer("breast_cancer", dict(reversed(inputs.items())))
    reference.assert_same(answer.outputs, reference.expected("breast_cancer", "1", inputs))


def test_typed_contents_are_answered_in_kind(server):
    inputs = reference.rows("digits", "1", 3, seed=9)
    request = service_pb2.ModelInferRequest(model_name="digits", id="typed")
    for name, value in inputs.items():
        tensor = request.inputs.add(name=name, datatype="FP32", shape=value.shape)
        tensor.contents.fp32_contents.extend(value.ravel().tolist())
    with Client(server, "grpc") as client:
        response = client.triton._client_stub.ModelInfer(request)
    wanted = reference.expected("digits", "1", inputs)
    assert response.id == "typed"
    assert not response.raw_output_contents
    digit, probabilities = response.outputs
    assert list(digit.contents.int64_contents) == wanted["digit"].tolist()
    actual = np.array(probabilities.contents.fp32_contents, dtype=np.float32).reshape(probabilities.shape)
    np.testing.assert_allclose(actual, wanted["probabilities"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_best_classes(server, protocol):
    """Triton's classification extension: a value with six decimals, its index, and its name where the model has one."""
    inputs = reference.rows("digits", "1", 5, seed=10)
    with Client(server, protocol) as client:
        if protocol == "grpc":
            wanted = client.types.InferRequestedOutput("probabilities", class_count=3)
        else:
            wanted = client.types.InferRequestedOutput("probabilities", protocol == "binary", class_count=3)
        tensors = [client.input(name, value) for name, value in inputs.items()]
        answer = client.triton.infer("digits", tensors, outputs=[wanted]).as_numpy("probabilities")
    assert answer.shape == (5, 3)
    for row, scores in zip(reference.plain(answer), reference.expected("digits", "1", inputs)["probabilities"]):
        values, classes = zip(*(element.split(":") for element in row))
        assert [int(index) for index in classes] == np.argsort(-scores, kind="stable")[:3].tolist()
        np.testing.assert_allclose([float(value) for value in values], np.sort(scores)[::-1][:3], atol=1e-5)
    assert "classification" in server_extensions(server, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_classes_have_the_models_names(server, protocol):
    inputs = reference.rows("breast_cancer", "1", 3, seed=11)
    with Client(server, protocol) as client:
        options = {} if protocol == "grpc" else {"binary_data": protocol == "binary"}
        wanted = client.types.InferRequestedOutput("output_probability", class_count=1, **options)
        tensors = [client.input(name, value) for name, value in inputs.items()]
        answer = client.triton.infer("breast_cancer", tensors, outputs=[wanted]).as_numpy("output_probability")
    labels = reference.plain(reference.expected("breast_cancer", "1", inputs)["output_label"])
    assert [element.split(":")[2] for element in reference.plain(answer)[:, 0]] == labels.tolist()


def server_extensions(server, protocol: str) -> list[str]:
    with Client(server, protocol) as client:
        metadata = client.triton.get_server_metadata()
    return list(metadata.extensions) if protocol == "grpc" else metadata["extensions"]
