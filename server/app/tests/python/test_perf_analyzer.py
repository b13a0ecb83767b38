"""Triton's perf_analyzer against a running server: it asks for hundreds of predictions and compares each with Python's.

It is fetched by `loadtest/recipes/perf_analyzer.sh`, like by anybody who loads a server with it. What it measures is of
no interest here.
"""

import json
import platform
import re
import shutil
import subprocess

import numpy as np
import pytest

import reference
import served

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="perf_analyzer is a program for Linux on x86-64"
)
RECIPE = served.ROOT / "loadtest" / "recipes" / "perf_analyzer.sh"
# Of requests rather than of time, and the spread of latencies does not matter.
WINDOWS = ["--measurement-mode", "count_windows", "--measurement-request-count", "100", "--stability-percentage", "999"]
SECONDS_MAX = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """ONNX Runtime and rows that run alone, as in the reference: perf_analyzer compares bytes."""
    repository = tmp_path_factory.mktemp("repository") / "models"
    shutil.copytree(served.REPOSITORY, repository)
    for model in ["breast_cancer", "diabetes", "digits"]:
        (repository / model / "model.toml").write_text("batching = { rows_max = 1 }\n")
    with served.serve("onnxruntime", "--allow-system-shared-memory", repository=repository) as running:
        yield running


@pytest.fixture
def questions(tmp_path):
    """Writes a file of inputs, one by one, and unless told otherwise of what is to be answered."""

    def write(model: str, version: str, validate: bool = True, wrong_by: int = 0) -> str:
        inputs = reference.rows(model, version, 4, seed=71)
        rows = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(4)]
        document = {"data": [{name: tensor(value[0]) for name, value in row.items()} for row in rows]}
        if validate:
            answers = [reference.expected(model, version, row) for row in rows]
            wanted = [{name: reference.plain(value)[0] for name, value in answer.items()} for answer in answers]
            document["validation_data"] = [
                {name: tensor(value + wrong_by if wrong_by else value) for name, value in row.items()} for row in wanted
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
    command = [RECIPE, protocol, address, *WINDOWS, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX)
    return done.returncode, done.stdout


def assert_measured(outcome: tuple[int, str]) -> None:
    """It ended well and the server's own statistics, which it reads, have as many requests as it sent."""
    code, text = outcome
    assert code == 0, text
    found = re.search(r"Successful request count: (\d+)", text)
    assert found and int(found[1]) > 0, text


@pytest.mark.parametrize("model, version", [("digits", "1"), ("diabetes", "2"), ("breast_cancer", "1")])
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
    code, text = analyze(server, protocol, "-m", "diabetes", "--input-data", questions("diabetes", "2", wrong_by=1))
    assert code != 0 and "Output doesn't match expected output" in text, text


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_batches_and_shared_memory(server, questions, protocol):
    memory = ["--shared-memory", "system", "--output-shared-memory-size", "1024"]
    inputs = questions("digits", "1", validate=False)
    for flags in [["-b", "8"], memory, ["-b", "8", *memory]]:
        load = ["--concurrency-range", "3", "--input-data", inputs, *flags]
        assert_measured(analyze(server, protocol, "-m", "digits", *load))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_that_is_not_there(server, protocol):
    code, text = analyze(server, protocol, "-m", "nothing")
    assert code != 0 and "'nothing' is not in the repository" in text, text
