"""ONNX's backend suite through the server: each answer is the suite's, whatever ran before it and beside it."""

import concurrent.futures
import json
import math
import pathlib
import random
import re
import shutil
import urllib.request

import grpc
import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import onnx_suite
import served
from onnx_suite import ADDED_TYPES, DATATYPES, Case

SECONDS_MAX = 60
READY_SECONDS_MAX = 300
THREADS = 8
# Cases whose requests are in flight together, so that each meets others of its own model and of others.
INTERLEAVED = 24
# What is not counted: for each runtime, and for both, the cases by reason. What tract refuses is not listed.
UNCOUNTED = json.loads(pathlib.Path(__file__).with_name("onnx_suite_uncounted.json").read_text())
# Reasons that can be checked.
FAILS_IN_PYTHON = "Python's ONNX Runtime fails or gives something else"
NO_DATATYPE = "the Open Inference Protocol has no datatype for an input or output"
# What tract serves right of the suite: it refuses the others by the names of operators or types.
SERVED_BY_TRACT = 1083
NUMPY_TYPES = {DATATYPES[onnx_type]: numpy for numpy, onnx_type in ADDED_TYPES.items()}
NUMPY_TYPES |= {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_}
NUMPY_TYPES |= {f"{sign}INT{bits}": f"{sign}int{bits}".lower() for sign in ("", "U") for bits in (8, 16, 32, 64)}
TYPE_NAMES = {np.dtype(numpy): name for name, numpy in NUMPY_TYPES.items()} | {np.dtype(object): "BYTES"}
# Two elements share a byte.
HALF_BYTES = {np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4), np.dtype(ml_dtypes.float4_e2m1fn)}
# Fail what looks up or counts, and poison what is kept.
HOSTILE = {"f": np.nan, "V": np.nan, "i": -77, "b": True, "u": 255, "O": b"\xff"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model of each case."""
    directory = tmp_path_factory.mktemp("suite")
    for case in onnx_suite.cases():
        version = directory / case.name / "1"
        version.mkdir(parents=True)
        shutil.copy(case.path, version / "model.onnx")
    return directory


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def suite(request, repository):
    # The files are whole when the server starts, however new they are.
    flags = ["--settle-time", "1ms"]
    with served.serve(request.param, *flags, repository=repository, ready_seconds_max=READY_SECONDS_MAX) as server:
        yield Suite(server)


class Suite:
    """A server of every case, and what it says of those that it does not serve."""

    def __init__(self, server: served.Server):
        self.backend = server.backend
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.grpc))
        index = urllib.request.Request(f"http://{server.http}/v2/repository/index", data=b"{}", method="POST")
        with urllib.request.urlopen(index) as reply:
            entries = json.load(reply)
        self.refused = {entry["name"]: entry.get("reason", "") for entry in entries if entry["state"] != "READY"}
        by_reason = [*UNCOUNTED["both"].items(), *UNCOUNTED[self.backend].items()]
        self.uncounted = {name: reason for reason, names in by_reason for name in names}
        counted = [case for case in onnx_suite.cases() if case.name not in self.uncounted]
        # tract need not have every operator.
        self.counted = [case for case in counted if self.backend != "tract" or case.name not in self.refused]

    def faults(self, before=lambda case: None) -> dict[str, str]:
        """Of all that is counted: what is wrong with the answer after what `before` does."""

        def fault(case: Case) -> str | None:
            before(case)
            return self.fault(case)

        with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
            faults = threads.map(fault, self.counted)
            return {case.name: text for case, text in zip(self.counted, faults, strict=True) if text}

    def fault(self, case: Case) -> str | None:
        """How the answer to the case's own request differs from the suite's."""
        if case.name in self.refused:
            return f"refused: {self.refused[case.name]}"
        try:
            return case.fault(self.ask(case, case.inputs))
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"

    def ask(self, case: Case, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs that the server answers with."""
        return outputs(self.stub.ModelInfer(message(case, inputs), timeout=SECONDS_MAX))

    def disturb(self, case: Case, inputs: dict[str, np.ndarray]) -> None:
        """A request whose answer nobody looks at."""
        try:
            self.ask(case, inputs)
        except grpc.RpcError:
            pass

    def abandon(self, case: Case) -> None:
        """Requests that are given up while they wait or run."""
        self.stub.ModelInfer.future(message(case, case.inputs), timeout=SECONDS_MAX).cancel()
        try:
            self.stub.ModelInfer(message(case, case.inputs), timeout=0.001)
        except grpc.RpcError:
            pass


def test_each_answer_is_the_suites(suite):
    assert suite.faults() == {}


def test_again(suite):
    assert suite.faults() == {}


def test_after_a_run_of_another_shape(suite):
    assert suite.faults(lambda case: suite.disturb(case, other_shape(case))) == {}


def test_after_other_values(suite):
    assert suite.faults(lambda case: suite.disturb(case, other_values(case))) == {}


def test_after_a_failed_run(suite):
    assert suite.faults(lambda case: suite.disturb(case, hostile(case))) == {}


def test_after_a_stopped_run(suite):
    assert suite.faults(suite.abandon) == {}


def test_interleaved(suite):
    """The suite's requests among others, to the same models and to others, from several threads."""
    order = random.Random(15)
    cases = order.sample(suite.counted, len(suite.counted))
    faults = {}

    def ask(case: Case) -> None:
        if text := suite.fault(case):
            faults[case.name] = text

    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(cases), INTERLEAVED):
            calls = []
            for case in cases[start : start + INTERLEAVED]:
                calls += [(ask, case)] * 3
                calls += [(suite.disturb, case, inputs(case)) for inputs in (other_shape, other_values, hostile)]
                calls += [(suite.abandon, case)]
            order.shuffle(calls)
            for call in [threads.submit(*call) for call in calls]:
                call.result()
    assert faults == {}


