"""TensorFlow Serving's Classify, Regress, MultiInference and HandleReloadConfigRequest, through its published stubs.

The numbers must be those of the REST routes for the same examples, bit for bit.
"""

import shutil

import numpy as np
import pytest

import reference
import served
from clients import request
from test_dialects import ask_tensorflow

ROWS = 7


def examples(model: str) -> list[dict]:
    """The features of each row as flat lists of floats."""
    inputs = reference.rows(model, VERSIONS[model], ROWS, seed=47)
    return [{name: value[row].ravel().tolist() for name, value in inputs.items()} for row in range(ROWS)]


VERSIONS = {"breast_cancer": "1", "diabetes": "2", "digits": "1"}


@pytest.mark.parametrize("model", ["breast_cancer", "digits"])
def test_classes(server, model):
    rows = examples(model)
    [found] = ask_tensorflow(server, [{"method": "classify", "model": model, "examples": rows}])
    wanted = rest(server, f"/v1/models/{model}:classify", rows)
    assert len(found) == ROWS
    assert [[label for label, _ in row] for row in found] == [[label for label, _ in row] for row in wanted]
    assert_same([[score for _, score in row] for row in found], [[score for _, score in row] for row in wanted])


def test_values(server):
    rows = examples("diabetes")
    [found] = ask_tensorflow(server, [{"method": "regress", "model": "diabetes", "examples": rows}])
    assert_same(found, rest(server, "/v1/models/diabetes:regress", rows))


def test_several_tasks_of_one_run(server):
    rows = examples("digits")
    questions = [
        {"method": "multi", "tasks": [["digits", "classify"]] * 2, "examples": rows},
        {"method": "classify", "model": "digits", "examples": rows},
        {"method": "multi", "tasks": [["digits", "classify"], ["diabetes", "regress"]], "examples": rows},
    ]
    both, one, refused = ask_tensorflow(server, questions)
    assert both == [one, one]
    assert refused["error"][0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "question, code, word",
    [
        ({"method": "classify", "model": "diabetes", "examples": [{"measurements": [1.0] * 10}]}, "INVALID_ARGUMENT", "scores"),
        ({"method": "regress", "model": "digits", "examples": [{"image": [1.0] * 64}]}, "INVALID_ARGUMENT", "number"),
        ({"method": "regress", "model": "diabetes", "examples": [{"measurements": [1.0] * 9}]}, "INVALID_ARGUMENT", "10"),
        ({"method": "regress", "model": "diabetes", "examples": [{"other": [1.0]}]}, "INVALID_ARGUMENT", "measurements"),
        ({"method": "regress", "model": "diabetes", "examples": []}, "INVALID_ARGUMENT", "examples"),
        ({"method": "regress", "model": "nothing", "examples": [{"x": [1.0]}]}, "NOT_FOUND", "nothing"),
    ],
)
def test_refusals(server, question, code, word):
    [answer] = ask_tensorflow(server, [question])
    assert answer["error"][0] == code
    assert word in answer["error"][1]


def test_a_list_of_models_is_followed(tmp_path):
    shutil.copytree(served.REPOSITORY, tmp_path / "models")
    with served.serve("tract", repository=tmp_path / "models") as server:
        def order(*models: dict):
            [answer] = ask_tensorflow(server, [{"method": "reload", "models": list(models)}])
            return answer

        base_path = str(tmp_path / "models" / "diabetes")
        assert order({"name": "diabetes", "base_path": base_path, "labels": {"canary": 1}}) == 0
        assert names(server) == ["diabetes"]
        status = request(server.http, "GET", "/v1/models/diabetes/labels/canary").json["model_version_status"]
        assert [version["version"] for version in status] == ["1"]

        # What cannot be followed leaves what serves as it is.
        for model, code in [
            ({"name": "nothing"}, "NOT_FOUND"),
            ({"name": "digits", "latest": 2}, "INVALID_ARGUMENT"),
            ({"name": "digits", "base_path": "/models/other"}, "INVALID_ARGUMENT"),
            ({"name": "digits", "labels": {"canary": 0}}, "INVALID_ARGUMENT"),
        ]:
            assert order(model)["error"][0] == code, model
            assert names(server) == ["diabetes"]

        assert order({"name": "diabetes"}, {"name": "digits"}, {"name": "breast_cancer"}) == 0
        assert names(server) == ["breast_cancer", "diabetes", "digits"]


def test_a_server_that_takes_no_orders(tmp_path):
    with served.serve("tract", "--model-control", "none") as server:
        [answer] = ask_tensorflow(server, [{"method": "reload", "models": [{"name": "diabetes"}]}])
        assert answer["error"][0] == "INVALID_ARGUMENT"
        assert names(server) == ["breast_cancer", "diabetes", "digits"]


def names(server) -> list[str]:
    return request(server.http, "GET", "/v1/models").json["models"]


def rest(server, path: str, rows: list[dict]) -> list:
    reply = request(server.http, "POST", path, {"examples": rows})
    assert reply.status == 200, reply.body
    return reply.json["results"]


def assert_same(found, wanted) -> None:
    """JSON has the shortest text that reads back as the same FP32."""
    np.testing.assert_array_equal(np.array(found, dtype=np.float32), np.array(wanted, dtype=np.float32))
