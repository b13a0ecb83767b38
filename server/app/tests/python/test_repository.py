"""Models come, change and go while the server runs: by the repository's files, and by Triton's repository calls."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil

import pytest
from tritonclient.utils import InferenceServerException

import reference
import served
from clients import Client, request
from served import eventually

DIALECTS = ["grpc", "json"]
FIXTURES = served.ROOT / "server" / "onnx" / "tests" / "fixtures"
INVALID = {"grpc": "StatusCode.INVALID_ARGUMENT", "json": "400"}
NOT_FOUND = {"grpc": "StatusCode.NOT_FOUND", "json": "404"}
UNAVAILABLE = {"grpc": "StatusCode.UNAVAILABLE", "json": "503"}
FAILED = {"grpc": "StatusCode.INTERNAL", "json": "500"}
# Short, because tests copy files in one go.
SETTLE = ("--settle-time", "50ms")
MODEL = {version: reference.path("diabetes", version).read_bytes() for version in ("1", "2")}
CONFIG = json.dumps({"backend": "onnxruntime"})


@pytest.fixture
def repository(tmp_path):
    """A copy of one example model in two versions."""
    shutil.copytree(served.REPOSITORY / "diabetes", tmp_path / "repository" / "diabetes")
    return tmp_path / "repository"


@pytest.fixture(params=DIALECTS)
def protocol(request):
    return request.param


@contextlib.contextmanager
def client_of(mode: str, protocol: str, repository: pathlib.Path, backend: str = "onnxruntime", **variables: str):
    flags = ("--model-control", mode, *SETTLE)
    with served.serve(backend, *flags, repository=repository, **variables) as server, Client(server, protocol) as client:
        yield client


def index(client: Client) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason by model and version."""
    json_form = {"as_json": True} if client.protocol == "grpc" else {}
    reply = client.triton.get_model_repository_index(**json_form)
    entries = reply.get("models", []) if client.protocol == "grpc" else reply
    return {(entry["name"], entry.get("version", "")): (entry["state"], entry.get("reason", "")) for entry in entries}


def states(client: Client) -> dict[str, str]:
    """Of the versions of diabetes."""
    return {version: state for (model, version), (state, _) in index(client).items() if model == "diabetes"}


def assert_serves(client: Client, version: str, asked: str = "", model: str = "diabetes", like: str = "") -> None:
    """`asked` is answered by `version`, with what the example of that version, or of version `like`, answers."""
    like = like or version
    inputs = reference.rows("diabetes", like, 3, seed=7)
    answer = client.infer(model, inputs, asked)
    assert (answer.model, answer.version) == (model, version)
    reference.assert_same(answer.outputs, reference.expected("diabetes", like, inputs))


def refusal(call, *arguments, **named) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **named)
    return error.value


def test_explicit_mode_loads_what_it_is_told_to(repository, protocol):
    with client_of("explicit", protocol, repository) as client:
        assert states(client) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
        eventually(lambda: "not loaded" in index(client)["diabetes", "2"][1])
        assert not client.triton.is_model_ready("diabetes")
        error = refusal(assert_serves, client, "2")
        assert error.status() == UNAVAILABLE[protocol]
        assert "load it" in error.message()

        client.triton.load_model("diabetes")
        assert states(client) == {"1": "READY", "2": "READY"}
        assert client.triton.is_model_ready("diabetes")
        assert client.triton.is_server_ready()
        json_form = {"as_json": True} if protocol == "grpc" else {}
        assert client.triton.get_model_metadata("diabetes", **json_form)["versions"] == ["1", "2"]
        assert_serves(client, "2")
        assert_serves(client, "1", asked="1")

        client.triton.unload_model("diabetes")
        assert states(client) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
        assert not client.triton.is_model_ready("diabetes")
        assert refusal(assert_serves, client, "2").status() == UNAVAILABLE[protocol]
        client.triton.unload_model("diabetes")
        client.triton.load_model("diabetes")
        assert_serves(client, "2")


