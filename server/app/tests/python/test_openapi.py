"""The document at /openapi.json is valid OpenAPI 3.1, and nothing that it allows, or forbids, makes the server fail.

schemathesis makes requests from the document, from a fixed seed: its examples, and random ones that are as the schemas
say or not. Those tests take minutes and are run by `make test-openapi`.
"""

import re
import shutil
import subprocess
import sys
import tempfile

import openapi_spec_validator
import pytest

import reference
import served
from clients import request

SEED = 20261121
EXAMPLES_PER_OPERATION = 5
SECONDS_MAX = 1200
# Whoever may give orders can take a model away, and what is asked of it then is honestly answered with 503.
ORDERS = r"/(load|unload|rollback|label)$|^/models(/\{model\}(/\{version\}(/set-default)?)?)?$"
# Answered with 501 as long as there are no explainers, and where no memory of GPUs may be registered.
UNSUPPORTED = r":explain$|^/explanations/|^/v2/cudasharedmemory/region/\{region\}/register$"


def document(server) -> dict:
    reply = request(server.http, "GET", "/openapi.json")
    assert reply.status == 200
    return reply.json


def test_the_document_is_valid(server):
    openapi_spec_validator.validate(document(server), cls=openapi_spec_validator.OpenAPIV31SpecValidator)


def test_every_model_is_described(server):
    paths = document(server)["paths"]
    for model in {model for model, _ in reference.MODELS}:
        body = paths[f"/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
        metadata = request(server.http, "GET", f"/v2/models/{model}").json
        about = [(tensor["name"], tensor["datatype"], len(tensor["shape"])) for tensor in metadata["inputs"]]
        assert [(tensor["name"], tensor["datatype"], len(tensor["shape"])) for tensor in body["inputs"]] == about


def test_every_example_is_answered(server):
    answered = 0
    for path, methods in document(server)["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            reply = request(server.http, "POST", path, content["example"], {"Content-Type": "application/json"})
            assert reply.status == 200, (path, reply.body)
            answered += 1
    assert answered >= 15


@pytest.mark.schemathesis
def test_no_request_makes_the_server_fail():
    with served.serve("tract", "--allow-system-shared-memory") as server:
        schemathesis(server, f"--exclude-path-regex={ORDERS}|{UNSUPPORTED}")


@pytest.mark.schemathesis
def test_no_order_makes_the_server_fail(tmp_path):
    shutil.copytree(served.REPOSITORY, tmp_path / "models")
    with served.serve("tract", repository=tmp_path / "models") as server:
        schemathesis(server, f"--include-path-regex={ORDERS}")


def schemathesis(server, *options: str) -> None:
    command = [sys.executable, "-s", "-m", "schemathesis.cli", "run", f"http://{server.http}/openapi.json"]
    command += ["--checks=not_a_server_error", f"--seed={SEED}", "--phases=examples,fuzzing", "--no-color"]
    command += [f"--max-examples={EXAMPLES_PER_OPERATION}", "--suppress-health-check=all", "--warnings=off", *options]
    # It keeps what it has found where it runs.
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    generated = re.search(r"([\d,]+) generated", done.stdout)
    assert generated and int(generated[1].replace(",", "")) >= 10, done.stdout
