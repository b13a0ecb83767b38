"""Triton's generate extension with real models: text in, text out, over plain HTTP, as clients of it send it."""

import json
import shutil

import pytest

import served
from clients import request

FIXTURES = served.ROOT / "server" / "onnx" / "tests" / "fixtures"
WORDS = ["grüße", 'a "quoted"\nline']


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A server with a model that gives its two texts back."""
    repository = tmp_path_factory.mktemp("texts")
    (repository / "texts" / "1").mkdir(parents=True)
    shutil.copy(FIXTURES / "string_pair.onnx", repository / "texts" / "1" / "model.onnx")
    with served.serve("onnxruntime", repository=repository) as server:
        yield server


def test_an_answer_has_the_outputs_by_name(texts):
    reply = request(texts.http, "POST", "/v2/models/texts/generate", {"text": WORDS, "max_tokens": 20})
    assert reply.status == 200
    assert reply.json == {"model_name": "texts", "model_version": "1", "same": WORDS}


def test_a_stream_has_them_in_one_event(texts):
    path = "/v2/models/texts/versions/1/generate_stream"
    reply = request(texts.http, "POST", path, {"id": "7", "parameters": {"text": WORDS}})
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    [event] = reply.body.decode().split("\n\n")[:-1]
    answer = json.loads(event.removeprefix("data: "))
    assert answer == {"id": "7", "model_name": "texts", "model_version": "1", "same": WORDS}


def test_what_is_missing_is_named(texts):
    for method in ("generate", "generate_stream"):
        reply = request(texts.http, "POST", f"/v2/models/texts/{method}", {"words": WORDS})
        assert reply.status == 400
        assert "'text'" in reply.json["error"]