def test_a_model_that_was_unloaded_stays_out_until_it_is_loaded(repository, protocol):
    with client_of("watch", protocol, repository) as client:
        assert_serves(client, "2")
        client.triton.unload_model("diabetes")
        assert not client.triton.is_model_ready("diabetes")
        shutil.copytree(repository / "diabetes" / "1", repository / "diabetes" / "3")
        eventually(lambda: states(client).get("3") == "UNAVAILABLE" and "not loaded" in index(client)["diabetes", "3"][1])
        assert not client.triton.is_model_ready("diabetes")
        client.triton.load_model("diabetes")
        assert_serves(client, "3", like="1")


@pytest.mark.parametrize("mode", ["explicit", "watch"])
def test_unknown_models_are_said_to_be_unknown(repository, protocol, mode):
    with client_of(mode, protocol, repository) as client:
        for call in (client.triton.load_model, client.triton.unload_model):
            error = refusal(call, "nothing")
            assert error.status() == NOT_FOUND[protocol]
            assert "'nothing' is not in the repository" in error.message()
        assert ("nothing", "") not in index(client)


def test_a_server_without_model_control_refuses(repository, protocol):
    with client_of("none", protocol, repository) as client:
        for call in (client.triton.load_model, client.triton.unload_model):
            error = refusal(call, "diabetes")
            assert error.status() == INVALID[protocol]
            assert "--model-control" in error.message()
        assert_serves(client, "2")


def test_a_broken_version_leaves_the_old_one_serving(repository, protocol):
    with client_of("watch", protocol, repository) as client:
        spoilt = repository / "diabetes" / "3"
        spoilt.mkdir()
        (spoilt / "model.onnx").write_bytes(MODEL["2"][:200])
        eventually(lambda: "model.onnx" in index(client).get(("diabetes", "3"), ("", ""))[1])
        assert states(client) == {"1": "READY", "2": "READY", "3": "UNAVAILABLE"}
        assert_serves(client, "2")
        assert client.triton.is_server_ready()
        error = refusal(client.triton.load_model, "diabetes")
        assert error.status() == FAILED[protocol]
        assert "version 3" in error.message()
        assert_serves(client, "2")

        (spoilt / "model.onnx").write_bytes(MODEL["1"])
        eventually(lambda: states(client)["3"] == "READY")
        assert_serves(client, "3", like="1")
        shutil.rmtree(spoilt)
        eventually(lambda: "3" not in states(client))
        assert_serves(client, "2")


def test_new_models_come_and_go_with_their_directories(repository, protocol):
    with client_of("watch", protocol, repository) as client:
        shutil.copytree(repository / "diabetes", repository / "other")
        eventually(lambda: client.triton.is_model_ready("other"))
        assert_serves(client, "2", model="other")
        shutil.rmtree(repository / "other")
        eventually(lambda: not any(model == "other" for model, _ in index(client)))
        assert not client.triton.is_model_ready("other")
        assert_serves(client, "2")


@pytest.mark.parametrize("dialect", ["grpc", "json", "binary"])
def test_a_label_stands_wherever_a_version_may(repository, dialect):
    settings = repository / "diabetes" / "model.toml"
    settings.write_text("labels = { stable = 1, canary = 2 }\n")
    with client_of("watch", dialect, repository) as client:
        assert_serves(client, "1", asked="stable")
        assert_serves(client, "2", asked="canary")
        assert_serves(client, "1")
        assert client.triton.is_model_ready("diabetes", "canary")
        error = refusal(assert_serves, client, "1", asked="beta")
        assert error.status() == (NOT_FOUND["grpc"] if dialect == "grpc" else NOT_FOUND["json"])
        for word in ("beta", "canary", "stable"):
            assert word in error.message()

        settings.write_text("labels = { stable = 2 }\n")
        inputs = reference.rows("diabetes", "2", 1, seed=1)
        eventually(lambda: client.infer("diabetes", inputs, "stable").version == "2")
        assert_serves(client, "2")


