"""TensorFlow Serving's gRPC beside Predict, through its published stubs.

The numbers must be those of the REST routes for the same examples, bit for bit.
"""

import shutil

import grpc
import numpy as np
import pytest
from google.protobuf import json_format

import reference
import served
import tensorflow_client
from clients import request

ROWS = 7
VERSIONS = {"breast_cancer": "1", "diabetes": "2", "digits": "1"}


@pytest.fixture
def client(server):
    with tensorflow_client.connect(server) as connected:
        yield connected


def examples(model: str) -> tensorflow_client.Examples:
    """The features of each row as flat lists of floats."""
    inputs = reference.rows(model, VERSIONS[model], ROWS, seed=47)
    return [{name: value[row].ravel().tolist() for name, value in inputs.items()} for row in range(ROWS)]


@pytest.mark.parametrize("model", ["breast_cancer", "digits"])
def test_classes(server, client, model):
    rows = examples(model)
    found = client.classify(model, rows)
    wanted = rest(server, f"/v1/models/{model}:classify", rows)
    assert len(found) == ROWS
    assert [[label for label, _ in row] for row in found] == [[label for label, _ in row] for row in wanted]
    assert_same([[score for _, score in row] for row in found], [[score for _, score in row] for row in wanted])


def test_values(server, client):
    rows = examples("diabetes")
    assert_same(client.regress("diabetes", rows), rest(server, "/v1/models/diabetes:regress", rows))


def test_several_tasks_of_one_run(client):
    rows = examples("digits")
    one = client.classify("digits", rows)
    assert client.multi_inference([("digits", "classify")] * 2, rows) == [one, one]
    with pytest.raises(grpc.RpcError) as error:
        client.multi_inference([("digits", "classify"), ("diabetes", "regress")], rows)
    assert error.value.code().name == "INVALID_ARGUMENT"


def test_outputs_are_chosen(client):
    inputs = reference.rows("digits", "1", ROWS, seed=48)
    whole = client.predict_raw("digits", inputs)
    chosen = client.predict_raw("digits", inputs, None, "probabilities")
    assert whole.keys() == {"digit", "probabilities"} and chosen.keys() == {"probabilities"}
    np.testing.assert_array_equal(chosen["probabilities"], whole["probabilities"], strict=True)


@pytest.mark.parametrize("model", VERSIONS)
def test_signatures_and_states_are_those_of_rest(server, client, model):
    found = json_format.MessageToDict(client.signatures(model), preserving_proto_field_name=True)
    wanted = request(server.http, "GET", f"/v1/models/{model}/metadata").json["metadata"]["signature_def"]["signature_def"]
    # Fields with their defaults are told by REST and left out by protobuf's own JSON.
    filled = json_format.ParseDict({"signature_def": wanted}, type(client.signatures(model))())
    assert found == json_format.MessageToDict(filled, preserving_proto_field_name=True)
    assert found["signature_def"]["serving_default"]["method_name"] == "tensorflow/serving/predict"

    states = {(version.version, version.state) for version in client.status(model).model_version_status}
    rows = request(server.http, "GET", f"/v1/models/{model}").json["model_version_status"]
    AVAILABLE = 30
    assert {row["state"] for row in rows} == {"AVAILABLE"}
    assert states == {(int(row["version"]), AVAILABLE) for row in rows}
    with pytest.raises(grpc.RpcError) as error:
        client.status("nothing")
    assert error.value.code().name == "NOT_FOUND"


@pytest.mark.parametrize(
    "method, model, rows, code, word",
    [
        ("classify", "diabetes", [{"measurements": [1.0] * 10}], "INVALID_ARGUMENT", "scores"),
        ("regress", "digits", [{"image": [1.0] * 64}], "INVALID_ARGUMENT", "number"),
        ("regress", "diabetes", [{"measurements": [1.0] * 9}], "INVALID_ARGUMENT", "10"),
        ("regress", "diabetes", [{"other": [1.0]}], "INVALID_ARGUMENT", "measurements"),
        ("regress", "diabetes", [], "INVALID_ARGUMENT", "examples"),
        ("regress", "nothing", [{"x": [1.0]}], "NOT_FOUND", "nothing"),
    ],
)
def test_refusals(client, method, model, rows, code, word):
    with pytest.raises(grpc.RpcError) as error:
        getattr(client, method)(model, rows)
    assert error.value.code().name == code
    assert word in error.value.details()


def test_a_list_of_models_is_followed(tmp_path):
    shutil.copytree(served.REPOSITORY, tmp_path / "models")
    with served.serve("tract", repository=tmp_path / "models") as server, tensorflow_client.connect(server) as client:
        base_path = str(tmp_path / "models" / "diabetes")
        assert client.reload({"name": "diabetes", "base_path": base_path, "labels": {"canary": 1}}) == 0
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
            with pytest.raises(grpc.RpcError) as error:
                client.reload(model)
            assert error.value.code().name == code, model
            assert names(server) == ["diabetes"]

        assert client.reload({"name": "diabetes"}, {"name": "digits"}, {"name": "breast_cancer"}) == 0
        assert names(server) == ["breast_cancer", "diabetes", "digits"]


def test_a_server_that_takes_no_orders():
    with served.serve("tract", "--model-control", "none") as server, tensorflow_client.connect(server) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.reload({"name": "diabetes"})
        assert error.value.code().name == "INVALID_ARGUMENT"
        assert names(server) == ["breast_cancer", "diabetes", "digits"]


def names(server) -> list[str]:
    return request(server.http, "GET", "/v1/models").json["models"]


def rest(server, path: str, rows: tensorflow_client.Examples) -> list:
    reply = request(server.http, "POST", path, {"examples": rows})
    assert reply.status == 200, reply.body
    return reply.json["results"]


def assert_same(found, wanted) -> None:
    """JSON has the shortest text that reads back as the same FP32."""
    np.testing.assert_array_equal(np.array(found, dtype=np.float32), np.array(wanted, dtype=np.float32))
