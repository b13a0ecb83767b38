"""The plain `/predict` route, for those who come from a hand-written service.

Of a classifier the prediction is the label and the probability is that of this label.
"""

import numpy as np
import pytest

import reference
from clients import request


def features(model: str, version: str, count: int) -> tuple[list, reference.Tensors]:
    """Rows as lists with the inputs side by side, and the right answer."""
    inputs = reference.rows(model, version, count, seed=11)
    if len(inputs) == 1:
        [rows] = inputs.values()
    else:
        rows = np.concatenate(list(inputs.values()), axis=1)
    return rows.tolist(), reference.expected(model, version, inputs)


@pytest.mark.parametrize("key", ["features", "instances"])
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_many_rows(server, model, version, key):
    rows, wanted = features(model, version, 5)
    reply = request(server.http, "POST", f"/predict/{model}/{version}", {key: rows})
    assert reply.status == 200, reply.body
    answer = reply.json
    assert (answer["model"], str(answer["model_version"])) == (model, version)
    assert answer["latency_ms"] > 0
    prediction, *probabilities = wanted.values()
    compare(answer["prediction"], prediction)
    if probabilities:
        compare(answer["probability"], probabilities[0].max(axis=1))
    else:
        assert answer["probability"] is None


@pytest.mark.parametrize("model, version", reference.MODELS)
def test_one_row(server, model, version):
    rows, wanted = features(model, version, 1)
    reply = request(server.http, "POST", f"/predict/{model}/{version}", {"features": rows[0]})
    assert reply.status == 200, reply.body
    prediction, *probabilities = wanted.values()
    compare(reply.json["prediction"], prediction[0])
    if probabilities:
        compare(reply.json["probability"], probabilities[0][0].max())


def test_one_row_of_named_features(server):
    inputs = reference.rows("breast_cancer", "1", 1, seed=12)
    named = {name: float(value[0, 0]) for name, value in inputs.items()}
    reply = request(server.http, "POST", "/predict/breast_cancer", {"features": named})
    assert reply.status == 200, reply.body
    wanted = reference.expected("breast_cancer", "1", inputs)
    compare(reply.json["prediction"], wanted["output_label"][0])
    compare(reply.json["probability"], wanted["output_probability"].max())


def test_no_version_means_the_newest(server):
    rows, wanted = features("diabetes", "2", 2)
    reply = request(server.http, "POST", "/predict/diabetes", {"features": rows})
    assert str(reply.json["model_version"]) == "2"
    compare(reply.json["prediction"], wanted["progression"])


def compare(actual, wanted: np.ndarray) -> None:
    wanted = reference.plain(np.asarray(wanted))
    actual = np.array(actual).reshape(wanted.shape)
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
    "body, named",
    [
        ({}, ["features", "instances"]),
        ({"features": [1, 2, 3]}, ["10", "3"]),
        ({"features": []}, []),
        ({"features": "text"}, ["features"]),
        ({"features": [1, 2, 3, 4, 5, 6, 7, 8, 9, "ten"]}, ["ten"]),
    ],
)
def test_faults(server, body, named):
    reply = request(server.http, "POST", "/predict/diabetes", body)
    assert reply.status == 400, reply.body
    for word in named:
        assert word in reply.json["error"]
