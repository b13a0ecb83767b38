"""The clients in examples/, run as their README says, print the right answers and a refusal that says what is wrong."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import reference
import served
from test_readme import grpcurl

EXAMPLES = served.ROOT / "examples"
# The rows that every client sends.
ROWS = [[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87], [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]]
NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")
SECONDS_MAX = 60
# Go compiles its standard library the first time.
BUILD_SECONDS_MAX = 600


@pytest.fixture(scope="module")
def example_server():
    with served.serve("onnxruntime") as running:
        yield running


def curl() -> list[str]:
    installed("curl")
    return ["bash", str(EXAMPLES / "shell" / "curl.sh")]


def with_grpcurl() -> list[str]:
    return ["env", f"GRPCURL={grpcurl()}", "bash", str(EXAMPLES / "shell" / "grpcurl.sh")]


def python(name: str) -> list[str]:
    return [sys.executable, "-s", str(EXAMPLES / "python" / name)]


def go(directory: pathlib.Path) -> list[str]:
    program = directory / "client"
    build = [installed("go"), "build", "-o", str(program), "."]
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
    done = subprocess.run(
        build, cwd=EXAMPLES / "go", env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX
    )
    assert done.returncode == 0, done.stderr
    return [str(program)]


def node() -> list[str]:
    return [installed("node"), str(EXAMPLES / "javascript" / "client.mjs")]


def rust() -> list[str]:
    """Built by `cargo test` beside the server."""
    program = pathlib.Path(served.binary()).parent / "examples" / "client"
    if not program.exists():
        pytest.skip(f"{program} is not built: cargo build -p gristmill-proto --example client")
    return [str(program)]


CLIENTS = {
    "curl": (lambda directory: curl(), "http"),
    "grpcurl": (lambda directory: with_grpcurl(), "grpc"),
    "tritonclient": (lambda directory: python("with_tritonclient.py"), "grpc"),
    "kserve": (lambda directory: python("with_kserve.py"), "http"),
    "requests": (lambda directory: python("with_requests.py"), "http"),
    "go": (go, "http"),
    "javascript": (lambda directory: node(), "http"),
    "rust": (lambda directory: rust(), "grpc"),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_client(example_server, tmp_path, client):
    command, protocol = CLIENTS[client]
    address = getattr(example_server, protocol)
    done = subprocess.run([*command(tmp_path), address], capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = np.array([float(number) for number in NUMBER.findall(done.stdout)])
    [wanted] = reference.expected("diabetes", "2", {"measurements": np.array(ROWS, dtype=np.float32)}).values()
    for value in wanted.ravel():
        assert np.isclose(printed, value, rtol=1e-4).any(), done.stdout
    assert "model 'nothing' is not in the repository" in done.stdout, done.stdout


def test_every_client_is_run():
    names = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file()}
    names = {name for name in names if not name.endswith((".md", ".mod"))}
    listed = set(re.findall(r"\]\(([\w/.]+)\)", (EXAMPLES / "README.md").read_text()))
    assert names == listed
    assert len(names) == len(CLIENTS)


def installed(program: str) -> str:
    """The program's path; the test is skipped where it is not installed."""
    if path := shutil.which(program):
        return path
    pytest.skip(f"{program} is not installed")
