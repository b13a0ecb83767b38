"""TorchServe's management API, over REST as its users' scripts send it and over gRPC through generated stubs."""

import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import grpc
import numpy as np
import onnxruntime
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families
from tokenizers import Tokenizer

import reference
import served
import torchserve_client
from clients import SECONDS_MAX, request

ROW = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
BACKENDS = ["onnxruntime", "tract"]


@pytest.fixture(params=BACKENDS)
def managed(request, tmp_path):
    """A server whose models change, and the directory from which it may register more."""
    repository, store = tmp_path / "models", tmp_path / "store"
    shutil.copytree(served.REPOSITORY, repository)
    store.mkdir()
    shutil.copy(served.REPOSITORY / "diabetes" / "1" / "model.onnx", store / "sugar.onnx")
    shutil.copytree(served.REPOSITORY / "digits", store / "numbers")
    (store / "notes.txt").write_text("no model")
    with served.serve(request.param, "--model-store", str(store), repository=repository) as running:
        yield running


def rest(server, method: str, path: str, body=None, headers=None):
    reply = request(server.http, method, path, body, headers)
    assert reply.status == 200, reply.body
    return reply.json


def fault(server, method: str, path: str, body=None, headers=None) -> tuple[int, str]:
    reply = request(server.http, method, path, body, headers)
    assert reply.json["code"] == reply.status and reply.json["message"], reply.body
    return reply.status, reply.json["type"]


def predicts(server, model: str) -> np.ndarray:
    return rest(server, "POST", f"/predictions/{model}", ROW)


def wanted(version: str) -> np.ndarray:
    return reference.expected("diabetes", version, {"measurements": np.array([ROW], dtype=np.float32)})["progression"][0]


def test_lists_and_describes(server):
    models = [{"modelName": name, "modelUrl": name} for name in ("breast_cancer", "diabetes", "digits")]
    assert rest(server, "GET", "/models") == {"models": models}
    assert rest(server, "GET", "/models?limit=2") == {"nextPageToken": "2", "models": models[:2]}
    assert rest(server, "GET", "/models?limit=2&next_page_token=2") == {"models": models[2:]}
    [default] = rest(server, "GET", "/models/diabetes")
    assert (default["modelName"], default["modelVersion"]) == ("diabetes", "2")
    assert default["minWorkers"] == default["maxWorkers"] == len(default["workers"]) > 0
    assert {worker["status"] for worker in default["workers"]} == {"READY"}
    assert default["workers"][0]["startTime"].endswith("Z")
    assert default["batchSize"] > 1
    [first] = rest(server, "GET", "/models/diabetes/1")
    assert first["modelVersion"] == "1"
    versions = rest(server, "GET", "/models/diabetes/all")
    assert [version["modelVersion"] for version in versions] == ["1", "2"]


def test_describes_over_grpc(server):
    with torchserve_client.management(server.grpc) as (messages, stub):
        listed = json.loads(stub.ListModels(messages.ListModelsRequest(), timeout=SECONDS_MAX).msg)
        described = stub.DescribeModel(messages.DescribeModelRequest(model_name="diabetes"), timeout=SECONDS_MAX).msg
    assert listed == rest(server, "GET", "/models")
    assert json.loads(described) == rest(server, "GET", "/models/diabetes")


