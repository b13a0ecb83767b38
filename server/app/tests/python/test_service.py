"""What the server says about itself and its models: health, metadata, configuration, statistics, index, metrics."""

import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import reference
from clients import Client, request

COLUMNS = [
    f"{statistic}_{quantity}" if statistic != "error" else f"{quantity}_error"
    for statistic in ("mean", "error", "worst")
    for quantity in (
        "radius",
        "texture",
        "perimeter",
        "area",
        "smoothness",
        "compactness",
        "concavity",
        "concave_points",
        "symmetry",
        "fractal_dimension",
    )
]

# Name, datatype, shape with -1 for the batch axis.
SIGNATURES = {
    "breast_cancer": (
        [(column, "FP32", [-1, 1]) for column in COLUMNS],
        [("output_label", "BYTES", [-1]), ("output_probability", "FP32", [-1, 2])],
    ),
    "diabetes": ([("measurements", "FP32", [-1, 10])], [("progression", "FP32", [-1, 1])]),
    "digits": (
        [("image", "FP32", [-1, 1, 8, 8])],
        [("digit", "INT64", [-1]), ("probabilities", "FP32", [-1, 10])],
    ),
}
VERSIONS = {"breast_cancer": ["1"], "diabetes": ["1", "2"], "digits": ["1"]}

# The two encodings of Triton's clients: the JSON form of gRPC messages has 64-bit numbers as text.
DIALECTS = ["grpc", "json"]


def as_json(client: Client) -> dict:
    return {"as_json": True} if client.protocol == "grpc" else {}


@pytest.mark.parametrize("protocol", DIALECTS)
@pytest.mark.parametrize("model", SIGNATURES)
def test_metadata_is_the_signature(server, model, protocol):
    with Client(server, protocol) as client:
        metadata = client.triton.get_model_metadata(model, **as_json(client))
    inputs, outputs = SIGNATURES[model]
    assert metadata["name"] == model
    assert metadata["versions"] == VERSIONS[model]
    assert [tensor(spec) for spec in metadata["inputs"]] == inputs
    assert [tensor(spec) for spec in metadata["outputs"]] == outputs
    assert metadata["platform"]


@pytest.mark.parametrize("protocol", DIALECTS)
@pytest.mark.parametrize("model, version", reference.MODELS)
def test_metadata_of_one_version(server, model, version, protocol):
    with Client(server, protocol) as client:
        metadata = client.triton.get_model_metadata(model, version, **as_json(client))
    assert [tensor(spec) for spec in metadata["inputs"]] == SIGNATURES[model][0]


def tensor(spec: dict) -> tuple[str, str, list[int]]:
    return spec["name"], spec["datatype"], [int(size) for size in spec["shape"]]


@pytest.mark.parametrize("protocol", DIALECTS)
@pytest.mark.parametrize("model", SIGNATURES)
def test_configuration_has_the_batch_axis_left_out(server, model, protocol):
    with Client(server, protocol) as client:
        config = client.triton.get_model_config(model, **as_json(client))
    config = config.get("config", config)
    assert config["name"] == model
    assert config["max_batch_size"] > 0
    for kind, specs in zip(("input", "output"), SIGNATURES[model]):
        names = {"BYTES": "TYPE_STRING"}
        wanted = [(name, names.get(datatype, "TYPE_" + datatype), shape[1:]) for name, datatype, shape in specs]
        actual = [(spec["name"], spec["data_type"], [int(size) for size in spec.get("dims", [])]) for spec in config[kind]]
        assert actual == wanted


@pytest.mark.parametrize("protocol", DIALECTS)
def test_statistics_count_rows_and_requests(server, protocol):
    def statistics(client: Client) -> dict:
        reply = client.triton.get_inference_statistics("diabetes", "1", **as_json(client))
        [entry] = reply["model_stats"]
        assert (entry["name"], entry["version"]) == ("diabetes", "1")
        return entry

    with Client(server, protocol) as client:
        client.infer("diabetes", reference.rows("diabetes", "1", 1, seed=1), "1")
        before = statistics(client)
        client.infer("diabetes", reference.rows("diabetes", "1", 7, seed=2), "1")
        after = statistics(client)

    def grown(*path: str) -> int:
        values = []
        for value in (before, after):
            for key in path:
                value = value[key]
            values.append(int(value))
        return values[1] - values[0]

    assert grown("inference_count") == 7
    assert grown("execution_count") == 1
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert grown("inference_stats", stage, "count") == 1, stage
        assert grown("inference_stats", stage, "ns") > 0, stage
    assert {int(batch["batch_size"]) for batch in after["batch_stats"]} >= {1, 7}


