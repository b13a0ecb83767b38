"""Models as users bring them: straight from the exporters, and out of packages that carry a model file.

Each is asked through every dialect that can carry it, and the answers are those of Python's ONNX Runtime on the same
file. A dialect that answers row by row refuses a model whose outputs have no rows, and says which form to use.
"""

import dataclasses
import functools
import importlib.util
import locale
import pathlib
import shutil
from collections.abc import Callable

import lightgbm
import numpy as np
import onnxruntime
import pytest
import xgboost
from catboost import CatBoostClassifier, CatBoostRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as OnnxmltoolsFloats
from onnxruntime.quantization import QuantType, quantize_dynamic
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

import reference
import served
import tensorflow_client
from clients import PROTOCOLS, Client, request
from reference import Tensors

# int8 kernels round each run to a scale of its own, so that rows of a batch differ from rows alone.
TOLERANCE = 1e-4
# What the exporters say of their own defaults, and scikit-learn of a training that is cut short.
pytestmark = pytest.mark.filterwarnings("ignore:Option zipmap is ignored", "ignore:Stochastic Optimizer")


@dataclasses.dataclass(frozen=True)
class Exported:
    """How a model comes to be, and what it is asked."""

    write: Callable[[pathlib.Path], object]
    ask: Callable[[int], Tensors]
    # Rows of the requests.
    rows: int = 5
    # Each output has an entry for each row of the inputs.
    by_row: bool = True


def table(rows: int) -> Tensors:
    return {"x": np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)}


@functools.cache
def training() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, two classes and three classes."""
    generator = np.random.default_rng(7)
    features = generator.normal(size=(200, 4)).astype(np.float32)
    return features, (features[:, 0] + features[:, 1] > 0).astype(np.int64), generator.integers(0, 3, 200)


def multi_output(path: pathlib.Path) -> None:
    """Its probabilities are a sequence with a tensor for each of the two targets."""
    features, two, three = training()
    model = MultiOutputClassifier(LogisticRegression()).fit(features, np.stack([two, three], axis=1))
    path.write_bytes(to_onnx(model, initial_types=[("x", FloatTensorType([None, 4]))]).SerializeToString())


TEXTS = ["the cat sat", "a dog barked", "cats and dogs", "nothing here", "Über Äpfel und Öl"]


def has_locale(name: str) -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True


def text_pipeline(path: pathlib.Path) -> None:
    """Its StringNormalizer wants a locale: the exporter's own where this machine has it, as the image does."""
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS * 4, [0, 1, 1, 0, 1] * 4)
    wanted = {} if has_locale("en_US.UTF-8") else {TfidfVectorizer: {"locale": "C.UTF-8"}}
    exported = convert_sklearn(model, initial_types=[("text", StringTensorType([None, 1]))], options=wanted)
    path.write_bytes(exported.SerializeToString())


def lightgbm_classifier(path: pathlib.Path, zipmap: bool) -> None:
    """Its label is declared to have one row, whatever the number of rows that came."""
    features, two, _ = training()
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(features, two)
    exported = convert_lightgbm(model, initial_types=[("x", OnnxmltoolsFloats([None, 4]))], zipmap=zipmap)
    path.write_bytes(exported.SerializeToString())


def xgboost_classifier(path: pathlib.Path) -> None:
    features, two, _ = training()
    model = xgboost.XGBClassifier(n_estimators=5).fit(features, two)
    exported = convert_xgboost(model, initial_types=[("x", OnnxmltoolsFloats([None, 4]))])
    path.write_bytes(exported.SerializeToString())


def catboost_model(path: pathlib.Path, kind: type, target: int) -> None:
    features, *_ = training()
    model = kind(iterations=5, verbose=False, allow_writing_files=False, thread_count=1)
    model.fit(features, training()[target] if target else features[:, 0]).save_model(str(path), format="onnx")


def dynamic_int8(path: pathlib.Path) -> None:
    features, two, _ = training()
    model = MLPClassifier((16,), max_iter=50, random_state=1).fit(features, two)
    whole = path.with_suffix(".fp32")
    whole.write_bytes(to_onnx(model, initial_types=[("x", FloatTensorType([None, 4]))], options={"zipmap": False}).SerializeToString())
    quantize_dynamic(whole, path, weight_type=QuantType.QInt8)
    whole.unlink()


