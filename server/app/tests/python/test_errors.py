"""A faulty request gets the code and the sentence that its sender needs, and nobody else notices."""

import concurrent.futures
import json
import struct

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

import reference
from clients import PROTOCOLS, Client, request

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, 400)
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, 404)


def tensor(name="measurements", datatype="FP32", shape=(1, 10), data=None) -> dict:
    """One input; its data are whole rows of zeros unless given."""
    if data is None:
        data = [0] * int(np.prod(shape))
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


COLUMNS = list(reference.golden("breast_cancer", "1")[0])
UNEVEN_COLUMNS = [tensor(name, shape=(3 if name == "mean_area" else 2, 1)) for name in COLUMNS]

# What it is, model, version, inputs, requested outputs, codes, what the message must name.
FAULTS = [
    ("unknown model", "nothing", "", [tensor()], [], NOT_FOUND, ["nothing"]),
    ("unknown version", "diabetes", "3", [tensor()], [], NOT_FOUND, ["diabetes", "3"]),
    ("wrong datatype", "diabetes", "", [tensor(datatype="FP64")], [], INVALID, ["measurements", "FP32", "FP64"]),
    ("unknown datatype", "diabetes", "", [tensor(datatype="FLOAT")], [], INVALID, ["measurements", "FLOAT", "FP32"]),
    ("wrong width", "diabetes", "", [tensor(shape=(2, 9))], [], INVALID, ["measurements", "10", "[2, 9]"]),
    ("wrong rank", "diabetes", "", [tensor(shape=(10,))], [], INVALID, ["measurements", "[10]"]),
    ("negative size", "diabetes", "", [tensor(shape=(-1, 10), data=[0] * 10)], [], INVALID, ["measurements", "-1"]),
    ("endless shape", "diabetes", "", [tensor(shape=(2**62, 2**62), data=[0])], [], INVALID, ["measurements", str(2**62)]),
    ("missing input", "diabetes", "", [], [], INVALID, ["measurements"]),
    ("one of thirty missing", "breast_cancer", "", [tensor(name, shape=(1, 1)) for name in COLUMNS if name != "mean_area"], [], INVALID, ["mean_area"]),
    ("surplus input", "diabetes", "", [tensor(), tensor("extra")], [], INVALID, ["extra", "measurements"]),
    ("an input twice", "diabetes", "", [tensor(), tensor()], [], INVALID, ["measurements"]),
    ("rows that differ", "breast_cancer", "", UNEVEN_COLUMNS, [], INVALID, ["mean_area"]),
    ("unknown output", "diabetes", "", [tensor()], ["nothing"], INVALID, ["nothing", "progression"]),
    ("too few elements", "diabetes", "", [tensor(data=[0] * 9)], [], INVALID, ["measurements", "9", "10"]),
    ("too many elements", "diabetes", "", [tensor(data=[0] * 11)], [], INVALID, ["measurements", "10"]),
]
NAMES = [fault[0].replace(" ", "-") for fault in FAULTS]


@pytest.fixture
def unharmed(server):
    """After the test, the server still answers."""
    yield server
    inputs = reference.rows("diabetes", "2", 1, seed=1)
    with Client(server, "grpc") as client:
        answer = client.infer("diabetes", inputs)
    reference.assert_same(answer.outputs, reference.expected("diabetes", "2", inputs))


@pytest.mark.parametrize("what, model, version, inputs, outputs, codes, named", FAULTS, ids=NAMES)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_grpc(unharmed, what, model, version, inputs, outputs, codes, named, raw):
    message = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for given in inputs:
        added = message.inputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
        if raw:
            kind = "<f8" if given["datatype"] == "FP64" else "<f4"
            message.raw_input_contents.append(np.array(given["data"], dtype=kind).tobytes())
        elif given["datatype"] == "FP64":
            added.contents.fp64_contents.extend(given["data"])
        else:
            added.contents.fp32_contents.extend(given["data"])
    for name in outputs:
        message.outputs.add(name=name)
    code, text = grpc_error(unharmed, message)
    assert code == codes[0], text
    # Bytes are what is counted in a raw tensor.
    bytes_of = {"9": "36"} if raw and what == "too few elements" else {}
    if raw and "elements" in what:
        bytes_of["10"] = "40"
    for word in named:
        assert bytes_of.get(word, word) in text


@pytest.mark.parametrize("what, model, version, inputs, outputs, codes, named", FAULTS, ids=NAMES)
def test_http(unharmed, what, model, version, inputs, outputs, codes, named):
    body = {"inputs": inputs}
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    reply = request(unharmed.http, "POST", infer_path(model, version), body)
    assert reply.status == codes[1], reply.body
    for word in named:
        assert word in reply.json["error"]


def infer_path(model: str, version: str = "") -> str:
    return f"/v2/models/{model}/versions/{version}/infer" if version else f"/v2/models/{model}/infer"


def grpc_error(server, message) -> tuple[grpc.StatusCode, str]:
    with Client(server, "grpc") as client:
        with pytest.raises(grpc.RpcError) as error:
            client.triton._client_stub.ModelInfer(message)
    return error.value.code(), error.value.details()


def test_grpc_raw_and_typed_contents_together(unharmed):
    message = service_pb2.ModelInferRequest(model_name="diabetes")
    added = message.inputs.add(name="measurements", datatype="FP32", shape=[1, 10])
    added.contents.fp32_contents.extend([0] * 10)
    message.raw_input_contents.append(bytes(40))
    code, text = grpc_error(unharmed, message)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "measurements" in text and "raw_input_contents" in text


