"""One server per backend for the whole run: every test sees both unless it asks for less."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pytest

import served


@pytest.fixture(scope="session", params=["onnxruntime", "tract"])
def server(request):
    with served.serve(request.param) as running:
        yield running
