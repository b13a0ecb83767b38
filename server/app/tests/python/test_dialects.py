"""Every dialect gives the same numbers: each is asked for the same rows, and compared bit for bit with Triton's client.

A dialect is a function from a server, a model, a version and inputs to outputs as plain nested lists. Decimal text
that reads back as another float than the one that was computed would be found here. Every dialect of the README's
table that predicts is in the lists below.
"""

import contextlib
import json
import queue
import uuid

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import shared_memory, triton_to_np_dtype

import reference
import served
import tensorflow_client
import torchserve_client
from clients import SECONDS_MAX, Client, request

ROWS = 7


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def server(request):
    """One that has all dialects switched on."""
    with served.serve(request.param, "--allow-system-shared-memory") as running:
        yield running


def open_inference_json(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with Client(server, "json") as client:
        return plain(client.infer(model, inputs, version).outputs)


def open_inference_binary(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with Client(server, "binary") as client:
        return plain(client.infer(model, inputs, version).outputs)


def open_inference_typed(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return ask_open_inference(service_pb2, stub, model, version, inputs)


def open_inference_stream(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    answers = queue.Queue()
    with Client(server, "grpc") as client:
        client.triton.start_stream(lambda result, error: answers.put((result, error)))
        tensors = [client.input(name, value) for name, value in inputs.items()]
        client.triton.async_stream_infer(model, tensors, version)
        result, error = answers.get(timeout=SECONDS_MAX)
        client.triton.stop_stream()
        assert error is None, error
        return plain(client.answer(result).outputs)


def shared_memory_grpc(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    return through_memory(server, "grpc", model, version, inputs)


def shared_memory_http(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    return through_memory(server, "binary", model, version, inputs)


def through_memory(server, protocol: str, model: str, version: str, inputs: reference.Tensors) -> dict:
    """Inputs side by side in one region, each output in a part of another."""
    bytes_max = 1 << 14
    names = [f"gristmill-{uuid.uuid4().hex}" for _ in range(2)]
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(server, protocol))
        handles = []
        for name in names:
            handle = shared_memory.create_shared_memory_region(name, name, bytes_max, create_only=True)
            stack.callback(shared_memory.destroy_shared_memory_region, handle)
            client.triton.register_system_shared_memory(name, name, bytes_max)
            stack.callback(client.triton.unregister_system_shared_memory, name)
            handles.append(handle)
        tensors, offset = [], 0
        for name, value in inputs.items():
            shared_memory.set_shared_memory_region(handles[0], [value], offset)
            tensor = client.types.InferInput(name, list(value.shape), "FP32")
            tensor.set_shared_memory(names[0], value.nbytes, offset)
            tensors.append(tensor)
            offset += value.nbytes
        specs = reference.session(model, version).get_outputs()
        step = bytes_max // len(specs)
        requested = []
        for index, spec in enumerate(specs):
            output = client.types.InferRequestedOutput(spec.name)
            output.set_shared_memory(names[1], step, step * index)
            requested.append(output)
        answer = client.triton.infer(model, tensors, version, requested)
        outputs = {}
        for index, spec in enumerate(specs):
            output = answer.get_output(spec.name)
            about = output if isinstance(output, dict) else {"datatype": output.datatype, "shape": list(output.shape)}
            dtype = np.dtype(triton_to_np_dtype(about["datatype"]))
            value = shared_memory.get_contents_as_numpy(handles[1], dtype, about["shape"], step * index)
            outputs[spec.name] = reference.plain(value).tolist()
        # It points into the region.
        del value
        return outputs


def generate(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    """Each row by itself, as an answer and as the event of a stream."""
    path = f"/v2/models/{model}/versions/{version}"
    rows = []
    for row in range(ROWS):
        body = {name: value[row].ravel().tolist() for name, value in inputs.items()}
        answer = post(server, f"{path}/generate", body)
        reply = request(server.http, "POST", f"{path}/generate_stream", body)
        [event] = reply.body.decode().split("\n\n")[:-1]
        assert json.loads(event.removeprefix("data: ")) == answer
        rows.append(answer)
    # A single value of a row has no list around it.
    outputs = {spec.name: [row[spec.name] for row in rows] for spec in reference.session(model, version).get_outputs()}
    shapes = {name: value.shape for name, value in reference.expected(model, version, inputs).items()}
    return {name: np.array(value).reshape(shapes[name]).tolist() for name, value in outputs.items()}


def kserve_rows(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    if len(inputs) == 1:
        [instances] = (value.tolist() for value in inputs.values())
    else:
        instances = [{name: value[row].tolist() for name, value in inputs.items()} for row in range(ROWS)]
    answer = post(server, f"/v1/models/{model}:predict", {"instances": instances})
    return by_column(answer["predictions"], model, version)


def vertex(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    """Its route names no model."""
    with served.serve(server.backend, "--default-model", model) as alone:
        answer = post(alone, "/vertex", {"instances": listed(inputs)})
    return by_column(answer["predictions"], model, version)


def tensorflow_rows(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    """One object for each row; the only input may stand without its name, the only output always does."""
    if len(inputs) == 1:
        [instances] = (value.tolist() for value in inputs.values())
    else:
        instances = [{name: value[row].tolist() for name, value in inputs.items()} for row in range(ROWS)]
    answer = post(server, f"/v1/models/{model}/versions/{version}:predict", {"instances": instances})
    return by_column(answer["predictions"], model, version)


def tensorflow_columns(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    body = {"inputs": {name: value.tolist() for name, value in inputs.items()}, "signature_name": "serving_default"}
    outputs = post(server, f"/v1/models/{model}/versions/{version}:predict", body)["outputs"]
    return outputs if isinstance(outputs, dict) else {only_output(model, version): outputs}


def mlflow_split(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    names, rows = frame(inputs)
    body = {"dataframe_split": {"index": list(range(ROWS)), "columns": names, "data": rows}}
    return whole(post(server, f"/endpoints/{model}/invocations", body)["predictions"])


def mlflow_records(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    names, rows = frame(inputs)
    body = {"dataframe_records": [dict(zip(names, row)) for row in rows]}
    return whole(post(server, f"/endpoints/{model}/invocations", body)["predictions"])


def mlflow_inputs(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    body = {"inputs": {name: value.tolist() for name, value in inputs.items()}, "params": {"unknown": 1}}
    return whole(post(server, f"/endpoints/{model}/invocations", body)["predictions"])


def mlflow_instances(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    return whole(post(server, f"/endpoints/{model}/invocations", {"instances": listed(inputs)})["predictions"])


def sagemaker_json(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    names, rows = frame(inputs)
    body = {"dataframe_split": {"columns": names, "data": rows}}
    return whole(post(server, f"/models/{model}/invoke", body)["predictions"])


def sagemaker_csv(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    names, rows = frame(inputs)
    lines = [",".join(names), *(",".join(map(repr, row)) for row in rows)]
    headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": model}
    reply = request(server.http, "POST", "/invocations", "\n".join(lines).encode(), headers)
    assert reply.status == 200, reply.body
    return whole(reply.json["predictions"])


def tensorflow_grpc(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    return plain(tensorflow_client.predict(server, model, inputs, version))


def tensorflow_grpc_bytes(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with tensorflow_client.connect(server) as client:
        return plain(client.predict_raw(model, inputs, version))


def torchserve_rows(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    return by_column(post(server, f"/predictions/{model}/{version}", listed(inputs)), model, version)


def torchserve_one_by_one(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    """Each row as a body of its own: the bytes of the only input, or a form with a field for each."""
    rows = []
    for row in range(ROWS):
        if len(inputs) == 1:
            [body] = (value[row].tobytes() for value in inputs.values())
            headers = {"Content-Type": "application/octet-stream"}
        else:
            body, headers = form({name: repr(float(value[row, 0])) for name, value in inputs.items()})
        reply = request(server.http, "POST", f"/predictions/{model}/{version}", body, headers)
        assert reply.status == 200, reply.body
        rows.append(reply.json)
    return by_column(rows, model, version)


def torchserve_grpc(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with torchserve_client.inference(server.grpc) as stub:
        answer = stub.Predictions(torchserve_client.request(model, body_of(inputs), version), timeout=SECONDS_MAX)
    return by_column(json.loads(answer.prediction), model, version)


def torchserve_server_stream(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with torchserve_client.inference(server.grpc) as stub:
        question = torchserve_client.request(model, body_of(inputs), version)
        [answer] = stub.StreamPredictions(question, timeout=SECONDS_MAX)
    return by_column(json.loads(answer.prediction), model, version)


def torchserve_stream(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with torchserve_client.inference(server.grpc) as stub:
        question = torchserve_client.request(model, body_of(inputs), version, sequence_id="one")
        [answer] = stub.StreamPredictions2(iter([question]), timeout=SECONDS_MAX)
    return by_column(json.loads(answer.prediction), model, version)


def torchserve_open_inference(server, model: str, version: str, inputs: reference.Tensors) -> dict:
    with torchserve_client.open_inference(server.grpc) as (messages, stub):
        return ask_open_inference(messages, stub, model, version, inputs)


def ask_open_inference(messages, stub, model: str, version: str, inputs: reference.Tensors) -> dict:
    """With numbers in the fields of their datatypes."""
    question = messages.ModelInferRequest(model_name=model, model_version=version)
    for name, value in inputs.items():
        tensor = question.inputs.add(name=name, datatype="FP32", shape=value.shape)
        tensor.contents.fp32_contents.extend(value.ravel().tolist())
    answer = stub.ModelInfer(question, timeout=SECONDS_MAX)
    outputs = {}
    for output in answer.outputs:
        [contents] = [values for _, values in output.contents.ListFields()]
        values = [value.decode() if isinstance(value, bytes) else value for value in contents]
        outputs[output.name] = np.array(values).reshape(output.shape).tolist()
    return outputs


# Those without versions ask the default one.
WITHOUT_VERSIONS = [mlflow_split, mlflow_records, mlflow_inputs, mlflow_instances, sagemaker_json, sagemaker_csv]
WITHOUT_VERSIONS += [kserve_rows, vertex]
ROW_BY_ROW = [torchserve_one_by_one, generate]
DIALECTS = [open_inference_json, open_inference_binary, open_inference_typed, open_inference_stream]
DIALECTS += [shared_memory_grpc, shared_memory_http]
DIALECTS += [tensorflow_rows, tensorflow_columns, tensorflow_grpc, tensorflow_grpc_bytes]
DIALECTS += [torchserve_rows, torchserve_grpc, torchserve_server_stream, torchserve_stream, torchserve_open_inference]
DIALECTS += ROW_BY_ROW + WITHOUT_VERSIONS


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_same_numbers(server, model, version, dialect):
    if dialect in WITHOUT_VERSIONS and (model, version) == ("diabetes", "1"):
        version = "2"
    inputs = reference.rows(model, version, ROWS, seed=31)
    with Client(server, "grpc") as triton:
        if dialect in ROW_BY_ROW:
            # Runtimes may compute a row of a batch otherwise than a row alone, in the last digit.
            rows = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(ROWS)]
            answers = [triton.infer(model, row, version).outputs for row in rows]
            wanted = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        else:
            wanted = triton.infer(model, inputs, version).outputs
    actual = dialect(server, model, version, inputs)
    assert actual.keys() == wanted.keys()
    for name, value in wanted.items():
        value = reference.plain(value)
        np.testing.assert_array_equal(np.array(actual[name], dtype=value.dtype), value, err_msg=name, strict=True)
    reference.assert_same(wanted, reference.expected(model, version, inputs))


@pytest.mark.parametrize("model, version", reference.MODELS)
def test_same_numbers_of_the_plain_route(server, model, version):
    """It answers with the label and its probability, or with the value."""
    inputs = reference.rows(model, version, ROWS, seed=36)
    with Client(server, "grpc") as triton:
        prediction, *scores = triton.infer(model, inputs, version).outputs.values()
    answer = post(server, f"/predict/{model}/{version}", {"instances": listed(inputs)})
    prediction = reference.plain(prediction)
    actual = np.array(answer["prediction"], dtype=prediction.dtype).reshape(prediction.shape)
    np.testing.assert_array_equal(actual, prediction, strict=True)
    if scores:
        best = scores[0].max(axis=1)
        np.testing.assert_array_equal(np.array(answer["probability"], dtype=best.dtype), best, strict=True)


def test_tensorflow_classes(server):
    inputs = reference.rows("breast_cancer", "1", 3, seed=32)
    examples = [{name: float(value[row, 0]) for name, value in inputs.items()} for row in range(3)]
    results = post(server, "/v1/models/breast_cancer:classify", {"examples": examples})["results"]
    wanted = reference.expected("breast_cancer", "1", inputs)
    scores = np.array([[score for _, score in row] for row in results])
    np.testing.assert_allclose(scores, wanted["output_probability"], rtol=1e-5, atol=1e-5)
    best = [row[index][0] for row, index in zip(results, scores.argmax(axis=1))]
    assert best == reference.plain(wanted["output_label"]).tolist()


def test_tensorflow_values(server):
    inputs = reference.rows("diabetes", "2", 3, seed=33)
    [(name, rows)] = inputs.items()
    results = post(server, "/v1/models/diabetes:regress", {"examples": [{name: row.tolist()} for row in rows]})["results"]
    wanted = reference.expected("diabetes", "2", inputs)["progression"]
    np.testing.assert_allclose(results, wanted.ravel(), rtol=1e-5)


def test_tensorflow_describes_what_is_served(server):
    [status] = get(server, "/v1/models/diabetes/versions/1")["model_version_status"]
    assert (status["version"], status["state"], status["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
    model = get(server, "/v1/models/diabetes")
    assert (model["name"], model["ready"]) == ("diabetes", True)
    assert {status["version"] for status in model["model_version_status"]} == {"1", "2"}
    assert set(get(server, "/v1/models")["models"]) == {"breast_cancer", "diabetes", "digits"}
    metadata = get(server, "/v1/models/digits/metadata")
    assert metadata["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    image = signature["inputs"]["image"]
    assert image["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "1", "8", "8"]
    assert {name: output["dtype"] for name, output in signature["outputs"].items()} == {
        "digit": "DT_INT64",
        "probabilities": "DT_FLOAT",
    }


def test_tensorflow_grpc_faults(server):
    inputs = reference.rows("diabetes", "2", 1, seed=35)
    short = {name: value[:, :3] for name, value in inputs.items()}
    wrong = {name: value.astype(np.float64) for name, value in inputs.items()}
    for model, version, values, code, word in [
        ("nothing", None, inputs, "NOT_FOUND", "nothing"),
        ("diabetes", "9", inputs, "NOT_FOUND", "9"),
        ("diabetes", None, short, "INVALID_ARGUMENT", "[1, 3]"),
        ("diabetes", None, wrong, "INVALID_ARGUMENT", "FP64"),
    ]:
        with pytest.raises(grpc.RpcError) as error:
            tensorflow_client.predict(server, model, values, version)
        assert error.value.code().name == code
        assert word in error.value.details()


def test_torchserve_as_curl_sends_it(server):
    """`curl -T` puts a file and does not say what is in it."""
    inputs = reference.rows("diabetes", "2", 1, seed=34)
    [row] = (value[0] for value in inputs.values())
    wanted = reference.expected("diabetes", "2", inputs)["progression"][0]
    for body in [row.tobytes(), json.dumps(row.tolist()).encode()]:
        reply = request(server.http, "PUT", "/predictions/diabetes", body)
        assert reply.status == 200, reply.body
        np.testing.assert_allclose(reply.json, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "method, path, status, kind",
    [
        ("POST", "/predictions/nothing", 404, "ModelNotFoundException"),
        ("POST", "/predictions/diabetes/9", 404, "ModelVersionNotFoundException"),
        ("POST", "/predictions/diabetes", 400, "BadRequestException"),
        ("GET", "/predictions/diabetes", 405, "MethodNotAllowedException"),
        ("POST", "/explanations/diabetes", 501, "UnsupportedOperationException"),
    ],
)
def test_torchserve_faults(server, method, path, status, kind):
    reply = request(server.http, method, path, [1, 2, 3])
    assert (reply.status, reply.json["code"], reply.json["type"]) == (status, status, kind), reply.body
    assert reply.json["message"]


def test_torchserve_describes_itself(server):
    assert get(server, "/ping") == {"status": "Healthy"}
    reply = request(server.http, "OPTIONS", "/")
    assert (reply.status, reply.json["openapi"]) == (200, "3.0.1")


def test_a_model_that_does_not_serve(tmp_path):
    """KServe's clients look at the status and at `ready`, TensorFlow Serving's at the states."""
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    with served.serve("tract", repository=tmp_path) as server:
        reply = request(server.http, "GET", "/v1/models/broken")
        assert (reply.status, reply.json["ready"]) == (503, False)
        [status] = reply.json["model_version_status"]
        assert (status["version"], status["state"]) == ("1", "END")
        assert status["status"]["error_message"]
        assert get(server, "/v1/models/broken/versions/1")["model_version_status"] == [status]
        assert request(server.http, "POST", "/v1/models/broken:predict", {"instances": [[1]]}).status == 503


@pytest.mark.parametrize(
    "path, body, status, words",
    [
        ("/v1/models/nothing:predict", {"instances": [[1]]}, 404, ["nothing"]),
        ("/v1/models/diabetes/versions/9:predict", {"instances": [[1]]}, 404, ["9"]),
        ("/v1/models/diabetes:predict", {"instances": [[1, 2, 3]]}, 400, ["10", "3"]),
        ("/v1/models/diabetes:predict", {"signature_name": "other", "instances": [[1] * 10]}, 400, ["other"]),
        ("/v1/models/diabetes:predict", b'{"instances": [[1,', 400, ["byte"]),
        ("/v1/models/diabetes:classify", {"examples": [{"measurements": [1] * 10}]}, 400, ["scores"]),
        ("/v1/models/diabetes:explain", {"instances": [[1] * 10]}, 501, ["explain"]),
    ],
)
def test_tensorflow_faults(server, path, body, status, words):
    reply = request(server.http, "POST", path, body)
    assert reply.status == status, reply.body
    assert all(word in reply.json["error"] for word in words), reply.json


def listed(inputs: reference.Tensors) -> list:
    """A list of rows; the only input stands without its name."""
    if len(inputs) == 1:
        [rows] = (value.tolist() for value in inputs.values())
        return rows
    return [{name: float(value[row, 0]) for name, value in inputs.items()} for row in range(ROWS)]


def body_of(inputs: reference.Tensors) -> dict[str, bytes]:
    """The same as the only field of a form."""
    return {"data": json.dumps(listed(inputs)).encode()}


def form(fields: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a multipart form."""
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    return ("".join(parts) + "--edge--\r\n").encode(), {"Content-Type": "multipart/form-data; boundary=edge"}


def frame(inputs: reference.Tensors) -> tuple[list[str], list[list[float]]]:
    """Names and rows of a data frame with a column for each input, or for each element of the only one."""
    if len(inputs) > 1:
        return list(inputs), np.concatenate(list(inputs.values()), axis=1).tolist()
    [rows] = (value.reshape(ROWS, -1) for value in inputs.values())
    return [f"column {index}" for index in range(rows.shape[1])], rows.tolist()


def whole(predictions: dict | list) -> dict:
    """Outputs by name, of MLflow's answers: records of models of columns, whole outputs of the others."""
    if isinstance(predictions, dict):
        return predictions
    return {name: [row[name] for row in predictions] for name in predictions[0]}


def plain(outputs: reference.Tensors) -> dict:
    return {name: reference.plain(value).tolist() for name, value in outputs.items()}


def post(server, path: str, body) -> dict:
    reply = request(server.http, "POST", path, body)
    assert reply.status == 200, reply.body
    return reply.json


def get(server, path: str) -> dict:
    reply = request(server.http, "GET", path)
    assert reply.status == 200, reply.body
    return reply.json


def by_column(rows: list, model: str, version: str) -> dict:
    """Outputs by name, of rows that are objects, or values where there is only one output."""
    if not isinstance(rows[0], dict):
        return {only_output(model, version): rows}
    return {name: [row[name] for row in rows] for name in rows[0]}


def only_output(model: str, version: str) -> str:
    [output] = reference.session(model, version).get_outputs()
    return output.name
