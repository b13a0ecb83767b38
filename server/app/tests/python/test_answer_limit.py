"""Answers are bounded by the limit of messages in both protocols, and small requests cannot ask for large ones."""

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

import served

BYTES_MAX = 200_000
WIDTH = 4_000


def save(repository, name, nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    directory = repository / name / "1"
    directory.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")
    (directory / ".complete").touch()


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def server(request, tmp_path_factory):
    repository = tmp_path_factory.mktemp("answers")
    # What its shapes tell: 4,000 values for each row.
    save(
        repository,
        "wide",
        [helper.make_node("Mul", ["x", "ones"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(np.ones((1, WIDTH), np.float32), "ones")],
    )
    # What nothing tells before the run: as many values as the input says.
    save(
        repository,
        "range",
        [
            helper.make_node("Squeeze", ["count"], ["end"]),
            helper.make_node("Range", ["zero", "end", "one"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
        ],
        [helper.make_tensor_value_info("count", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in [("zero", 0), ("one", 1)]],
    )
    limits = ["--http-body-bytes-max", str(BYTES_MAX), "--grpc-message-bytes-max", str(BYTES_MAX)]
    with served.serve(request.param, *limits, repository=repository) as running:
        yield running


def post(server, path, body):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rows(count):
    return [[1.2345678]] * count


def infer(name, datatype, shape, data, **parameters):
    inputs = [{"name": name, "datatype": datatype, "shape": shape, "data": data}]
    return {"inputs": inputs, "parameters": parameters}


# How each dialect asks for so many rows of `wide`.
DIALECTS = [
    ("/v2/models/wide/infer", lambda count: infer("x", "FP32", [count, 1], rows(count))),
    ("/v1/models/wide:predict", lambda count: {"instances": rows(count)}),
    ("/v1/models/wide:predict", lambda count: {"inputs": rows(count)}),
    ("/predictions/wide", rows),
    ("/endpoints/wide/invocations", lambda count: {"inputs": rows(count)}),
]


def runs(server, model):
    with urllib.request.urlopen(f"http://{server.http}/v2/models/{model}/stats") as reply:
        return json.load(reply)["model_stats"][0]["execution_count"]


@pytest.mark.parametrize("path, ask", DIALECTS)
def test_what_shapes_tell_is_refused_before_it_runs(server, path, ask):
    assert post(server, path, ask(1))[0] == 200
    before = runs(server, "wide")
    status, text = post(server, path, ask(100))
    assert status == 413, text[:200]
    assert f"the answer has {100 * WIDTH * 4} bytes or more, the limit is {BYTES_MAX}" in text
    assert "raise --http-body-bytes-max" in text
    assert runs(server, "wide") == before


@pytest.mark.parametrize("path, ask", DIALECTS)
def test_text_is_not_written_beyond_the_limit(server, path, ask):
    # 10 rows are 160,000 bytes of tensors and more than twice as much text.
    status, text = post(server, path, ask(10))
    assert status == 413, text[:200]
    assert f"the limit is {BYTES_MAX}" in text


def test_what_only_the_run_tells_is_refused_after_it(server):
    ask = lambda count, **parameters: post(server, "/v2/models/range/infer", infer("count", "INT64", [1], [count], **parameters))
    assert json.loads(ask(10)[1])["outputs"][0]["data"] == list(range(10))
    for count in [60_000, 10_000_000]:
        for parameters in [{}, {"binary_data_output": True}]:
            status, text = ask(count, **parameters)
            assert status == 413 and f"the limit is {BYTES_MAX}" in text, text[:200]
    # 180,000 bytes of tensors are 400,000 of text.
    assert ask(45_000, binary_data_output=True)[0] == 200
    status, text = ask(45_000)
    assert status == 413 and f"the limit is {BYTES_MAX}" in text, text[:200]


def test_grpc_has_the_same_limit(server):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.grpc))

    def ask(model, name, datatype, value):
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name=name, datatype=datatype, shape=value.shape)
        request.raw_input_contents.append(value.tobytes())
        return stub.ModelInfer(request, timeout=60)

    assert ask("wide", "x", "FP32", np.ones((1, 1), np.float32)).raw_output_contents
    before = runs(server, "wide")
    for call in [
        lambda: ask("wide", "x", "FP32", np.ones((100, 1), np.float32)),
        lambda: ask("range", "count", "INT64", np.array([60_000])),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"the limit is {BYTES_MAX}" in refused.value.details()
        assert "raise --grpc-message-bytes-max" in refused.value.details()
    assert runs(server, "wide") == before
