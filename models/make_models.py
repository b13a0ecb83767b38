#!/usr/bin/env python3
"""Trains the example models on scikit-learn's bundled data sets and writes the model repository.

    make models          trains again and replaces the files
    make models-check    trains into a temporary directory and compares with the files that are committed

Every random choice is seeded and the linear algebra runs on one thread, so a second run with the same packages on the
same processor writes the same bytes. Another processor may round differently, so the comparison is of predictions.

Only operators that both ONNX Runtime and tract implement are used: ai.onnx.ml 3 (trees as
`TreeEnsembleClassifier`), no `Scaler` (the scaling is folded into the first weights), no `TreeEnsembleRegressor`.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import argparse
import copy
import json
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 20260101
TARGET_OPSET = {"": 17, "ai.onnx.ml": 3}
GOLDEN_ROWS = 3
GOLDEN_TOLERANCE = 1e-5
# Trained on another processor, weights differ in their last digits and training amplifies that a little.
RETRAINED_TOLERANCE = 1e-3


def breast_cancer() -> tuple[onnx.ModelProto, dict[str, np.ndarray], str]:
    """A random forest that takes 30 named columns, as scikit-learn exports one trained on a data frame.

    The labels are strings and the probabilities keep skl2onnx's default form, a sequence of maps (ZipMap).
    """
    data = load_breast_cancer()
    features = data.data.astype(np.float32)
    labels = data.target_names[data.target]
    train_x, test_x, train_y, test_y = train_test_split(
        features, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    columns = [str(name).replace(" ", "_") for name in data.feature_names]
    # The column transformer is what gives the exported model one input per column.
    forest = make_pipeline(
        ColumnTransformer([("columns", "passthrough", list(range(len(columns))))]),
        RandomForestClassifier(n_estimators=50, max_depth=8, random_state=SEED, n_jobs=1),
    )
    forest.fit(train_x, train_y)

    model = to_onnx(
        forest,
        initial_types=[(column, FloatTensorType([None, 1])) for column in columns],
        target_opset=TARGET_OPSET,
        name="breast_cancer",
    )
    inputs = {column: test_x[:, [i]] for i, column in enumerate(columns)}
    return model, inputs, f"accuracy {accuracy_score(test_y, forest.predict(test_x)):.3f}"


def diabetes_ridge() -> tuple[onnx.ModelProto, dict[str, np.ndarray], str]:
    """Version 1: ridge regression on the raw clinical measurements, scaling folded into its coefficients."""
    train_x, test_x, train_y, test_y = diabetes_split()
    scaler = StandardScaler().fit(train_x)
    ridge = Ridge(alpha=1.0).fit(scaler.transform(train_x), train_y)

    folded = copy.deepcopy(ridge)
    folded.coef_ = ridge.coef_ / scaler.scale_
    folded.intercept_ = ridge.intercept_ - np.sum(ridge.coef_ * scaler.mean_ / scaler.scale_)
    return regression(folded), {"measurements": test_x}, f"R² {r2_score(test_y, folded.predict(test_x)):.3f}"


def diabetes_network() -> tuple[onnx.ModelProto, dict[str, np.ndarray], str]:
    """Version 2: a small neural network on the same measurements, scaling folded into its first layer."""
    train_x, test_x, train_y, test_y = diabetes_split()
    scaler = StandardScaler().fit(train_x)
    network = MLPRegressor(hidden_layer_sizes=(16,), alpha=300.0, solver="lbfgs", max_iter=5000, random_state=SEED)
    network.fit(scaler.transform(train_x), train_y)

    folded = copy.deepcopy(network)
    folded.coefs_[0] = network.coefs_[0] / scaler.scale_[:, None]
    folded.intercepts_[0] = network.intercepts_[0] - (scaler.mean_ / scaler.scale_) @ network.coefs_[0]
    return regression(folded), {"measurements": test_x}, f"R² {r2_score(test_y, folded.predict(test_x)):.3f}"


def diabetes_split():
    data = load_diabetes(scaled=False)
    return train_test_split(data.data.astype(np.float32), data.target, test_size=0.25, random_state=SEED)


def regression(estimator) -> onnx.ModelProto:
    model = to_onnx(
        estimator,
        initial_types=[("measurements", FloatTensorType([None, 10]))],
        target_opset=TARGET_OPSET,
        name="diabetes",
    )
    rename_output(model, model.graph.output[0].name, "progression")
    return model


def rename_output(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    model.graph.output[0].name = new


class DigitsNet:
    """Two 3×3 convolutions, a 2×2 maximum and one dense layer, in numpy: small enough to need no framework.

    Images are [rows, 1, 8, 8] with grey levels 0 to 16, as the data set has them.
    """

    CHANNELS = (16, 32)
    CLASSES = 10

    def __init__(self, generator: np.random.Generator):
        first, second = self.CHANNELS
        flat = second * 2 * 2
        self.weights = {
            "conv1_weight": generator.normal(0, np.sqrt(2 / 9), (first, 1, 3, 3)),
            "conv1_bias": np.zeros(first),
            "conv2_weight": generator.normal(0, np.sqrt(2 / (9 * first)), (second, first, 3, 3)),
            "conv2_bias": np.zeros(second),
            "dense_weight": generator.normal(0, np.sqrt(2 / flat), (flat, self.CLASSES)),
            "dense_bias": np.zeros(self.CLASSES),
        }

    def fit(self, images, digits, generator, epochs=40, batch=64, rate=2e-3):
        """Adam on the cross entropy."""
        moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.weights.items()}
        step = 0
        for _ in range(epochs):
            order = generator.permutation(len(images))
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                step += 1
                for name, gradient in self.gradients(images[rows], digits[rows]).items():
                    mean, square = moments[name]
                    mean += 0.1 * (gradient - mean)
                    square += 0.001 * (gradient**2 - square)
                    corrected = mean / (1 - 0.9**step), square / (1 - 0.999**step)
                    self.weights[name] -= rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)

    def gradients(self, images, digits):
        w = self.weights
        patches1 = self.patches(images / 16.0)
        before1 = self.convolve(patches1, w["conv1_weight"], w["conv1_bias"])
        patches2 = self.patches(np.maximum(before1, 0))
        before2 = self.convolve(patches2, w["conv2_weight"], w["conv2_bias"])
        after2 = np.maximum(before2, 0)
        rows, channels, height, width = after2.shape
        windows = after2.reshape(rows, channels, height // 2, 2, width // 2, 2)
        pooled = windows.max(axis=(3, 5))
        flat = pooled.reshape(rows, -1)
        scores = flat @ w["dense_weight"] + w["dense_bias"]

        d_scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        d_scores /= d_scores.sum(axis=1, keepdims=True)
        d_scores[np.arange(rows), digits] -= 1
        d_scores /= rows
        d_pooled = (d_scores @ w["dense_weight"].T).reshape(pooled.shape)
        # Equal values of one window share its gradient.
        winners = windows == pooled[:, :, :, None, :, None]
        d_windows = winners / winners.sum(axis=(3, 5), keepdims=True) * d_pooled[:, :, :, None, :, None]
        d_before2 = d_windows.reshape(after2.shape) * (before2 > 0)
        d_patches2 = np.einsum("rohw,ocij->rchwij", d_before2, w["conv2_weight"], optimize=True)
        d_before1 = np.zeros_like(before1)
        for i in range(3):
            for j in range(3):
                d_before1[:, :, i : i + height, j : j + width] += d_patches2[..., i, j]
        d_before1 *= before1 > 0
        return {
            "conv1_weight": np.einsum("rohw,rchwij->ocij", d_before1, patches1, optimize=True),
            "conv1_bias": d_before1.sum(axis=(0, 2, 3)),
            "conv2_weight": np.einsum("rohw,rchwij->ocij", d_before2, patches2, optimize=True),
            "conv2_bias": d_before2.sum(axis=(0, 2, 3)),
            "dense_weight": flat.T @ d_scores,
            "dense_bias": d_scores.sum(axis=0),
        }

    @staticmethod
    def patches(images):
        return np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))

    @staticmethod
    def convolve(patches, weight, bias):
        return np.einsum("rchwij,ocij->rohw", patches, weight, optimize=True) + bias[:, None, None]

    def to_onnx(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Mul", ["image", "scale"], ["scaled"]),
            helper.make_node("Conv", ["scaled", "conv1_weight", "conv1_bias"], ["conv1"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["conv1"], ["relu1"]),
            helper.make_node("Conv", ["relu1", "conv2_weight", "conv2_bias"], ["conv2"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["conv2"], ["relu2"]),
            helper.make_node("MaxPool", ["relu2"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
            helper.make_node("Gemm", ["flat", "dense_weight", "dense_bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=0),
        ]
        initializers = [numpy_helper.from_array(np.float32(1 / 16), "scale")]
        initializers += [numpy_helper.from_array(w.astype(np.float32), name) for name, w in self.weights.items()]
        graph = helper.make_graph(
            nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
            [
                helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", self.CLASSES]),
            ],
            initializers,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", TARGET_OPSET[""])], ir_version=8, producer_name="gristmill"
        )


def digits() -> tuple[onnx.ModelProto, dict[str, np.ndarray], str]:
    """A convolutional network that reads handwritten digits of 8×8 pixels."""
    data = load_digits()
    images = data.images.astype(np.float32)[:, None, :, :]
    train_x, test_x, train_y, test_y = train_test_split(
        images, data.target, test_size=0.25, random_state=SEED, stratify=data.target
    )
    generator = np.random.default_rng(SEED)
    network = DigitsNet(generator)
    network.fit(train_x.astype(np.float64), train_y, generator)
    model = network.to_onnx()
    predicted = infer(model.SerializeToString(), {"image": test_x})["digit"]
    return model, {"image": test_x}, f"accuracy {accuracy_score(test_y, predicted):.3f}"


def infer(model: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a model on ONNX Runtime. ZipMap's maps become one row per map, columns in the maps' order."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {name: as_tensor(value) for name, value in zip(names, session.run(names, inputs))}


def as_tensor(value) -> np.ndarray:
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value], dtype=np.float32)
    return value


MODELS = {
    "breast_cancer/1": breast_cancer,
    "diabetes/1": diabetes_ridge,
    "diabetes/2": diabetes_network,
    "digits/1": digits,
}


def write(root: pathlib.Path) -> None:
    """Writes `<name>/<version>/model.onnx` and beside it `golden.json`, sample rows with their answers."""
    for path, make in MODELS.items():
        model, inputs, quality = make()
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
        sample = {name: rows[:GOLDEN_ROWS] for name, rows in inputs.items()}
        golden = {
            "inputs": {name: as_json(rows) for name, rows in sample.items()},
            "outputs": {name: as_json(rows) for name, rows in infer(content, sample).items()},
            "tolerance": GOLDEN_TOLERANCE,
        }
        directory = root / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.onnx").write_bytes(content)
        (directory / "golden.json").write_text(one_line_per_tensor(golden))
        print(f"{path}: {len(content)} bytes, {quality} on held-out rows")


def as_json(rows: np.ndarray) -> list:
    """Nested lists in the tensor's shape; each float with the fewest digits that read back as the same float32."""
    if rows.dtype != np.float32:
        return rows.tolist()
    shortest = [float(str(value)) for value in rows.ravel()]
    return np.array(shortest, dtype=np.float64).reshape(rows.shape).tolist()


