"""MLflow's own clients and AWS's against the scoring routes, and the probes of those who start containers."""

import json
import sys
import types

# MLflow's client asks whether scipy has sparse matrices, and fails where there is no scipy: an empty one will do.
sys.modules["scipy"] = types.ModuleType("scipy")
sys.modules["scipy"].__path__ = []

import boto3
import mlflow.deployments
import numpy as np
import pandas
import pytest
from botocore.exceptions import ClientError
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

import reference
import served
from clients import request


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def cancer(request):
    """A server whose default model takes 30 named columns."""
    with served.serve(request.param, "--default-model", "breast_cancer") as running:
        yield running


@pytest.fixture(scope="module")
def digits():
    with served.serve("tract", GRISTMILL_DEFAULT_MODEL="digits") as running:
        yield running


def scoring_client(server) -> ScoringServerClient:
    host, port = server.http.rsplit(":", 1)
    return ScoringServerClient(host, int(port))


def test_probes(cancer):
    client = scoring_client(cancer)
    client.ping()
    client.wait_server_ready(timeout=5)
    assert client.get_version() == request(cancer.http, "GET", "/v2").json["version"]
    assert request(cancer.http, "GET", "/health").status == 200


def test_a_frame(cancer):
    inputs = reference.rows("breast_cancer", "1", 9, seed=41)
    columns = {name: value[:, 0] for name, value in inputs.items()}
    shuffled = pandas.DataFrame({"patient": range(9), **dict(reversed(columns.items()))})
    records = scoring_client(cancer).invoke(shuffled, params={"threshold": 0.5})["predictions"]
    wanted = reference.expected("breast_cancer", "1", inputs)
    assert [record["output_label"] for record in records] == reference.plain(wanted["output_label"]).tolist()
    scores = np.array([record["output_probability"] for record in records], dtype=np.float32)
    np.testing.assert_allclose(scores, wanted["output_probability"], rtol=1e-5, atol=1e-5)
    # The answer is what MLflow makes a frame of.
    frame = scoring_client(cancer).invoke(shuffled).get_predictions()
    assert list(frame.columns) == ["output_label", "output_probability"]


def test_missing_values(cancer):
    """pandas' NaN reaches the model as one: a forest sends it the same way as ONNX Runtime in Python does."""
    inputs = reference.rows("breast_cancer", "1", 4, seed=42)
    inputs["mean_area"] = np.full_like(inputs["mean_area"], np.nan)
    frame = pandas.DataFrame({name: value[:, 0] for name, value in inputs.items()})
    records = scoring_client(cancer).invoke(frame)["predictions"]
    wanted = reference.expected("breast_cancer", "1", inputs)
    scores = np.array([record["output_probability"] for record in records], dtype=np.float32)
    np.testing.assert_allclose(scores, wanted["output_probability"], rtol=1e-5, atol=1e-5)


def test_an_array(digits):
    inputs = reference.rows("digits", "1", 5, seed=43)
    [images] = inputs.values()
    predictions = scoring_client(digits).invoke(images)["predictions"]
    wanted = reference.expected("digits", "1", inputs)
    assert predictions["digit"] == wanted["digit"].tolist()
    np.testing.assert_allclose(predictions["probabilities"], wanted["probabilities"], rtol=1e-5, atol=1e-5)


def test_the_deployments_client_names_models(digits):
    inputs = reference.rows("diabetes", "2", 3, seed=44)
    client = mlflow.deployments.get_deploy_client(f"http://{digits.http}")
    body = {"inputs": {name: value.tolist() for name, value in inputs.items()}}
    predictions = client.predict(endpoint="diabetes", inputs=body)["predictions"]
    wanted = reference.expected("diabetes", "2", inputs)
    np.testing.assert_allclose(predictions["progression"], wanted["progression"], rtol=1e-5)


def sagemaker_client(server):
    """AWS's own; nobody checks the signatures that it makes."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://{server.http}",
        region_name="eu-central-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )


@pytest.mark.parametrize(
    "names",
    [
        {"EndpointName": "diabetes"},
        {"EndpointName": "several-models", "TargetModel": "diabetes"},
        {"EndpointName": "several-models", "TargetModel": "/diabetes.tar.gz"},
        {"EndpointName": "digits", "TargetModel": "diabetes"},
    ],
)
@pytest.mark.parametrize("media_type", ["application/json", "text/csv", "text/csv; header=absent"])
def test_sagemaker_runtime(digits, names, media_type):
    inputs = reference.rows("diabetes", "2", 3, seed=46)
    [rows] = (value.tolist() for value in inputs.values())
    if media_type == "application/json":
        body = json.dumps({"instances": rows})
    else:
        header = [] if "absent" in media_type else [",".join(f"column_{index}" for index in range(10))]
        body = "\n".join(header + [",".join(map(repr, row)) for row in rows])
    answer = sagemaker_client(digits).invoke_endpoint(**names, Body=body, ContentType=media_type)
    assert answer["ContentType"] == "application/json"
    predictions = json.load(answer["Body"])["predictions"]
    wanted = reference.expected("diabetes", "2", inputs)
    np.testing.assert_allclose(predictions["progression"], wanted["progression"], rtol=1e-5)


@pytest.mark.parametrize(
    "names, media_type, status, word",
    [
        ({"EndpointName": "nothing"}, "application/json", 404, "nothing"),
        ({"EndpointName": "digits", "TargetModel": "nothing"}, "application/json", 404, "nothing"),
        ({"EndpointName": "digits"}, "application/json", 400, "JSON"),
        ({"EndpointName": "digits"}, "application/x-npy", 415, "application/x-npy"),
    ],
)
def test_sagemaker_faults(digits, names, media_type, status, word):
    with pytest.raises(ClientError) as raised:
        sagemaker_client(digits).invoke_endpoint(**names, Body=b"{", ContentType=media_type)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert word in raised.value.response["Error"]["Message"]


@pytest.mark.parametrize(
    "drop, words",
    [(["mean_area"], ["BAD_REQUEST", "mean_area", "breast_cancer"]), ([], ["BAD_REQUEST", "no rows"])],
)
def test_faults(cancer, drop, words):
    inputs = reference.rows("breast_cancer", "1", 2, seed=45)
    frame = pandas.DataFrame({name: value[:, 0] for name, value in inputs.items()}).drop(columns=drop)
    frame = frame if drop else frame.head(0)
    with pytest.raises(Exception) as raised:
        scoring_client(cancer).invoke(frame)
    assert "error code 400" in str(raised.value)
    assert all(word in str(raised.value) for word in words), raised.value


def test_without_a_default(server):
    reply = request(server.http, "POST", "/invocations", {"inputs": [[1]]})
    assert (reply.status, reply.json["error_code"]) == (400, "BAD_REQUEST")
    assert "--default-model" in reply.json["message"]
    reply = request(server.http, "POST", "/endpoints/nothing/invocations", {"inputs": [[1]]})
    assert (reply.status, reply.json["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
