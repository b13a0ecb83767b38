"""What the right answer is: Python's onnxruntime on the same model file."""

import functools
import json

import numpy as np
import onnxruntime

from served import REPOSITORY

# Model, version; the last version of a model is the one that a request without a version gets.
MODELS = [("breast_cancer", "1"), ("diabetes", "1"), ("diabetes", "2"), ("digits", "1")]
TOLERANCE = 1e-5
# Classes nearer than this count as tied, and then either label would be right.
TIE = 1e-3

Tensors = dict[str, np.ndarray]


def path(model: str, version: str):
    return REPOSITORY / model / version / "model.onnx"


@functools.cache
def session(model: str, version: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path(model, version), options, providers=["CPUExecutionProvider"])


@functools.cache
def golden(model: str, version: str) -> tuple[Tensors, Tensors, float]:
    """Inputs, outputs and the tolerance of the `golden.json` beside the model."""
    content = json.loads(path(model, version).with_name("golden.json").read_text())
    inputs = {name: np.array(rows, dtype=np.float32) for name, rows in content["inputs"].items()}
    outputs = {name: np.array(rows) for name, rows in content["outputs"].items()}
    return inputs, outputs, content["tolerance"]


def expected(model: str, version: str, inputs: Tensors) -> Tensors:
    """Every output by name. A sequence of maps becomes one row per map, columns in the order of the map's keys."""
    names = [output.name for output in session(model, version).get_outputs()]
    return {name: as_tensor(value) for name, value in zip(names, session(model, version).run(names, inputs))}


def as_tensor(value) -> np.ndarray:
    if isinstance(value, list):
        return np.array([[row[key] for key in sorted(row)] for row in value], dtype=np.float32)
    return value


def rows(model: str, version: str, count: int, seed: int) -> Tensors:
    """`count` rows like the golden ones that no other seed gives: each value is scaled by a factor of its own."""
    generator = np.random.default_rng(seed)
    samples, _, _ = golden(model, version)
    candidates = {}
    chosen = generator.integers(len(next(iter(samples.values()))), size=2 * count + 8)
    for name, sample in samples.items():
        picked = sample[chosen]
        candidates[name] = (picked * generator.uniform(0.8, 1.25, picked.shape)).astype(np.float32)
    clear = np.flatnonzero(~tied(expected(model, version, candidates)))[:count]
    assert len(clear) == count, "too many tied rows; this is a bug of the test"
    return {name: candidate[clear] for name, candidate in candidates.items()}


def tied(outputs: Tensors) -> np.ndarray:
    count = len(next(iter(outputs.values())))
    result = np.zeros(count, dtype=bool)
    for value in outputs.values():
        if value.ndim == 2 and value.shape[1] > 1:
            best = np.sort(value, axis=1)
            result |= best[:, -1] - best[:, -2] < TIE
    return result


def assert_same(actual: Tensors, wanted: Tensors, tolerance: float = TOLERANCE) -> None:
    assert actual.keys() == wanted.keys()
    for name, value in wanted.items():
        assert actual[name].shape == value.shape, name
        if np.issubdtype(value.dtype, np.floating):
            np.testing.assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(plain(actual[name]), plain(value), err_msg=name)


def plain(value: np.ndarray) -> np.ndarray:
    """Text as `str`, whether it came as bytes or as text; anything else as it is."""
    if value.dtype.kind not in "OSU":
        return value
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in value.ravel()]
    return np.array(texts).reshape(value.shape)