@pytest.mark.parametrize(
    "method, path, status, kind",
    [
        ("GET", "/models/nothing", 404, "ModelNotFoundException"),
        ("GET", "/models/diabetes/9", 404, "ModelVersionNotFoundException"),
        ("GET", "/models?limit=many", 400, "BadRequestException"),
        ("PUT", "/models/nothing?min_worker=1", 404, "ModelNotFoundException"),
        ("PUT", "/models/diabetes?min_worker=3&max_worker=2", 400, "BadRequestException"),
        ("PUT", "/models/diabetes/9/set-default", 404, "ModelVersionNotFoundException"),
        ("DELETE", "/models/nothing", 404, "ModelNotFoundException"),
        ("DELETE", "/models/diabetes/2", 403, "InvalidModelVersionException"),
        ("POST", "/models", 400, "BadRequestException"),
        ("POST", "/models?url=diabetes", 409, "ConflictStatusException"),
        ("POST", "/models?url=nothing", 404, "ModelNotFoundException"),
        ("POST", "/models?url=digits&model_name=other", 400, "BadRequestException"),
        ("PATCH", "/models", 405, "MethodNotAllowedException"),
        ("GET", "/token?type=management", 404, "ResourceNotFoundException"),
        ("GET", "/token?type=inference", 404, "ResourceNotFoundException"),
        ("POST", "/token?type=inference", 405, "MethodNotAllowedException"),
    ],
)
def test_faults(server, method, path, status, kind):
    assert fault(server, method, path) == (status, kind)


def test_faults_over_grpc(server):
    with torchserve_client.management(server.grpc) as (messages, stub):
        calls = [
            (stub.DescribeModel, messages.DescribeModelRequest(model_name="nothing"), "NOT_FOUND ModelNotFoundException"),
            (
                stub.SetDefault,
                messages.SetDefaultRequest(model_name="diabetes", model_version="9"),
                "NOT_FOUND ModelVersionNotFoundException",
            ),
            (stub.RegisterModel, messages.RegisterModelRequest(), "INVALID_ARGUMENT BadRequestException"),
            (
                stub.RegisterModel,
                messages.RegisterModelRequest(url="digits"),
                "INVALID_ARGUMENT ConflictStatusException",
            ),
            (stub.UnregisterModel, messages.UnregisterModelRequest(model_name="nothing"), "NOT_FOUND ModelNotFoundException"),
        ]
        for call, message, expected in calls:
            with pytest.raises(grpc.RpcError) as raised:
                call(message, timeout=SECONDS_MAX)
            assert f"{raised.value.code().name} {raised.value.details().split('.')[-1]}" == expected


def test_the_default_version(managed):
    np.testing.assert_allclose(predicts(managed, "diabetes"), wanted("2"), rtol=1e-5)
    rest(managed, "PUT", "/models/diabetes/1/set-default")
    np.testing.assert_allclose(predicts(managed, "diabetes"), wanted("1"), rtol=1e-5)
    assert rest(managed, "GET", "/models/diabetes")[0]["modelVersion"] == "1"
    with torchserve_client.management(managed.grpc) as (messages, stub):
        stub.SetDefault(messages.SetDefaultRequest(model_name="diabetes", model_version="2"), timeout=SECONDS_MAX)
    np.testing.assert_allclose(predicts(managed, "diabetes"), wanted("2"), rtol=1e-5)


def test_out_of_service_and_back(managed):
    rest(managed, "DELETE", "/models/digits/1")
    assert fault(managed, "POST", "/predictions/digits", [0])[0] == 503
    assert [model["modelName"] for model in rest(managed, "GET", "/models")["models"]] == ["breast_cancer", "diabetes"]
    text = rest(managed, "POST", "/models?url=digits&initial_workers=1&synchronous=true")["status"]
    assert 'Model "digits" Version: 1 registered' in text
    rest(managed, "PUT", "/models/diabetes?min_worker=0&max_worker=0")
    assert fault(managed, "POST", "/predictions/diabetes", ROW)[0] == 503
    assert "workers" in rest(managed, "PUT", "/models/diabetes?min_worker=100&synchronous=true")["status"].lower()
    np.testing.assert_allclose(predicts(managed, "diabetes"), wanted("2"), rtol=1e-5)
    with torchserve_client.management(managed.grpc) as (messages, stub):
        stub.UnregisterModel(messages.UnregisterModelRequest(model_name="diabetes"), timeout=SECONDS_MAX)
        assert fault(managed, "POST", "/predictions/diabetes", ROW)[0] == 503
        stub.ScaleWorker(messages.ScaleWorkerRequest(model_name="diabetes", min_worker=1), timeout=SECONDS_MAX)
    np.testing.assert_allclose(predicts(managed, "diabetes"), wanted("2"), rtol=1e-5)