def packaged(package: str, file: str) -> Callable[[pathlib.Path], object]:
    """The file of a package that is not imported: it may want others."""
    directory = pathlib.Path(importlib.util.find_spec(package).origin).parent
    return lambda path: shutil.copy(directory / file, path)


def renamed(name: str, ask: Callable[[int], Tensors]) -> Callable[[int], Tensors]:
    return lambda rows: {name: value for value in ask(rows).values()}


def pictures(*size: int) -> Callable[[int], Tensors]:
    return lambda rows: {"x": np.random.default_rng(rows).uniform(-1, 1, (rows, 3, *size)).astype(np.float32)}


def speech(rows: int) -> Tensors:
    """Half a frame of silence, then noise: windows of 512 samples at 16 kHz with 64 of those before."""
    samples = np.random.default_rng(rows).normal(0, 0.1, (rows, 576)).astype(np.float32)
    state = np.zeros((2, rows, 128), np.float32)
    return {"input": samples, "state": state, "sr": np.array(16000, np.int64)}


def contents(rows: int) -> Tensors:
    """The first and last bytes of files; 256 stands for none."""
    return {"bytes": np.random.default_rng(rows).integers(0, 257, (rows, 2048)).astype(np.int32)}


RAPIDOCR = functools.partial(packaged, "rapidocr_onnxruntime")
MODELS = {
    "multi_output": Exported(multi_output, table),
    "text_pipeline": Exported(text_pipeline, lambda rows: {"text": np.array(TEXTS[:rows], object).reshape(rows, 1)}),
    "lightgbm": Exported(lambda path: lightgbm_classifier(path, zipmap=False), table),
    "lightgbm_zipmap": Exported(lambda path: lightgbm_classifier(path, zipmap=True), table),
    "xgboost": Exported(xgboost_classifier, table),
    "catboost": Exported(lambda path: catboost_model(path, CatBoostClassifier, 1), renamed("features", table)),
    "catboost_values": Exported(lambda path: catboost_model(path, CatBoostRegressor, 0), renamed("features", table)),
    "dynamic_int8": Exported(dynamic_int8, table),
    "rapidocr_cls": Exported(RAPIDOCR("models/ch_ppocr_mobile_v2.0_cls_infer.onnx"), pictures(48, 192), rows=2),
    "rapidocr_det": Exported(RAPIDOCR("models/ch_PP-OCRv4_det_infer.onnx"), pictures(32, 64), rows=2),
    "rapidocr_rec": Exported(RAPIDOCR("models/ch_PP-OCRv4_rec_infer.onnx"), pictures(48, 32), rows=2),
    "silero_vad": Exported(packaged("silero_vad", "data/silero_vad.onnx"), speech, rows=2, by_row=False),
    "silero_vad_op15": Exported(packaged("silero_vad", "data/silero_vad_16k_op15.onnx"), speech, rows=2, by_row=False),
    "magika": Exported(packaged("magika", "models/standard_v3_3/model.onnx"), contents, rows=3),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    directory = tmp_path_factory.mktemp("repository")
    for name, model in MODELS.items():
        version = directory / name / "1"
        version.mkdir(parents=True)
        model.write(version / "model.onnx")
    return directory


@pytest.fixture(scope="module")
def server(repository):
    with served.serve("onnxruntime", repository=repository) as running:
        yield running


@pytest.fixture(scope="module")
def expected(repository):
    """What Python's ONNX Runtime answers; a sequence of tensors as numbered outputs."""

    @functools.cache
    def session(model: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        path = repository / model / "1" / "model.onnx"
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(model: str, inputs: Tensors) -> Tensors:
        outputs = {}
        for output, value in zip(session(model).get_outputs(), session(model).run(None, inputs)):
            if isinstance(value, list) and isinstance(value[0], np.ndarray):
                outputs |= {f"{output.name}_{index}": tensor for index, tensor in enumerate(value)}
            else:
                outputs[output.name] = reference.as_tensor(value)
        return outputs

    return run


def plain(inputs: Tensors) -> dict:
    return {name: value.tolist() for name, value in inputs.items()}


def by_row(inputs: Tensors, rows: int) -> list[dict]:
    return [{name: value[row].tolist() for name, value in inputs.items()} for row in range(rows)]


def post(server, path: str, body, headers: dict[str, str] | None = None):
    reply = request(server.http, "POST", path, body, headers)
    assert reply.status == 200, reply.body
    return reply.json


def assert_same(actual: dict, wanted: Tensors) -> None:
    """`actual` are nested lists or arrays."""
    arrays = {name: np.array(actual[name], value.dtype).reshape(value.shape) for name, value in wanted.items()}
    assert actual.keys() == wanted.keys()
    reference.assert_same(arrays, wanted, TOLERANCE)


def named(answer, wanted: Tensors) -> dict:
    """A single output stands without its name."""
    return {next(iter(wanted)): answer} if len(wanted) == 1 else answer


def columns_of(rows: list, wanted: Tensors) -> dict:
    rows = [named(row, wanted) for row in rows]
    return {name: [row[name] for row in rows] for name in wanted}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_open_inference(server, expected, model, protocol):
    for rows in {1, MODELS[model].rows}:
        inputs = MODELS[model].ask(rows)
        with Client(server, protocol) as client:
            assert_same(client.infer(model, inputs).outputs, expected(model, inputs))


@pytest.mark.parametrize("model", MODELS)
def test_tensorflow_columns(server, expected, model):
    inputs = MODELS[model].ask(MODELS[model].rows)
    wanted = expected(model, inputs)
    answer = post(server, f"/v1/models/{model}:predict", {"inputs": plain(inputs)})
    assert_same(named(answer["outputs"], wanted), wanted)


@pytest.mark.parametrize("model", MODELS)
def test_tensorflow_grpc(server, expected, model):
    inputs = MODELS[model].ask(MODELS[model].rows)
    wanted = expected(model, inputs)
    # The client takes texts as numpy's own.
    sent = {name: value.astype(str) if value.dtype == object else value for name, value in inputs.items()}
    assert_same(tensorflow_client.predict(server, model, sent), wanted)


@pytest.mark.parametrize("model", MODELS)
def test_tensorflow_rows(server, expected, model):
    exported = MODELS[model]
    inputs = exported.ask(exported.rows)
    if not exported.by_row:
        body = {"instances": [plain(inputs)]}
        reply = request(server.http, "POST", f"/v1/models/{model}:predict", body)
        assert reply.status == 400
        assert "'inputs' in place of 'instances'" in reply.json["error"]
        return
    wanted = expected(model, inputs)
    answer = post(server, f"/v1/models/{model}:predict", {"instances": by_row(inputs, exported.rows)})
    assert_same(columns_of(answer["predictions"], wanted), wanted)


@pytest.mark.parametrize("model", MODELS)
def test_torchserve(server, expected, model):
    exported = MODELS[model]
    inputs = exported.ask(exported.rows)
    wanted = expected(model, inputs)
    if not exported.by_row:
        assert_same(named(post(server, f"/predictions/{model}", plain(inputs)), wanted), wanted)
        return
    answer = post(server, f"/predictions/{model}", by_row(inputs, exported.rows))
    assert_same(columns_of(answer, wanted), wanted)
    alone = exported.ask(1)
    wanted = expected(model, alone)
    answer = post(server, f"/predictions/{model}", by_row(alone, 1)[0])
    assert_same(columns_of([answer], wanted), wanted)


@pytest.mark.parametrize("model", MODELS)
def test_the_plain_route(server, expected, model):
    exported = MODELS[model]
    inputs = exported.ask(exported.rows)
    wanted = expected(model, inputs)
    body = {"instances": by_row(inputs, exported.rows)} if exported.by_row else {"features": plain(inputs)}
    answer = post(server, f"/predict/{model}", body)
    prediction = answer["prediction"]
    labels = [name for name, value in wanted.items() if value.dtype == np.int64 and value.ndim == 1]
    if labels:
        [label] = labels
        assert prediction == wanted[label].tolist()
        [scores] = [value for name, value in wanted.items() if name != label]
        np.testing.assert_allclose(answer["probability"], scores.max(axis=1), rtol=TOLERANCE, atol=TOLERANCE)
    elif exported.by_row:
        assert_same(columns_of(prediction, wanted), wanted)
    else:
        assert_same(prediction, wanted)


def test_a_sequence_is_described_as_numbered_outputs(server):
    with Client(server, "grpc") as client:
        outputs = client.triton.get_model_metadata("multi_output", as_json=True)["outputs"]
    assert [output["name"] for output in outputs] == ["label", "probabilities_0", "probabilities_1"]
