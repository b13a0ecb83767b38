"""Requests whose sizes are not what a model's file says of them, or that have no rows: ONNX Runtime's answer, as it is."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import reference
import served
from clients import PROTOCOLS, Client, request

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name: str, *shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name: str, *values, dtype=INT64, shape=None):
    return helper.make_tensor(name, dtype, [len(values)] if shape is None else shape, values)


def node(operator: str, inputs: str, output: str, **attributes):
    return helper.make_node(operator, ["" if name == "-" else name for name in inputs.split()], [output], **attributes)


def floats(*shape) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


# Nodes, inputs, outputs, weights.
MODELS = {
    # Rows of one number, as a signal may look, and signals that are none.
    "gain": ([node("Add", "x x", "y")], [value("x", "n")], [value("y", "n")], []),
    "peak": (
        [node("ReduceMax", "x", "peak", keepdims=1), node("Div", "x peak", "y")],
        [value("x", "n")],
        [value("y", "n")],
        [],
    ),
    "spectrum": (
        [node("Unsqueeze", "x axis", "batch"), node("STFT", "batch step - length", "y")],
        [value("x", "samples")],
        [value("y", None, None, None, 2)],
        [constant("axis", 0), constant("step", 128, shape=[]), constant("length", 256, shape=[])],
    ),
    # The file says nothing against it.
    "sum": ([node("Add", "a b", "y")], [value("a", None, 4), value("b", None, 4)], [value("y", None, 4)], []),
    # One name for different sizes.
    "product": ([node("MatMul", "a b", "y")], [value("a", "?", "?"), value("b", "?", "?")], [value("y", "?", "?")], []),
    "pair": (
        [node("Concat", "a b", "y", axis=1)],
        [value("a", "batch", "sequence"), value("b", "batch", "sequence")],
        [value("y", "batch", "both")],
        [],
    ),
    # More or fewer rows than came.
    "places": (
        [node("NonZero", "x", "columns"), node("Transpose", "columns", "y")],
        [value("x", "n", 3)],
        [value("y", "found", 2, dtype=INT64)],
        [],
    ),
}
CASES = [
    ("gain", {"x": floats(20_000)}),
    ("gain", {"x": floats(0)}),
    ("peak", {"x": floats(9_000)}),
    ("spectrum", {"x": floats(20_000)}),
    ("sum", {"a": floats(5, 4), "b": floats(1, 4)}),
    ("sum", {"a": floats(0, 4), "b": floats(0, 4)}),
    ("product", {"a": floats(2, 3), "b": floats(3, 5)}),
    ("pair", {"a": floats(2, 3), "b": floats(2, 5)}),
    ("places", {"x": np.array([[0, 1, 2], [0, 0, 0], [3, 0, 4]], np.float32)}),
    ("places", {"x": np.zeros((2, 3), np.float32)}),
    ("places", {"x": floats(0, 3)}),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    directory = tmp_path_factory.mktemp("repository")
    for name, (nodes, inputs, outputs, weights) in MODELS.items():
        graph = helper.make_graph(nodes, name, inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (directory / name / "1").mkdir(parents=True)
        onnx.save(model, directory / name / "1" / "model.onnx")
    return directory


@pytest.fixture(scope="module")
def server(repository):
    with served.serve("onnxruntime", repository=repository) as running:
        yield running


@pytest.fixture
def expected(repository):
    def run(model: str, inputs: reference.Tensors) -> reference.Tensors:
        options = onnxruntime.SessionOptions()
        # It warns of sizes that the file states otherwise.
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx", options)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs)))

    return run


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model, inputs", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_open_inference(server, expected, model, inputs, protocol):
    with Client(server, protocol) as client:
        reference.assert_same(client.infer(model, inputs).outputs, expected(model, inputs))


@pytest.mark.parametrize("model, inputs", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_tensorflow_columns(server, expected, model, inputs):
    body = {"inputs": {name: value.tolist() for name, value in inputs.items()}}
    reply = request(server.http, "POST", f"/v1/models/{model}:predict", body)
    assert reply.status == 200, reply.body
    wanted = expected(model, inputs)["y"]
    actual = np.array(reply.json["outputs"], wanted.dtype).reshape(wanted.shape)
    reference.assert_same({"y": actual}, {"y": wanted})
