"""What a case is: a model in ONNX's text form, requests for it, and the answer to one request, worked out in numpy."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser

Tensors = dict[str, np.ndarray]
Values = Callable[[np.random.Generator, int], np.ndarray]

NUMPY = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "int8": np.int8,
    "bool": np.bool_,
    "string": np.object_,
}
WORDS = ["ash", "oak and elm", "a beech by the old mill", "fir", "lime tree", "", "yew in the north yard"]
# The size of a dimension that is neither a number nor the rows.
FREE_SIZE = 5

# `$i(1,-1)` in a body stands for a constant of 64-bit integers, `$f(...)` and `$t(...)` for one of floats or
# strings; `$is(3)`, `$fs(3)` and `$bs(1)` for a scalar.
CONSTANT = re.compile(r"\$(is|fs|bs|i|f|t)\(([^)]*)\)")
CONSTANT_TYPES = {"i": "int64", "f": "float", "t": "string", "is": "int64", "fs": "float", "bs": "bool"}


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    # Whether the rows of a batch influence each other's outputs.
    mixes: bool
    # What mixes rows, or what looks as if it did.
    how: str
    text: str
    reference: Callable
    values: dict[str, Values]
    output_names: list[str]
    tolerance: float

    def model(self) -> onnx.ModelProto:
        try:
            model = onnx.parser.parse_model(self.text)
        except onnx.parser.ParseError as error:
            raise ValueError(f"{self.name} is not ONNX's text form: {error}\n{self.text}") from error
        onnx.checker.check_model(model)
        return model

    def request(self, generator: np.random.Generator, rows: int) -> Tensors:
        return {name: values(generator, rows) for name, values in self.values.items()}

    def answer(self, inputs: Tensors) -> Tensors:
        """The outputs for one request, from the reference alone."""
        result = self.reference(**inputs)
        result = result if isinstance(result, tuple) else (result,)
        return dict(zip(self.output_names, result, strict=True))

    def difference(self, actual: Tensors, wanted: Tensors) -> str:
        return difference(actual, wanted, self.tolerance)


def difference(actual: Tensors, wanted: Tensors, tolerance: float) -> str:
    """Where two answers differ beyond rounding; empty where they do not."""
    for name, value in wanted.items():
        value, other = np.asarray(value), plain(actual[name])
        if other.shape != value.shape:
            return f"{name} has the shape {list(other.shape)} instead of {list(value.shape)}"
        if value.dtype.kind == "f":
            scale = np.max(np.abs(value), initial=1.0, where=np.isfinite(value))
            near = np.isclose(other, value, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
        else:
            near = plain(value) == other
        if not np.all(near):
            place = tuple(int(index) for index in np.argwhere(~near)[0])
            return f"{name}{list(place)} is {other[place]!r} instead of {value[place]!r}"
    return ""


CASES: list[Case] = []


def mixer(name: str, how: str, signature: str, body: str, reference: Callable, **options) -> None:
    CASES.append(case(name, True, how, signature, body, reference, **options))


def keeper(name: str, how: str, signature: str, body: str, reference: Callable, **options) -> None:
    CASES.append(case(name, False, how, signature, body, reference, **options))


def case(
    name: str,
    mixes: bool,
    how: str,
    signature: str,
    body: str,
    reference: Callable,
    *,
    given: dict[str, Values] | None = None,
    opset: int = 18,
    weights: str = "",
    functions: str = "",
    tolerance: float = 1e-4,
) -> Case:
    """`signature` is `type[shape] name, ... -> type[shape] name, ...`; `N` is the rows."""
    inputs, outputs = (part.strip() for part in signature.split("->"))
    constants: dict[str, str] = {}

    def constant(match: re.Match) -> str:
        kind, text = match.groups()
        name = "k_" + kind + "_" + re.sub(r"\W", lambda sign: f"_{ord(sign.group()):x}_", text)
        items = [item.strip() for item in text.split(",")] if text.strip() else []
        if kind == "t":
            items = [f'"{item}"' for item in items]
        if kind in ("f", "fs"):
            items = [item if "." in item or "e" in item else item + ".0" for item in items]
        shape = "" if kind.endswith("s") else f"[{len(items)}]"
        constants[name] = f"{CONSTANT_TYPES[kind]}{shape} {name} = {{{', '.join(items)}}}"
        return name

    body = CONSTANT.sub(constant, body)
    kept = ", ".join(filter(None, [weights, *constants.values()]))
    domains = f'"" : {opset}, "ai.onnx.ml" : 3' + (', "own" : 1' if functions else "")
    initializers = f"<{kept}>" if kept else ""
    text = f"<ir_version: 9, opset_import: [{domains}]>\nmain ({inputs}) => ({outputs}) {initializers}\n{{{body}}}\n"
    text += functions
    values = {}
    for spec in split(inputs):
        dtype, shape, input_name = re.fullmatch(r"(\w+)\[(.*?)\] (\w+)(?: = .*)?", spec).groups()
        values[input_name] = (given or {}).get(input_name) or anything(dtype, [dim.strip() for dim in shape.split(",")])
    output_names = [spec.split()[-1] for spec in split(outputs)]
    return Case(name, mixes, how, text, reference, values, output_names, tolerance)


def split(specs: str) -> list[str]:
    """At the commas that are outside brackets and braces."""
    return [spec.strip() for spec in re.split(r",(?![^\[{]*[\]}])", specs)]


def anything(dtype: str, dims: list[str]) -> Values:
    """Values of no particular kind."""

    def values(generator: np.random.Generator, rows: int) -> np.ndarray:
        shape = [rows if dim == "N" else int(dim) if dim.isdigit() else FREE_SIZE for dim in dims if dim]
        if dtype == "string":
            return generator.choice(np.array(WORDS, dtype=object), shape)
        if dtype == "bool":
            return generator.random(shape) < 0.5
        if dtype in ("int64", "int32", "uint8", "int8"):
            return generator.integers(0, 4, shape).astype(NUMPY[dtype])
        return (2 * generator.standard_normal(shape)).astype(NUMPY[dtype])

    return values


def integers(low: int, high: int, *dims: int, dtype=np.int64) -> Values:
    """`low` to `high - 1`, one row of `dims` for each row."""
    return lambda generator, rows: generator.integers(low, high, (rows, *dims)).astype(dtype)


def floats(low: float, high: float, *dims: int) -> Values:
    return lambda generator, rows: generator.uniform(low, high, (rows, *dims)).astype(np.float32)


def rare(value: float, share: float, *dims: int, dtype=np.float32) -> Values:
    """Small values, and `value` in `share` of the rows."""

    def values(generator: np.random.Generator, rows: int) -> np.ndarray:
        result = generator.uniform(0, 4, (rows, *dims)).astype(dtype)
        hit = generator.random(rows) < share
        result[hit, 0] = value
        return result

    return values


def plain(value: np.ndarray) -> np.ndarray:
    """Text as `str`, whether it came as bytes or as text."""
    value = np.asarray(value)
    if value.dtype.kind not in "OSU":
        return value
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in value.ravel()]
    return np.array(texts, dtype=object).reshape(value.shape)
