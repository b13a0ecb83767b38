"""The operator cases of ONNX's own suite with their first axes opened: models of any number of rows, and requests for them."""

import dataclasses
import pathlib

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

from .case import Tensors, difference
from .judge import session

DATA = pathlib.Path(onnx.backend.test.__file__).parent / "data" / "node"
# What the Open Inference Protocol has a name for, and numpy a type.
TYPES = {
    onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BOOL,
    onnx.TensorProto.INT8, onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64,
    onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64,
    onnx.TensorProto.STRING,
}
ELEMENTS_MAX = 20_000
ROWS_MAX = 3


@dataclasses.dataclass
class Opened:
    name: str
    model: onnx.ModelProto
    # What the suite gives, by the inputs that are open.
    given: Tensors

    def request(self, generator: np.random.Generator) -> Tensors:
        """A few of the suite's rows in any order, floats each with a factor of their own."""
        rows = generator.integers(1, ROWS_MAX + 1)
        request = {}
        for name, value in self.given.items():
            chosen = value[generator.integers(0, len(value), rows)]
            if chosen.dtype.kind == "f":
                chosen = (chosen * generator.uniform(0.5, 1.5, chosen.shape)).astype(chosen.dtype)
            request[name] = chosen
        return request

    def difference(self, actual: Tensors, wanted: Tensors) -> str:
        halves = any(value.dtype == np.float16 for value in [*wanted.values(), *self.given.values()])
        return difference(actual, wanted, 1e-2 if halves else 1e-4)


def opened_cases() -> list[Opened]:
    """Each case as often as there are ways to open it: its first input alone, or all that have as many rows."""
    result = []
    for folder in sorted(DATA.iterdir()):
        model = onnx.load(folder / "model.onnx")
        given = inputs_of(folder, model)
        if not given or not all(is_tensor(value) for value in [*model.graph.input, *model.graph.output]):
            continue
        first, *others = given
        if given[first].ndim == 0 or len(given[first]) == 0:
            continue
        alike = [name for name in others if given[name].ndim and len(given[name]) == len(given[first])]
        for suffix, open_names in [("", [first]), ("_all", [first, *alike])][: 1 + bool(alike)]:
            result.append(opened(folder.name.removeprefix("test_") + suffix, model, given, open_names))
    return [case for case in result if case is not None]


def inputs_of(folder: pathlib.Path, model: onnx.ModelProto) -> Tensors | None:
    """The first data set, or nothing where it is not of tensors."""
    given = {}
    for number, value in enumerate(model.graph.input):
        file = folder / "test_data_set_0" / f"input_{number}.pb"
        if not value.type.HasField("tensor_type") or not file.exists():
            return None
        given[value.name] = numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
    return given


def is_tensor(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in TYPES


def opened(name: str, model: onnx.ModelProto, given: Tensors, open_names: list[str]) -> Opened | None:
    if sum(value.size for value in given.values()) > ELEMENTS_MAX:
        return None
    rows = len(given[open_names[0]])
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    graph = copy.graph
    closed = [value for value in graph.input if value.name not in open_names]
    graph.initializer.extend(numpy_helper.from_array(given[value.name], value.name) for value in closed)
    for value in closed:
        graph.input.remove(value)
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "rows"
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim
        for number, dim in enumerate(dims):
            # A size that is as many as the rows may be them; others may follow from values.
            dim.dim_param = "rows" if number == 0 and dim.dim_value == rows else f"{value.name}_{number}"
    del graph.value_info[:]
    return Opened(name, copy, {name: given[name] for name in open_names})


def runnable(case: Opened, seed: int, requests: int) -> list[tuple[Tensors, Tensors]]:
    """Requests with ONNX Runtime's answers to each alone; none where it has none, or another one each time."""
    try:
        runtime = session(case.model)
    except Exception:
        return []
    names = [output.name for output in case.model.graph.output]
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(requests):
        request = case.request(generator)
        try:
            answers = [dict(zip(names, runtime.run(names, request))) for _ in range(2)]
        except Exception:
            continue
        if not all(isinstance(value, np.ndarray) for value in answers[0].values()):
            return []
        if any(answers[0][name].tobytes() != answers[1][name].tobytes() for name in names if answers[0][name].dtype != object):
            return []
        pairs.append((request, answers[0]))
    return pairs if len(pairs) >= requests // 2 else []