def test_from_the_model_store(managed):
    rest(managed, "POST", "/models?url=sugar.onnx&initial_workers=1&batch_size=4&max_batch_delay=5")
    np.testing.assert_allclose(predicts(managed, "sugar"), wanted("1"), rtol=1e-5)
    [sugar] = rest(managed, "GET", "/models/sugar")
    assert (sugar["minWorkers"], sugar["batchSize"], sugar["maxBatchDelay"]) == (1, 4, 5)
    as_sagemaker = {"model_name": "second", "url": "numbers"}
    rest(managed, "POST", "/models", as_sagemaker, {"Content-Type": "application/json"})
    assert fault(managed, "POST", "/models", as_sagemaker, {"Content-Type": "application/json"})[0] == 409
    assert rest(managed, "GET", "/models/second")[0]["modelVersion"] == "1"
    with torchserve_client.management(managed.grpc) as (messages, stub):
        third = messages.RegisterModelRequest(url="sugar.onnx", model_name="third", initial_workers=1)
        assert "third" in stub.RegisterModel(third, timeout=SECONDS_MAX).msg
    np.testing.assert_allclose(predicts(managed, "third"), wanted("1"), rtol=1e-5)
    rest(managed, "DELETE", "/models/sugar")
    assert fault(managed, "GET", "/models/sugar")[0] in (404, 503)
    for url in ("../models/digits", "/etc", "notes.txt", "file:///etc/hostname"):
        assert fault(managed, "POST", f"/models?url={url}&model_name=x") == (400, "BadRequestException"), url