def test_what_is_refused_is_refused_by_name(suite):
    """ONNX Runtime refuses nothing that is counted, tract by an operator of the model or by a type that it lacks."""
    cases = [case for case in onnx_suite.cases() if case.name not in suite.uncounted]
    refused = {case.name: suite.refused[case.name] for case in cases if case.name in suite.refused}
    if suite.backend == "onnxruntime":
        assert refused == {}
        return
    assert {case.name: refused[case.name] for case in cases if not is_plain(refused.get(case.name), case)} == {}
    assert len(suite.counted) == SERVED_BY_TRACT


def test_what_is_not_counted_cannot_be(suite):
    assert set(suite.uncounted) <= {case.name for case in onnx_suite.cases()}
    wrong = {}
    for case in onnx_suite.cases():
        lacking = case.types - set(DATATYPES.values())
        reason = suite.uncounted.get(case.name)
        if (reason == NO_DATATYPE) != bool(lacking):
            wrong[case.name] = f"its types are {sorted(case.types)}"
        elif reason == FAILS_IN_PYTHON and not case.fault_in_python:
            wrong[case.name] = "Python's ONNX Runtime gives the suite's outputs"
        elif reason and not lacking and not suite.fault(case):
            wrong[case.name] = "the answer is right"
    assert wrong == {}


def is_plain(text: str | None, case: Case) -> bool:
    if text is None:
        return True
    operators = re.search(r"tract cannot run operators? ((?:\w+, )*\w+)", text)
    of_the_model = operators and set(operators[1].split(", ")) <= case.operators
    return bool(of_the_model or re.search(r"tensor '.+' is \w+, which tract lacks", text))


def other_shape(case: Case) -> dict[str, np.ndarray]:
    """Twice the elements along the first axis of each input, which fails where the model wants its own."""
    return {name: np.concatenate([value, value]) if value.ndim else value for name, value in case.inputs.items()}


def other_values(case: Case) -> dict[str, np.ndarray]:
    """The same elements in another order."""
    return {name: value.ravel()[::-1].reshape(value.shape) for name, value in case.inputs.items()}


def hostile(case: Case) -> dict[str, np.ndarray]:
    # These have neither NaN nor a sign.
    def worst(value: np.ndarray):
        return 7 if value.dtype in HALF_BYTES else HOSTILE[value.dtype.kind]

    return {name: np.full_like(value, worst(value)) for name, value in case.inputs.items()}


def message(case: Case, inputs: dict[str, np.ndarray]) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=case.name)
    for name, value in inputs.items():
        request.inputs.add(name=name, datatype=TYPE_NAMES[value.dtype], shape=value.shape)
        request.raw_input_contents.append(raw(value))
    return request


def raw(value: np.ndarray) -> bytes:
    if value.dtype in HALF_BYTES:
        halves = value.ravel().view(np.uint8) & 0x0F
        halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
        return (halves[::2] | halves[1::2] << 4).tobytes()
    if value.dtype != object:
        return np.ascontiguousarray(value).tobytes()
    elements = [element if isinstance(element, bytes) else str(element).encode() for element in value.ravel()]
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def outputs(response: service_pb2.ModelInferResponse) -> dict[str, np.ndarray]:
    return {
        output.name: array(output, contents)
        for output, contents in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def array(output, contents: bytes) -> np.ndarray:
    if output.datatype != "BYTES":
        numpy = np.dtype(NUMPY_TYPES[output.datatype])
        if numpy in HALF_BYTES:
            pairs = np.frombuffer(contents, np.uint8)
            halves = np.stack([pairs & 0x0F, pairs >> 4], axis=-1).ravel()[: math.prod(output.shape)]
            return halves.astype(numpy).reshape(output.shape)
        return np.frombuffer(contents, numpy).reshape(output.shape)
    elements, at = [], 0
    while at < len(contents):
        end = at + 4 + int.from_bytes(contents[at : at + 4], "little")
        elements.append(contents[at + 4 : end])
        at = end
    return np.array(elements, object).reshape(output.shape)