@pytest.mark.parametrize("backend", ["onnxruntime", "tract"])
@pytest.mark.parametrize("mode", ["explicit", "watch"])
def test_a_model_may_come_with_the_load(repository, tmp_path, protocol, mode, backend):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with client_of(mode, protocol, repository, backend, TMPDIR=str(scratch)) as client:
        files = {"file:1/model.onnx": MODEL["1"], "file:5/model.onnx": MODEL["2"]}
        config = json.dumps({"name": "made", "backend": "onnxruntime", "version_policy": {"all": {}}})
        client.triton.load_model("made", config=config, files=files)
        assert client.triton.is_model_ready("made")
        assert index(client)["made", "1"] == index(client)["made", "5"] == ("READY", "")
        assert_serves(client, "5", model="made", like="2")
        assert_serves(client, "1", asked="1", model="made")
        [first] = os.listdir(scratch)

        # Other contents of the same version, and of no other.
        client.triton.load_model("made", config=CONFIG, files={"file:1/model.onnx": MODEL["2"]})
        assert_serves(client, "1", model="made", like="2")
        eventually(lambda: first not in os.listdir(scratch))
        [second] = os.listdir(scratch)

        # What cannot be served changes nothing.
        spoilt = refusal(client.triton.load_model, "made", config=CONFIG, files={"file:1/model.onnx": MODEL["1"][:200]})
        assert spoilt.status() == FAILED[protocol]
        assert "failed to load 'made'" in spoilt.message()
        assert_serves(client, "1", model="made", like="2")
        eventually(lambda: os.listdir(scratch) == [second])
        client.triton.load_model("made")
        assert_serves(client, "1", model="made", like="2")

        client.triton.unload_model("made")
        assert not client.triton.is_model_ready("made")
        eventually(lambda: os.listdir(scratch) == [])
        eventually(lambda: not any(model == "made" for model, _ in index(client)))
        assert refusal(client.triton.load_model, "made").status() == NOT_FOUND[protocol]
        error = refusal(client.triton.load_model, "made", config=CONFIG, files={"file:1/model.onnx": b"nothing"})
        assert error.status() == FAILED[protocol]
        eventually(lambda: os.listdir(scratch) == [])
        assert not any(model == "made" for model, _ in index(client))


