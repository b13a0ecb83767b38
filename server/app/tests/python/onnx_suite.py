"""ONNX's backend suite, as its package carries it: models, inputs and the outputs that are right."""

import dataclasses
import functools
import pathlib

import ml_dtypes
import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
from onnx import TensorProto, numpy_helper

DATA = pathlib.Path(onnx.backend.test.__file__).parent / "data"
# The others hold the models of the model zoo, which are fetched.
KINDS = ["node", "simple", "pytorch-converted", "pytorch-operator"]
# As the suite's own runner compares.
RELATIVE, ABSOLUTE = 1e-3, 1e-7
# Relative to the largest element of an output: what is left where large numbers cancel out. The runner knows no such
# thing, and fails ONNX Runtime for 2e-4 in place of 0 beside 450.
ROUNDING = {np.dtype(np.float16): 4e-3, np.dtype(np.float32): 4e-6}
# The types of the Open Inference Protocol, and those that the server carries as raw bytes under ONNX's names.
DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
    TensorProto.FLOAT8E4M3FN: "FLOAT8E4M3FN",
    TensorProto.FLOAT8E4M3FNUZ: "FLOAT8E4M3FNUZ",
    TensorProto.FLOAT8E5M2: "FLOAT8E5M2",
    TensorProto.FLOAT8E5M2FNUZ: "FLOAT8E5M2FNUZ",
    TensorProto.INT4: "INT4",
    TensorProto.UINT4: "UINT4",
    TensorProto.FLOAT4E2M1: "FLOAT4E2M1",
}
# Types that numpy lacks, and what ONNX calls them.
ADDED_TYPES = {
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(ml_dtypes.float8_e4m3fn): TensorProto.FLOAT8E4M3FN,
    np.dtype(ml_dtypes.float8_e4m3fnuz): TensorProto.FLOAT8E4M3FNUZ,
    np.dtype(ml_dtypes.float8_e5m2): TensorProto.FLOAT8E5M2,
    np.dtype(ml_dtypes.float8_e5m2fnuz): TensorProto.FLOAT8E5M2FNUZ,
    np.dtype(ml_dtypes.int4): TensorProto.INT4,
    np.dtype(ml_dtypes.uint4): TensorProto.UINT4,
    np.dtype(ml_dtypes.float4_e2m1fn): TensorProto.FLOAT4E2M1,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One model of the suite, and one set of inputs with the outputs that are right."""

    name: str
    directory: pathlib.Path

    @property
    def path(self) -> pathlib.Path:
        return self.directory / "model.onnx"

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.path)

    @functools.cached_property
    def operators(self) -> set[str]:
        """Every operator of the graph, its functions and its subgraphs."""
        return {node.op_type for node in nodes(self.model)}

    @functools.cached_property
    def types(self) -> set[str]:
        """What the inputs and outputs are: a datatype of the protocol, or else ONNX's own name."""
        return {type_name(value.type) for value in [*self.given, *self.model.graph.output]}

    @functools.cached_property
    def given(self) -> list[onnx.ValueInfoProto]:
        """The inputs that the suite has values for: initializers have them in the model, as old models list them."""
        inputs = self.model.graph.input
        if len(list((self.directory / "test_data_set_0").glob("input_*.pb"))) == len(inputs):
            return list(inputs)
        weights = {weight.name for weight in self.model.graph.initializer}
        return [value for value in inputs if value.name not in weights]

    @functools.cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        values = {value.name: self.read("input", index, value.type) for index, value in enumerate(self.given)}
        return {name: value for name, value in values.items() if value is not None}

    @functools.cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        outputs = enumerate(self.model.graph.output)
        return {value.name: self.read("output", index, value.type) for index, value in outputs}

    def read(self, kind: str, index: int, type: onnx.TypeProto) -> np.ndarray | None:
        """`None` where an optional input is left out."""
        data = (self.directory / "test_data_set_0" / f"{kind}_{index}.pb").read_bytes()
        if type.HasField("optional_type"):
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
        message = TensorProto.FromString(data)
        value = numpy_helper.to_array(message)
        return value.astype(object) if message.data_type == TensorProto.STRING else value

    def fault(self, actual: dict[str, np.ndarray]) -> str | None:
        """How these outputs differ from the suite's, beyond rounding."""
        if set(actual) != set(self.outputs):
            return f"outputs {sorted(actual)} instead of {sorted(self.outputs)}"
        for name, expected in self.outputs.items():
            if text := difference(actual[name], expected):
                return f"output '{name}': {text}"
        return None

    @functools.cached_property
    def fault_in_python(self) -> str | None:
        """How what Python's ONNX Runtime gives differs from the suite's outputs."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
            return self.fault(run(session, self.inputs, self.outputs))
        except Exception as error:
            # The binding has an exception for each kind of status, without a base of their own.
            return f"ONNX Runtime fails: {' '.join(str(error).split())}"


def run(session: onnxruntime.InferenceSession, inputs: dict, outputs: dict) -> dict[str, np.ndarray]:
    """The session's outputs. Of a type that numpy lacks it writes them into arrays of ml_dtypes'."""
    if all(value.dtype not in ADDED_TYPES for value in [*inputs.values(), *outputs.values()]):
        left_out = {value.name: None for value in session.get_inputs() if value.name not in inputs}
        return dict(zip(outputs, session.run(list(outputs), inputs | left_out), strict=True))
    binding = session.io_binding()
    results = {name: np.zeros_like(value) for name, value in outputs.items()}
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, ort_value(value))
    for name, value in results.items():
        binding.bind_ortvalue_output(name, ort_value(value))
    session.run_with_iobinding(binding)
    return results


def ort_value(value: np.ndarray) -> onnxruntime.OrtValue:
    """The array itself, not a copy."""
    if value.dtype not in ADDED_TYPES:
        return onnxruntime.OrtValue.ortvalue_from_numpy(value)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(value, ADDED_TYPES[value.dtype])


def difference(actual: np.ndarray, expected: np.ndarray) -> str | None:
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)} instead of {list(expected.shape)}"
    if actual.dtype != expected.dtype:
        return f"{actual.dtype} instead of {expected.dtype}"
    if expected.dtype == object:
        same = [text(element) for element in actual.ravel()] == [text(element) for element in expected.ravel()]
    else:
        rounding = ROUNDING.get(expected.dtype, 0)
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        same = np.allclose(actual, expected, RELATIVE, ABSOLUTE + rounding * largest, equal_nan=True)
    return None if same else f"{actual.ravel()[:4]} instead of {expected.ravel()[:4]}"


def text(element) -> str:
    return element.decode() if isinstance(element, bytes) else str(element)


def type_name(value: onnx.TypeProto) -> str:
    if value.HasField("optional_type"):
        return type_name(value.optional_type.elem_type)
    if not value.HasField("tensor_type"):
        return value.WhichOneof("value").removesuffix("_type")
    element = value.tensor_type.elem_type
    return DATATYPES.get(element) or TensorProto.DataType.Name(element)


def nodes(model: onnx.ModelProto):
    """Nodes of the graph, of functions, and of the graphs inside both."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                waiting.extend(graph.node)


@functools.cache
def cases() -> list[Case]:
    directories = [directory for kind in KINDS for directory in sorted((DATA / kind).iterdir())]
    return [Case(directory.name, directory) for directory in directories if (directory / "model.onnx").exists()]
