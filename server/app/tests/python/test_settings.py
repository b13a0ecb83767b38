"""What is logged and what is traced, asked and changed by Triton's own clients while the server runs."""

import socket

import pytest
from tritonclient.utils import InferenceServerException

import served
from clients import Client, request

INVALID = {"grpc": "StatusCode.INVALID_ARGUMENT", "json": "400"}
NOT_FOUND = {"grpc": "StatusCode.NOT_FOUND", "json": "404"}
# Nobody listens there: spans are dropped, requests do not wait for them.
RECEIVER = ("--otlp-endpoint", "http://127.0.0.1:9", "--trace-sample-ratio", "0.25")
ROW = {"features": [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]}
LOG = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "ISO8601",
}


@pytest.fixture(params=["grpc", "json"])
def protocol(request):
    return request.param


@pytest.fixture
def started(protocol):
    with served.serve("tract", *RECEIVER) as server, Client(server, protocol) as client:
        yield server, client


def log_settings(client: Client, changes: dict | None = None) -> dict:
    """After `changes`, which come back in the same form from both clients."""
    triton = client.triton
    if client.protocol == "json":
        return triton.get_log_settings() if changes is None else triton.update_log_settings(changes)
    reply = triton.get_log_settings() if changes is None else triton.update_log_settings(changes)
    return {
        name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in reply.settings.items()
    }


def trace_settings(client: Client, changes: dict | None = None, model: str | None = None) -> dict:
    triton = client.triton
    if changes is None:
        reply = triton.get_trace_settings(model_name=model)
    else:
        reply = triton.update_trace_settings(model_name=model, settings=changes)
    if client.protocol == "json":
        return reply
    values = {name: list(value.value) for name, value in reply.settings.items()}
    return {name: value if name == "trace_level" else value[0] for name, value in values.items()}


def refusal(call, *arguments, **named) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **named)
    return error.value


def speak_nonsense(server) -> None:
    """Which the server says at the level DEBUG."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        connection.recv(1)


def is_traced(server) -> bool:
    return "traceparent" in request(server.http, "POST", "/predict/diabetes", ROW).headers


def test_what_is_logged_changes_while_the_server_runs(started):
    server, client = started
    assert log_settings(client) == LOG
    assert " DEBUG " not in server.log

    assert log_settings(client, {"log_verbose_level": 1}) == LOG | {"log_verbose_level": 1}
    speak_nonsense(server)
    served.eventually(lambda: "DEBUG" in server.log)

    quiet = {"log_verbose_level": 0, "log_info": False, "log_warning": False}
    assert log_settings(client, quiet) == LOG | quiet
    before = server.log
    client.triton.load_model("diabetes")
    assert "INFO" not in server.log[len(before) :]
    assert log_settings(client) == LOG | quiet, "it stays so"


def test_log_settings_that_are_not_there_are_refused_by_name(started):
    _, client = started
    for changes, text in [
        ({"log_file": "/tmp/log", "log_info": False}, "log_file must be ''"),
        ({"log_format": "default"}, "log_format must be 'ISO8601'"),
        ({"log_colour": True}, "unknown log setting 'log_colour'"),
    ]:
        error = refusal(log_settings, client, changes)
        assert error.status() == INVALID[client.protocol]
        assert text in error.message()
    assert log_settings(client) == LOG


def test_what_is_traced_changes_while_the_server_runs(started):
    server, client = started
    start = {"trace_level": ["TIMESTAMPS"], "trace_rate": "4", "trace_count": "-1", "trace_mode": "opentelemetry"}
    assert trace_settings(client) == start
    assert trace_settings(client, {"trace_rate": "1"}) == start | {"trace_rate": "1"}
    assert is_traced(server)
    assert trace_settings(client, {"trace_level": ["OFF"]}) == start | {"trace_rate": "1", "trace_level": ["OFF"]}
    assert not is_traced(server)
    assert trace_settings(client, {"trace_level": None, "trace_rate": None}) == start
    assert trace_settings(client, {"trace_rate": "0"}) == start | {"trace_rate": "0"}
    assert not is_traced(server)


def test_trace_settings_hold_for_all_models(started):
    _, client = started
    assert trace_settings(client, model="diabetes") == trace_settings(client)
    error = refusal(trace_settings, client, {"trace_rate": "1"}, model="diabetes")
    assert (error.status(), "for all models" in error.message()) == (INVALID[client.protocol], True)
    assert refusal(trace_settings, client, model="nothing").status() == NOT_FOUND[client.protocol]


def test_trace_settings_that_are_not_there_are_refused_by_name(started):
    _, client = started
    before = trace_settings(client)
    for changes, text in [
        ({"trace_file": "trace.json"}, "there is no trace setting trace_file"),
        ({"log_frequency": "100"}, "there is no trace setting log_frequency"),
        ({"trace_rate": "1", "trace_level": ["TENSORS"]}, "trace_level must be OFF or TIMESTAMPS"),
        ({"trace_count": "7"}, "trace_count must be -1"),
    ]:
        error = refusal(trace_settings, client, changes)
        assert error.status() == INVALID[client.protocol]
        assert text in error.message()
    assert trace_settings(client) == before


def test_without_a_receiver_nothing_is_traced(server, protocol):
    with Client(server, protocol) as client:
        assert trace_settings(client)["trace_level"] == ["OFF"]
        error = refusal(trace_settings, client, {"trace_level": ["TIMESTAMPS"]})
        assert error.status() == INVALID[protocol]
        assert "--otlp-endpoint" in error.message()
        metadata = client.triton.get_server_metadata()
        extensions = metadata.extensions if protocol == "grpc" else metadata["extensions"]
        assert {"logging", "trace"} <= set(extensions)