def test_what_came_with_a_load_is_gone_when_the_server_is(repository, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with client_of("watch", "grpc", repository, TMPDIR=str(scratch)) as client:
        client.triton.load_model("made", config=CONFIG, files={"file:1/model.onnx": MODEL["1"]})
        assert len(os.listdir(scratch)) == 1
        assert os.stat(scratch / os.listdir(scratch)[0]).st_mode & 0o077 == 0
    assert os.listdir(scratch) == []


def test_a_failed_load_does_not_load_the_model_of_the_repository_instead(repository, protocol):
    with client_of("explicit", protocol, repository) as client:
        files = {"file:1/model.onnx": b"nothing"}
        assert refusal(client.triton.load_model, "diabetes", config=CONFIG, files=files).status() == FAILED[protocol]
        assert states(client) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
        assert not client.triton.is_model_ready("diabetes")


def test_what_came_with_a_load_goes_before_the_repository_until_the_next_load(repository, protocol):
    with client_of("watch", protocol, repository) as client:
        client.triton.load_model("diabetes", config=CONFIG, files={"file:7/model.onnx": MODEL["1"]})
        assert_serves(client, "7", like="1")
        # The server goes on reading the repository.
        shutil.copytree(repository / "diabetes", repository / "other")
        eventually(lambda: client.triton.is_model_ready("other"))
        assert_serves(client, "7", like="1")
        client.triton.load_model("diabetes")
        assert_serves(client, "2")
        eventually(lambda: "7" not in states(client))


@pytest.mark.parametrize("mode", ["explicit", "watch"])
def test_a_configuration_alone_goes_before_that_of_the_repository(repository, protocol, mode):
    with client_of(mode, protocol, repository) as client:
        only_first = json.dumps({"backend": "onnxruntime", "versionPolicy": {"specific": {"versions": ["1"]}}})
        client.triton.load_model("diabetes", config=only_first)
        assert_serves(client, "1")
        client.triton.load_model("diabetes")
        assert_serves(client, "2")
        client.triton.load_model("diabetes", config=json.dumps({"backend": "onnxruntime", "maxBatchSize": 4}))
        metadata = client.triton.get_model_config("diabetes", **({"as_json": True} if protocol == "grpc" else {}))
        assert metadata.get("config", metadata)["max_batch_size"] == 4
        assert_serves(client, "2")
        wrong = json.dumps({"backend": "onnxruntime", "input": [{"name": "nothing", "data_type": "TYPE_FP32", "dims": [10]}]})
        error = refusal(client.triton.load_model, "diabetes", config=wrong)
        assert error.status() == FAILED[protocol]
        assert "nothing" in error.message()
        assert_serves(client, "2")
        client.triton.load_model("diabetes")
        assert_serves(client, "2")
        assert refusal(client.triton.load_model, "other", config=CONFIG).status() == NOT_FOUND[protocol]


ONE = {"file:1/model.onnx": MODEL["1"]}
REFUSED = {
    "no-config": ("made", None, ONE, ["config"]),
    "no-json": ("made", "backend", ONE, ["config"]),
    "unknown-field": ("made", '{"back": "onnxruntime"}', ONE, ["config", "back"]),
    "other-name": ("made", '{"name": "other"}', ONE, ["config", "other", "made"]),
    "path-upwards": ("made", CONFIG, ONE | {"file:../1/model.onnx": b""}, ["file:../1/model.onnx", "'..'"]),
    "path-upwards-later": ("made", CONFIG, ONE | {"file:1/../../x": b""}, ["file:1/../../x"]),
    "absolute-path": ("made", CONFIG, ONE | {"file:/1/model.onnx": b""}, ["file:/1/model.onnx"]),
    "no-version": ("made", CONFIG, {"file:model.onnx": MODEL["1"]}, ["file:1/model.onnx"]),
    "no-model-file": ("made", CONFIG, ONE | {"file:2/weights": b""}, ["version 2", "file:2/model.onnx"]),
    "other-model-file": ("made", '{"default_model_filename": "it.onnx"}', ONE, ["file:1/it.onnx"]),
    "other-parameter": ("made", CONFIG, ONE | {"1/model.onnx": b""}, ["1/model.onnx", "file:<version>/<name>"]),
    "hidden-name": (".made", CONFIG, ONE, [".made"]),
}


def test_a_load_at_fault_is_refused_with_the_reason(repository, tmp_path, protocol):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with client_of("watch", protocol, repository, TMPDIR=str(scratch)) as client:
        for name, (model, config, files, words) in REFUSED.items():
            error = refusal(client.triton.load_model, model, config=config, files=files)
            assert error.status() == INVALID[protocol], (name, error.message())
            for word in words:
                assert word in error.message(), (name, error.message())
        assert os.listdir(scratch) == []
        assert states(client) == {"1": "READY", "2": "READY"}
        assert client.triton.is_server_ready()
        assert_serves(client, "2")


def test_a_file_that_is_not_base64_is_refused(repository):
    with served.serve("tract", repository=repository) as server:
        body = {"parameters": {"config": CONFIG, "file:1/model.onnx": "?"}}
        reply = request(server.http, "POST", "/v2/repository/models/made/load", body)
    assert reply.status == 400
    assert "base64" in reply.json["error"]


@pytest.mark.parametrize("mode", ["explicit", "watch"])
@pytest.mark.parametrize("turn", range(3))
def test_a_signal_in_the_middle_of_loads_ends_in_order(tmp_path, mode, turn):
    """`serve` expects the exit code 0."""
    names = [f"digits_{number}" for number in range(8)]
    for name in names:
        shutil.copytree(served.REPOSITORY / "digits", tmp_path / name)
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        with served.serve("onnxruntime", "--model-control", mode, *SETTLE, repository=tmp_path) as server:
            loaded = server.log.count('what="loaded"')
            for name in names:
                (tmp_path / name / "model.toml").write_text("instances = 3\n")
                # Whether it is answered does not matter here.
                pool.submit(request, server.http, "POST", f"/v2/repository/models/{name}/load")
            # The first is through, others are not.
            eventually(lambda: server.log.count('what="loaded"') > loaded)