@pytest.mark.parametrize("protocol", DIALECTS)
def test_statistics_of_all_models(server, protocol):
    with Client(server, protocol) as client:
        entries = client.triton.get_inference_statistics(**as_json(client))["model_stats"]
    assert sorted((entry["name"], entry["version"]) for entry in entries) == reference.MODELS


@pytest.mark.parametrize("protocol", DIALECTS)
def test_index_lists_every_version(server, protocol):
    with Client(server, protocol) as client:
        index = client.triton.get_model_repository_index(**as_json(client))
    entries = index["models"] if isinstance(index, dict) else index
    assert sorted((entry["name"], entry["version"]) for entry in entries) == reference.MODELS
    assert {entry["state"] for entry in entries} == {"READY"}


@pytest.mark.parametrize("protocol", DIALECTS)
def test_health(server, protocol):
    with Client(server, protocol) as client:
        assert client.triton.is_server_live()
        assert client.triton.is_server_ready()
        for model, version in reference.MODELS:
            assert client.triton.is_model_ready(model)
            assert client.triton.is_model_ready(model, version)
        assert not client.triton.is_model_ready("diabetes", "3")
        assert not client.triton.is_model_ready("nothing")


@pytest.mark.parametrize("protocol", DIALECTS)
def test_server_metadata(server, protocol):
    with Client(server, protocol) as client:
        metadata = client.triton.get_server_metadata(**as_json(client))
    assert metadata["name"] == "gristmill"
    assert metadata["version"]
    assert {"binary_tensor_data", "statistics", "model_configuration", "model_repository"} <= set(metadata["extensions"])


def test_health_replies_have_bodies_for_clients_that_read_them(server):
    assert request(server.http, "GET", "/v2/health/live").json == {"live": True}
    assert request(server.http, "GET", "/v2/health/ready").json == {"ready": True}
    reply = request(server.http, "GET", "/v2/models/digits/ready")
    assert (reply.status, reply.json["name"], reply.json["ready"]) == (200, "digits", True)
    health = request(server.http, "GET", "/health").json
    assert health["status"] == "healthy"
    assert sorted(health["models"]) == sorted(SIGNATURES)


def test_models_are_listed(server):
    names = request(server.http, "GET", "/v2/models").json["models"]
    assert sorted(names) == sorted(SIGNATURES)


def test_class_labels_are_in_the_metadata(server):
    metadata = request(server.http, "GET", "/v2/models/breast_cancer").json
    [probability] = [output for output in metadata["outputs"] if output["name"] == "output_probability"]
    assert probability["labels"] == ["benign", "malignant"]


def test_grpc_health_protocol(server):
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService", *SIGNATURES):
            reply = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING, service
        with pytest.raises(grpc.RpcError) as error:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        [reply] = stub.ServerReflectionInfo(iter([ask]))
    services = {service.name for service in reply.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services


def test_metrics_are_open_metrics_for_scrapers_that_prefer_it(server):
    # As Prometheus asks.
    accept = {"accept": "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
    trace_id, other = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b74bf92f3577b34da6"
    for traceparent in (f"00-{trace_id}-00f067aa0ba902b7-01", f"00-{other}-00f067aa0ba902b7-00"):
        body = {"features": [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]}
        reply = request(server.http, "POST", "/predict/diabetes", body, {"traceparent": traceparent})
        assert reply.status == 200, reply.body
    reply = request(server.metrics, "GET", "/metrics", headers=accept)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(reply.body.decode())}
    assert families["gristmill_requests"].type == "counter"
    assert families["gristmill_request_seconds"].unit == "seconds"
    samples = [sample for family in families.values() for sample in family.samples]
    exemplars = [sample for sample in samples if sample.exemplar]
    assert {sample.name for sample in exemplars} == {"gristmill_request_seconds_bucket"}
    assert {sample.exemplar.labels["trace_id"] for sample in exemplars} == {trace_id}, "only of sampled traces"
    [sample] = exemplars
    assert sample.labels["model"] == "diabetes"
    assert 0 < sample.exemplar.value <= float(sample.labels["le"])
    assert abs(float(sample.exemplar.timestamp) - time.time()) < 60


def test_metrics_on_both_ports(server):
    with Client(server, "grpc") as client:
        client.infer("digits", reference.rows("digits", "1", 1, seed=3))
    for address in (server.metrics, server.http):
        reply = request(address, "GET", "/metrics")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/plain")
        lines = reply.body.decode().splitlines()
        samples = [line for line in lines if line.startswith("gristmill_") and 'model="digits"' in line]
        assert samples
        described = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
        helped = {line.split()[2] for line in lines if line.startswith("# HELP ")}
        assert described == helped