def one_line_per_tensor(golden: dict) -> str:
    sections = []
    for section, value in golden.items():
        if isinstance(value, dict):
            lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(rows)}" for name, rows in value.items())
            sections.append(f"  {json.dumps(section)}: {{\n{lines}\n  }}")
        else:
            sections.append(f"  {json.dumps(section)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def check(root: pathlib.Path) -> bool:
    """Says for each model whether training again gives the same file, or at least the same predictions."""
    same = True
    with tempfile.TemporaryDirectory() as directory:
        retrained = pathlib.Path(directory)
        write(retrained)
        for path in MODELS:
            committed = (root / path / "model.onnx").read_bytes()
            again = (retrained / path / "model.onnx").read_bytes()
            if committed == again:
                print(f"{path}: same bytes")
                continue
            golden = json.loads((root / path / "golden.json").read_text())
            inputs = {name: np.array(rows, dtype=np.float32) for name, rows in golden["inputs"].items()}
            expected = infer(committed, inputs)
            equal = all(close(expected[name], rows) for name, rows in infer(again, inputs).items())
            print(f"{path}: {'same predictions' if equal else 'DIFFERENT predictions'}, other bytes")
            same &= equal
    return same


def close(expected: np.ndarray, actual: np.ndarray) -> bool:
    if np.issubdtype(expected.dtype, np.floating):
        return np.allclose(expected, actual, rtol=RETRAINED_TOLERANCE, atol=RETRAINED_TOLERANCE)
    return np.array_equal(expected, actual)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed models, write nothing")
    root = pathlib.Path(__file__).resolve().parent
    if parser.parse_args().check:
        sys.exit(0 if check(root) else 1)
    write(root)
