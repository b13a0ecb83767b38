"""What models may look like beyond the examples: every datatype, free shapes, optional inputs, no batch axis, bad values."""

import concurrent.futures
import shutil
import threading

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import reference
import served
from clients import PROTOCOLS, Client

FIXTURES = served.ROOT / "server" / "onnx" / "tests" / "fixtures"
MODELS = [path.stem for path in sorted(FIXTURES.glob("identity_*.onnx"))]
MODELS += ["external_data", "fixed_batch", "gather_rows", "image_and_tokens", "overridable_default_fixed", "scalar_input"]

# Values at the ends of each type.
EXTREMES = {
    "bool": np.array([[True, False, True]]),
    "bf16": np.array([[-2.0**127, 2.0**-133, 0.1]], dtype=ml_dtypes.bfloat16),
    "fp16": np.array([[-65504, 2**-24, 0.1]], dtype=np.float16),
    "fp32": np.array([[-3.4e38, 1e-45, 0.1]], dtype=np.float32),
    "fp64": np.array([[-1.7e308, 5e-324, 0.1]], dtype=np.float64),
    "bytes": np.array([["", "müller\n", 'a "quoted" \\ text']], dtype=object),
}
for bits in (8, 16, 32, 64):
    for name in (f"int{bits}", f"uint{bits}"):
        limits = np.iinfo(name)
        EXTREMES[name] = np.array([[limits.min, limits.max, 1]], dtype=name)
# The protocol has no form for 16-bit floats in JSON.
NOT_IN_JSON = {("fp16", "json"), ("bf16", "json")}


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def fixtures(request, tmp_path_factory):
    """A server of the fixtures that its backend can run."""
    repository = tmp_path_factory.mktemp("repository")
    for model in MODELS:
        if request.param == "tract" and model == "identity_bf16":
            continue
        version = repository / model / "1"
        version.mkdir(parents=True)
        shutil.copy(FIXTURES / f"{model}.onnx", version / "model.onnx")
    shutil.copy(FIXTURES / "external_data.bin", repository / "external_data" / "1")
    with served.serve(request.param, repository=repository) as running:
        yield running