def pack(store: pathlib.Path, name: str, model: pathlib.Path, *options: str, extra: dict[str, str] | None = None) -> None:
    """An archive by TorchServe's own tool."""
    sources = store.parent / f"{name}-extra"
    sources.mkdir()
    for file, content in (extra or {}).items():
        (sources / file).write_text(content)
    extras = ["--extra-files", ",".join(str(sources / file) for file in extra)] if extra else []
    tool = "from model_archiver.model_packaging import generate_model_archive as pack; pack()"
    command = [sys.executable, "-s", "-c", tool, "--model-name", name, "--export-path", str(store)]
    command += ["--serialized-file", str(model), *extras, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr


def test_from_an_archive(managed, tmp_path):
    store = tmp_path / "store"
    tables = served.REPOSITORY / "diabetes" / "2" / "model.onnx"
    pack(store, "table", tables, "--version", "4.2", "--handler", "base_handler")
    rest(managed, "POST", "/models?url=table.mar&initial_workers=1&batch_size=4")
    np.testing.assert_allclose(predicts(managed, "table"), wanted("2"), rtol=1e-5)
    [described] = rest(managed, "GET", "/models/table")
    assert (described["modelVersion"], described["batchSize"], described["minWorkers"]) == ("4", 4, 1)

    # Its own settings stand for a handler in Python.
    (store.parent / "mine.py").write_text("def handle(data, context): return data")
    handler = ["--version", "1.0", "--handler", str(store.parent / "mine.py")]
    pack(store, "lines", tables, *handler, extra={"model.toml": '[input]\nkind = "csv"\nheader = false\n'})
    rest(managed, "POST", "/models?url=lines.mar")
    line = ",".join(map(str, ROW)).encode()
    answer = rest(managed, "POST", "/predictions/lines", line, {"Content-Type": "text/csv"})
    np.testing.assert_allclose(np.ravel(answer), np.ravel(wanted("2")), rtol=1e-5)
    pack(store, "python", tables, *handler)
    pack(store, "weights", served.REPOSITORY / "diabetes" / "1" / "golden.json", "--version", "1.0", "--handler", "base_handler")
    (store / "broken.mar").write_bytes(b"PK\3\4")
    for name in ("python", "weights", "broken"):
        assert fault(managed, "POST", f"/models?url={name}.mar") == (400, "BadRequestException")


def test_text_classifier_from_an_archive(managed, tmp_path):
    texts = served.ROOT / "server" / "app" / "tests" / "fixtures" / "texts"
    labels = {str(index): label for index, label in enumerate(["praise", "blame", "question", "other"])}
    extra = {"tokenizer.json": (texts / "wordpiece.json").read_text(), "index_to_name.json": json.dumps(labels)}
    options = ["--version", "1.0", "--handler", "text_classifier"]
    pack(tmp_path / "store", "mood", texts / "classifier.onnx", *options, extra=extra)
    rest(managed, "POST", "/models?url=mood.mar")
    text = "I love this film"
    answer = rest(managed, "POST", "/predictions/mood", text.encode(), {"Content-Type": "text/plain"})
    tokenizer = Tokenizer.from_file(str(texts / "wordpiece.json"))
    session = onnxruntime.InferenceSession(texts / "classifier.onnx")
    encoding = tokenizer.encode(text)
    columns = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
    inputs = {spec.name: np.array([columns[spec.name]], dtype=np.int64) for spec in session.get_inputs()}
    [scores] = session.run(None, inputs)[0]
    probabilities = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    expected = {labels[str(index)]: probabilities[index] for index in np.argsort(-probabilities)}
    assert list(answer) == list(expected)
    np.testing.assert_allclose(list(answer.values()), list(expected.values()), rtol=1e-4)


def test_settings_of_a_directory_in_the_model_store(managed, tmp_path):
    (tmp_path / "store" / "numbers" / "model.toml").write_text('[output]\nkind = "rows"\ntensor = "digit"\n')
    rest(managed, "POST", "/models?url=numbers&batch_size=8")
    rows = reference.rows("digits", "1", 3, seed=5)["image"]
    answer = rest(managed, "POST", "/predictions/numbers", rows.tolist())
    np.testing.assert_array_equal(answer, reference.expected("digits", "1", {"image": rows})["digit"])
    assert rest(managed, "GET", "/models/numbers")[0]["batchSize"] == 8


class Files(http.server.SimpleHTTPRequestHandler):
    """The example models, a redirect to them, and an answer that ends too early."""

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=str(served.REPOSITORY))

    def do_GET(self):
        if self.path == "/diabetes/moved.onnx":
            self.send_response(302)
            self.send_header("Location", "/diabetes/1/model.onnx")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/diabetes/short.onnx":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"not all")
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def files():
    """The address of a web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("backend", BACKENDS)
def test_from_a_url(backend, files, tmp_path):
    (tmp_path / "models").mkdir()
    allow = ["--model-url-allow", f"http://models.example/,{files}/diabetes/", "--allow-empty-repository"]
    with served.serve(backend, *allow, repository=tmp_path / "models") as server:
        url = f"{files}/diabetes/1/model.onnx"
        text = rest(server, "POST", f"/models?url={url}&model_name=sugar&initial_workers=1&batch_size=4")["status"]
        assert 'Model "sugar" Version: 1 registered with 1 initial workers' in text
        np.testing.assert_allclose(predicts(server, "sugar"), wanted("1"), rtol=1e-5)
        as_json = {"url": f"{files}/diabetes/2/model.onnx?signature=x"}
        rest(server, "POST", "/models", as_json, {"Content-Type": "application/json"})
        np.testing.assert_allclose(predicts(server, "model"), wanted("2"), rtol=1e-5)
        with torchserve_client.management(server.grpc) as (messages, stub):
            assert "third" in stub.RegisterModel(
                messages.RegisterModelRequest(url=url, model_name="third"), timeout=SECONDS_MAX
            ).msg
            with pytest.raises(grpc.RpcError) as raised:
                stub.RegisterModel(messages.RegisterModelRequest(url="http://127.0.0.1/a.onnx"), timeout=SECONDS_MAX)
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert raised.value.details().splitlines()[-1] == "org.pytorch.serve.archive.utils.InvalidArchiveURLException"
        np.testing.assert_allclose(predicts(server, "third"), wanted("1"), rtol=1e-5)
        for place, kind in [
            (f"{files}/digits/1/model.onnx", "InvalidArchiveURLException"),
            (f"{files}/diabetes/../digits/1/model.onnx", "InvalidArchiveURLException"),
            (f"{files}/diabetes/%252e%252e/digits/1/model.onnx", "InvalidArchiveURLException"),
            ("https://models.example/a.onnx", "InvalidArchiveURLException"),
            ("s3://models.example/a.onnx", "InvalidArchiveURLException"),
            (f"{files}/diabetes/9/model.onnx", "DownloadArchiveException"),
            (f"{files}/diabetes/moved.onnx", "DownloadArchiveException"),
            (f"{files}/diabetes/short.onnx", "DownloadArchiveException"),
            (f"{files}/diabetes/1/golden.json", "BadRequestException"),
        ]:
            assert fault(server, "POST", f"/models?url={place}&model_name=x") == (400, kind), place
        names = [model["modelName"] for model in rest(server, "GET", "/models")["models"]]
        assert sorted(names) == ["model", "sugar", "third"]


def test_no_url_is_allowed_by_default(managed, files):
    url = f"{files}/diabetes/1/model.onnx"
    assert fault(managed, "POST", f"/models?url={url}&model_name=x") == (400, "InvalidArchiveURLException")


def test_further_addresses():
    """TorchServe's ports, or any others, beside the server's own."""
    flags = ["--http-also", "127.0.0.1:0,127.0.0.1:0", "--grpc-also", "127.0.0.1:0", "--metrics-also", "127.0.0.1:0"]
    with served.serve("tract", *flags) as server:
        also = {flag: addresses_in_log(server, flag) for flag in ("--http-also", "--grpc-also", "--metrics-also")}
        inference, management = also["--http-also"]
        assert request(inference, "GET", "/ping").json == {"status": "Healthy"}
        assert request(management, "GET", "/models").json == rest(server, "GET", "/models")
        [metrics] = also["--metrics-also"]
        assert b"gristmill_build_info" in request(metrics, "GET", "/metrics").body
        [address] = also["--grpc-also"]
        with torchserve_client.management(address) as (messages, stub):
            listed = stub.ListModels(messages.ListModelsRequest(), timeout=SECONDS_MAX).msg
        assert json.loads(listed) == rest(server, "GET", "/models")


def addresses_in_log(server, flag: str) -> list[str]:
    lines = [line for line in server.log.splitlines() if f"as {flag} says" in line]
    return [re.search(r"127\.0\.0\.1:\d+", line).group() for line in lines]


def test_metrics_by_other_names():
    with served.serve("tract", "--metric-aliases", "torchserve,triton") as server:
        for _ in range(3):
            predicts(server, "diabetes")
        for accept, kind in [("text/plain", "counter"), ("application/openmetrics-text", "unknown")]:
            text = request(server.metrics, "GET", "/metrics", headers={"Accept": accept}).body.decode()
            parse = openmetrics_families if kind == "unknown" else prometheus_families
            families = {family.name: family for family in parse(text)}
            assert {family.type for name, family in families.items() if name.startswith(("ts_", "nv_"))} == {kind}
            # One of the parsers adds `_total` to the names of counters that lack it.
            samples = {
                (sample.name.removesuffix("_total"), sample.labels.get("model_version") or sample.labels.get("version")): sample
                for family in families.values()
                for sample in family.samples
                if "diabetes" in sample.labels.values()
            }
            requests = samples["ts_inference_requests", "2"]
            assert (requests.value, requests.labels["model_name"]) == (3, "diabetes")
            assert requests.labels["hostname"]
            assert samples["nv_inference_request_success", "2"].value == samples["nv_inference_count", "2"].value == 3
            assert samples["nv_inference_request_success", "1"].value == 0
            assert samples["nv_inference_request_duration_us", "2"].value > 0
