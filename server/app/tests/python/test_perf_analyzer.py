"""Triton's perf_analyzer against a running server: it asks for hundreds of predictions and compares each with Python's.

It is fetched by `loadtest/recipes/perf_analyzer.sh`, like by anybody who loads a server with it. What it measures is of
no interest here.
"""

import json
import platform
import re
import subprocess

import numpy as np
import pytest

import reference
import served

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="perf_analyzer is a program for Linux on x86-64"
)
RECIPE = served.ROOT / "loadtest" / "recipes" / "perf_analyzer.sh"
SECONDS_MAX = 300


@pytest.fixture(scope="module")
def server():
    """ONNX Runtime, as in the reference: perf_analyzer compares bytes."""
    with served.serve("onnxruntime", "--allow-system-shared-memory") as running:
        yield running


@pytest.fixture
def questions(tmp_path):
    """Writes a file of inputs, one by one, and unless told otherwise of what is to be answered."""

    def write(model: str, version: str, validate: bool = True, by: float = 0) -> str:
        inputs = reference.rows(model, version, 4, seed=71)
        rows = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(4)]
        document = {"data": [{name: tensor(value[0]) for name, value in row.items()} for row in rows]}
        if validate:
            answers = [reference.expected(model, version, row) for row in rows]
            document["validation_data"] = [
                {name: tensor(value[0] + np.asarray(by, value.dtype)) for name, value in answer.items()} for answer in answers
            ]
        path = tmp_path / "questions.json"
        path.write_text(json.dumps(document))
        return str(path)

    return write


def tensor(value: np.ndarray) -> dict:
    return {"content": value.ravel().tolist(), "shape": list(value.shape)}


def analyze(server, protocol: str, *flags: str) -> tuple[int, str]:
    """The exit code, and all that was written."""
    address = server.grpc if protocol == "grpc" else server.http
    command = [RECIPE, protocol, address, "--measurement-interval", "200", "--stability-percentage", "999", *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX)
    return done.returncode, done.stdout


def assert_measured(outcome: tuple[int, str]) -> None:
    """It ended well and the server's own statistics, which it reads, have as many requests as it sent."""
    code, text = outcome
    assert code == 0, text
    found = re.search(r"Successful request count: (\d+)", text)
    assert found and int(found[1]) > 0, text


@pytest.mark.parametrize("model, version", [("digits", "1"), ("diabetes", "2")])
@pytest.mark.parametrize(
    "protocol, flags",
    [
        ("grpc", ["--concurrency-range", "3"]),
        ("grpc", ["--concurrency-range", "3", "--streaming", "--async"]),
        ("grpc", ["--request-rate-range", "300"]),
        ("http", ["--concurrency-range", "3"]),
        ("http", ["--concurrency-range", "3", "--async"]),
    ],
)
def test_answers(server, questions, model, version, protocol, flags):
    assert_measured(analyze(server, protocol, "-m", model, "--input-data", questions(model, version), *flags))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_wrong_answer_would_be_found(server, questions, protocol):
    code, text = analyze(server, protocol, "-m", "diabetes", "--input-data", questions("diabetes", "2", by=1))
    assert code != 0 and "Output doesn't match expected output" in text, text


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_batches_and_shared_memory(server, questions, protocol):
    memory = ["--shared-memory", "system", "--output-shared-memory-size", "1024"]
    inputs = questions("digits", "1", validate=False)
    for flags in [["-b", "8"], memory, ["-b", "8", *memory]]:
        assert_measured(analyze(server, protocol, "-m", "digits", "--input-data", inputs, *flags))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_that_is_not_there(server, protocol):
    code, text = analyze(server, protocol, "-m", "nothing")
    assert code != 0 and "'nothing' is not in the repository" in text, text