def test_grpc_contents_of_another_type(unharmed):
    message = service_pb2.ModelInferRequest(model_name="diabetes")
    added = message.inputs.add(name="measurements", datatype="FP32", shape=[1, 10])
    added.contents.int_contents.extend([0] * 10)
    code, text = grpc_error(unharmed, message)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "measurements" in text and "fp32_contents" in text and "int_contents" in text


def test_grpc_truncated_message(unharmed):
    message = service_pb2.ModelInferRequest(model_name="diabetes")
    message.inputs.add(name="measurements", datatype="FP32", shape=[1, 10])
    message.raw_input_contents.append(bytes(40))
    cut = message.SerializeToString()[:-7]
    with grpc.insecure_channel(unharmed.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(cut)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
    assert error.value.details()


def test_grpc_unknown_method(unharmed):
    with grpc.insecure_channel(unharmed.grpc) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


WHOLE = json.dumps({"inputs": [tensor()]}).encode()


@pytest.mark.parametrize(
    "body, named",
    [
        (b"", []),
        (WHOLE[:-5], []),
        (WHOLE + b"}", []),
        (b"[]", []),
        (b"\xff\xfe", []),
        (b"{}", ["inputs"]),
        (b'{"inputs": 3}', ["inputs"]),
        (b'{"inputs": [{"datatype": "FP32", "shape": [1, 10], "data": []}]}', ["name"]),
        (b'{"inputs": [{"name": "measurements", "shape": [1, 10], "data": []}]}', ["measurements", "datatype"]),
        (b'{"inputs": [{"name": "measurements", "datatype": "FP32", "data": []}]}', ["measurements", "shape"]),
        (b'{"inputs": [{"name": "measurements", "datatype": "FP32", "shape": [1, 10]}]}', ["measurements", "data"]),
        (WHOLE.replace(b"[0, 0,", b'["zero", 0,'), ["measurements", "zero"]),
        (WHOLE.replace(b"[0, 0,", b"[null, 0,"), ["measurements", "null"]),
        (WHOLE.replace(b"[0, 0,", b"[[0, 0],"), ["measurements"]),
        (WHOLE.replace(b"[0, 0,", b"[1e999, 0,"), ["measurements", "1e999"]),
        (b"[" * 100_000, []),
        (b'{"inputs": ' + b"[" * 100_000, ["deeper"]),
    ],
)
def test_http_malformed_json(unharmed, body, named):
    reply = request(unharmed.http, "POST", infer_path("diabetes"), body)
    assert reply.status == 400, reply.body
    assert reply.json["error"]
    for word in named:
        assert word in reply.json["error"]


def binary_body(size_said: int, data: bytes) -> tuple[bytes, dict[str, str]]:
    given = {"name": "measurements", "datatype": "FP32", "shape": [1, 10]}
    header = json.dumps({"inputs": [given | {"parameters": {"binary_data_size": size_said}}]}).encode()
    return header + data, {"Inference-Header-Content-Length": str(len(header))}


@pytest.mark.parametrize(
    "size_said, sent, named",
    [
        (39, 39, ["measurements", "39", "40"]),
        (40, 36, ["measurements", "40", "36"]),
        (40, 44, ["4"]),
        (-1, 40, ["measurements", "-1"]),
        (2**64, 40, ["measurements"]),
    ],
)
def test_http_binary_sizes(unharmed, size_said, sent, named):
    reply = request(unharmed.http, "POST", infer_path("diabetes"), *binary_body(size_said, bytes(sent)))
    assert reply.status == 400, reply.body
    for word in named:
        assert word in reply.json["error"]


@pytest.mark.parametrize("length", ["1000000", "-1", "many", "3", "99999999999999999999"])
def test_http_binary_header_length(unharmed, length):
    body, _ = binary_body(40, bytes(40))
    reply = request(unharmed.http, "POST", infer_path("diabetes"), body, {"Inference-Header-Content-Length": length})
    assert reply.status == 400, reply.body
    assert reply.json["error"]


def test_http_whole_body_is_the_only_tensor(unharmed):
    data = reference.rows("diabetes", "2", 1, seed=2)
    reply = request(
        unharmed.http,
        "POST",
        infer_path("diabetes"),
        data["measurements"].tobytes(),
        {"Inference-Header-Content-Length": "0"},
    )
    assert reply.status == 200, reply.body
    header = reply.headers.get("inference-header-content-length")
    content = json.loads(reply.body[: int(header)] if header else reply.body)
    [output] = content["outputs"]
    if header:
        actual = struct.unpack("<f", reply.body[int(header) :])
    else:
        actual = output["data"]
    np.testing.assert_allclose(actual, reference.expected("diabetes", "2", data)["progression"][0], rtol=1e-5)


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/diabetes/versions/3", 404),
        ("GET", "/v2/models/diabetes/versions/newest", 404),
        ("GET", "/v2/models/diabetes/infer", 405),
        ("DELETE", "/v2/models/diabetes", 405),
        ("POST", "/predict/nothing", 404),
    ],
)
def test_http_paths(unharmed, method, path, status):
    body = b'{"features": [0]}' if method == "POST" else None
    reply = request(unharmed.http, method, path, body)
    assert reply.status == status, reply.body
    assert reply.json["error"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_faulty_neighbours_harm_nobody(unharmed, protocol):
    """Good and bad requests in flight together: each good one is answered, each bad one refused."""

    def ask(number: int) -> None:
        inputs = reference.rows("digits", "1", 1, seed=number)
        if number % 4 == 0:
            body = {"inputs": [tensor("image", shape=(1, 1, 8, 7))]}
            assert request(unharmed.http, "POST", infer_path("digits"), body).status == 400
            return
        with Client(unharmed, protocol) as client:
            answer = client.infer("digits", inputs)
        reference.assert_same(answer.outputs, reference.expected("digits", "1", inputs))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(64)))