def expected(model: str, inputs: reference.Tensors) -> reference.Tensors:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(FIXTURES / f"{model}.onnx", options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


DATATYPES = [(name, protocol) for name in EXTREMES for protocol in PROTOCOLS if (name, protocol) not in NOT_IN_JSON]


@pytest.mark.parametrize("datatype, protocol", DATATYPES)
def test_every_datatype(fixtures, datatype, protocol):
    if (fixtures.backend, datatype) == ("tract", "bf16"):
        pytest.skip("tract has no BF16")
    value = EXTREMES[datatype]
    with Client(fixtures, protocol) as client:
        answer = client.infer(f"identity_{datatype}", {"x": value})
    actual = answer.outputs["y"]
    assert actual.shape == value.shape
    if datatype == "bytes":
        assert reference.plain(actual).tolist() == value.tolist()
    else:
        assert actual.dtype == value.dtype
        assert actual.tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "datatype, field",
    [
        ("bool", "bool_contents"),
        ("int8", "int_contents"),
        ("int16", "int_contents"),
        ("int32", "int_contents"),
        ("int64", "int64_contents"),
        ("uint8", "uint_contents"),
        ("uint16", "uint_contents"),
        ("uint32", "uint_contents"),
        ("uint64", "uint64_contents"),
        ("fp32", "fp32_contents"),
        ("fp64", "fp64_contents"),
        ("bytes", "bytes_contents"),
    ],
)
def test_typed_contents_of_every_datatype(fixtures, datatype, field):
    values = EXTREMES[datatype].ravel().tolist()
    if datatype == "bytes":
        values = [value.encode() for value in values]
    message = service_pb2.ModelInferRequest(model_name=f"identity_{datatype}")
    given = message.inputs.add(name="x", datatype=datatype.upper(), shape=[1, 3])
    getattr(given.contents, field).extend(values)
    with Client(fixtures, "grpc") as client:
        response = client.triton._client_stub.ModelInfer(message)
    [output] = response.outputs
    wanted = service_pb2.InferTensorContents()
    getattr(wanted, field).extend(values)
    assert output.contents == wanted


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_requests_of_different_shapes_in_flight_together(fixtures, protocol):
    everyone = threading.Barrier(16)

    def ask(thread: int) -> None:
        generator = np.random.default_rng(thread)
        with Client(fixtures, protocol) as client:
            everyone.wait()
            for _ in range(8):
                rows, height, width, length = generator.integers(1, 6, 4)
                inputs = {
                    "image": generator.standard_normal((rows, 3, height, width), dtype=np.float32),
                    "tokens": generator.integers(0, 100, (rows, length)),
                }
                answer = client.infer("image_and_tokens", inputs)
                reference.assert_same(answer.outputs, expected("image_and_tokens", inputs))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(ask, thread) for thread in range(16)]:
            done.result()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_weights_beside_the_model(fixtures, protocol):
    inputs = {"x": np.random.default_rng(1).standard_normal((5, 64), dtype=np.float32)}
    with Client(fixtures, protocol) as client:
        answer = client.infer("external_data", inputs)
    reference.assert_same(answer.outputs, expected("external_data", inputs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_scalar_input(fixtures, protocol):
    inputs = {"x": np.ones((2, 2), dtype=np.float32), "factor": np.array(2.5, dtype=np.float32)}
    with Client(fixtures, protocol) as client:
        answer = client.infer("scalar_input", inputs)
    reference.assert_same(answer.outputs, expected("scalar_input", inputs))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_of_one_row_runs_side_by_side(fixtures, protocol):
    def ask(number: int) -> None:
        inputs = {"x": np.full((1, 3), number, dtype=np.float32)}
        with Client(fixtures, protocol) as client:
            answer = client.infer("fixed_batch", inputs)
        reference.assert_same(answer.outputs, expected("fixed_batch", inputs))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(64)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_input_with_a_default_may_be_left_out(fixtures, protocol):
    x = np.ones((1, 2), dtype=np.float32)
    with Client(fixtures, protocol) as client:
        without = client.infer("overridable_default_fixed", {"x": x})
    assert without.outputs["y"].tolist() == [[2, 3]]
    if fixtures.backend == "tract":
        return
    bias = np.array([10, 20], dtype=np.float32)
    with Client(fixtures, protocol) as client:
        given = client.infer("overridable_default_fixed", {"x": x, "bias": bias})
    assert given.outputs["y"].tolist() == [[11, 21]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_value_that_the_model_cannot_take_fails_its_own_request_alone(fixtures, protocol):
    """The index is out of range for every eighth client; batches hold both kinds.

    tract cannot say whose fault it was, so it is the server's there.
    """
    blamed = {"onnxruntime": ("StatusCode.INVALID_ARGUMENT", "400"), "tract": ("StatusCode.INTERNAL", "500")}
    code = blamed[fixtures.backend][protocol != "grpc"]
    everyone = threading.Barrier(32)

    def ask(thread: int) -> None:
        with Client(fixtures, protocol) as client:
            everyone.wait()
            for turn in range(10):
                if thread % 8 == 0:
                    with pytest.raises(InferenceServerException) as error:
                        client.infer("gather_rows", {"index": np.array([[1_000_000 + thread]])})
                    assert error.value.status() == code
                else:
                    inputs = {"index": np.array([[(thread + turn) % 3]])}
                    answer = client.infer("gather_rows", inputs)
                    reference.assert_same(answer.outputs, expected("gather_rows", inputs))

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for done in [pool.submit(ask, thread) for thread in range(32)]:
            done.result()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_passed_deadline_is_said_to_be_one(fixtures, protocol):
    inputs = {"x": np.ones((1, 3), dtype=np.float32)}
    with Client(fixtures, protocol) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("identity_fp32", inputs, timeout=1)
    assert error.value.status() == ("StatusCode.DEADLINE_EXCEEDED" if protocol == "grpc" else "504")
    assert "deadline" in error.value.message()
