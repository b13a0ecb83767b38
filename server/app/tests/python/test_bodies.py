"""Bodies that are the bytes of an input, comma-separated values, or JSON alone, where a model.toml says so."""

import json
import pathlib
import shutil

import numpy as np
import pytest

import reference
import served
import torchserve_client
from clients import SECONDS_MAX, request

MODELS = {
    "bytes": ("diabetes", "2", 'kind = "bytes"\n'),
    "csv": ("breast_cancer", "1", 'kind = "csv"\n'),
    "headless": ("diabetes", "2", 'kind = "csv"\nheader = false\n'),
    "rows": ("diabetes", "2", 'kind = "rows"\n'),
}
ROWS = reference.rows("diabetes", "2", 3, seed=5)["measurements"]
PROGRESSION = reference.expected("diabetes", "2", {"measurements": ROWS})["progression"]


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def server(request, tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    for name, (model, version, section) in MODELS.items():
        add(repository / name, model, version, section)
    with served.serve(request.param, repository=repository) as running:
        yield running


def add(directory: pathlib.Path, model: str, version: str, section: str) -> None:
    (directory / "1").mkdir(parents=True)
    shutil.copy(reference.path(model, version), directory / "1" / "model.onnx")
    (directory / "model.toml").write_text("[input]\n" + section)


def predict(server, model: str, body: bytes, content_type: str):
    """Over REST, and the same over gRPC, which has no content types."""
    reply = request(server.http, "POST", f"/predictions/{model}", body, {"Content-Type": content_type})
    assert reply.status == 200, reply.body
    with torchserve_client.inference(server.grpc) as stub:
        question = torchserve_client.request(model, {"data": body})
        assert json.loads(stub.Predictions(question, timeout=SECONDS_MAX).prediction) == reply.json
    return reply.json


def refusal(server, model: str, body: bytes, content_type: str) -> str:
    reply = request(server.http, "POST", f"/predictions/{model}", body, {"Content-Type": content_type})
    assert reply.status == 400, reply.body
    return reply.json["message"]


def csv(rows: np.ndarray) -> bytes:
    return "".join(",".join(str(value) for value in row) + "\n" for row in rows).encode()


def test_bytes_of_one_row_and_of_several(server):
    one = predict(server, "bytes", ROWS[0].tobytes(), "application/octet-stream")
    np.testing.assert_allclose(one, PROGRESSION[0], rtol=1e-5)
    np.testing.assert_allclose(
        predict(server, "bytes", ROWS.tobytes(), "application/octet-stream"), PROGRESSION, rtol=1e-5
    )
    # The first of these floats begins like a list.
    bracket = np.frombuffer(b"[]]]" * 10, dtype=np.float32)
    wanted = reference.expected("diabetes", "2", {"measurements": bracket.reshape(1, 10)})["progression"][0]
    np.testing.assert_allclose(predict(server, "bytes", bracket.tobytes(), "text/plain"), wanted, rtol=1e-5)
    json_rows = request(
        server.http, "POST", "/predictions/bytes", ROWS.tolist(), {"Content-Type": "application/json"}
    )
    np.testing.assert_allclose(json_rows.json, PROGRESSION, rtol=1e-5)
    assert "expected 40, or a multiple" in refusal(server, "bytes", ROWS.tobytes()[:-4], "application/octet-stream")
    assert "got 0" in refusal(server, "bytes", b"", "application/octet-stream")


def test_comma_separated_values_by_name(server):
    columns = reference.rows("breast_cancer", "1", 4, seed=6)
    wanted = reference.expected("breast_cancer", "1", columns)
    names = list(reversed(columns))
    lines = csv(np.hstack([columns[name] for name in names]))
    head = ",".join(names).encode() + b"\n"
    answers = predict(server, "csv", head + lines, "text/csv")
    assert [answer["output_label"] for answer in answers] == [str(label) for label in wanted["output_label"]]
    for answer, probability in zip(answers, wanted["output_probability"]):
        np.testing.assert_allclose(answer["output_probability"], probability, rtol=1e-5)
    assert "has no column" in refusal(server, "csv", b"a,b\n1,2\n", "text/csv")


def test_comma_separated_values_in_order(server):
    for content_type in ("text/csv", "application/octet-stream", "application/x-www-form-urlencoded"):
        np.testing.assert_allclose(predict(server, "headless", csv(ROWS), content_type), PROGRESSION, rtol=1e-5)
    rows = json.dumps(ROWS.tolist()).encode()
    np.testing.assert_allclose(predict(server, "headless", rows, "application/json"), PROGRESSION, rtol=1e-5)
    assert "UTF-8" in refusal(server, "headless", b"\xff", "text/csv")


def test_json_alone(server):
    rows = json.dumps(ROWS.tolist()).encode()
    for content_type in ("application/json", "application/octet-stream", "text/plain"):
        np.testing.assert_allclose(predict(server, "rows", rows, content_type), PROGRESSION, rtol=1e-5)
    assert "malformed JSON" in refusal(server, "rows", ROWS[0].tobytes(), "application/octet-stream")
