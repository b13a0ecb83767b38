"""The examples of the README, run as a new user would, give the answers that it prints.

An example is a fenced block below `<!-- example: NAME -->`, its answer the fenced block below `<!-- answer: NAME -->`.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest

import served

README = served.ROOT / "README.md"
BLOCK = re.compile(r"<!-- (example|answer): ([\w-]+) -->\s*\n```(\w*)\n(.*?)\n```", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
# Measured anew each time, or different by release.
VOLATILE = {"latency_ms", "server_version", "goodput_per_second"}
SECONDS_MAX = 60
# Go compiles its standard library the first time.
INSTALL_SECONDS_MAX = 600


def blocks(kind: str) -> dict[str, tuple[str, str]]:
    """Language and text of each block by its name."""
    found = BLOCK.findall(README.read_text())
    return {name: (language, text) for role, name, language, text in found if role == kind}


def test_every_example_has_an_answer():
    assert blocks("example")
    assert blocks("example").keys() == blocks("answer").keys()


@pytest.fixture(params=["onnxruntime", "tract"])
def newcomer(request, tmp_path):
    """A server as a new user has it, and the directory that holds its `models`, for examples that change them."""
    shutil.copytree(served.REPOSITORY, tmp_path / "models")
    with served.serve(request.param, "--settle-time", "50ms", repository=tmp_path / "models") as running:
        yield running, tmp_path


@pytest.mark.parametrize("name", blocks("example"))
def test_example(newcomer, name):
    server, directory = newcomer
    language, text = blocks("example")[name]
    text = text.replace("127.0.0.1:8000", server.http).replace("localhost:8000", server.http)
    text = text.replace("127.0.0.1:8001", server.grpc).replace("localhost:8001", server.grpc)
    text = text.replace("127.0.0.1:8002", server.metrics).replace("localhost:8002", server.metrics)
    if "grpcurl" in text:
        text = f'grpcurl() {{ "{grpcurl()}" "$@"; }}\n{text}'
    if language == "bash":
        text = f'gristmill() {{ "{served.binary()}" "$@"; }}\n{text}'
    command = [sys.executable, "-s", "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRISTMILL_")}
    environment["GRISTMILL_SERVER"] = server.grpc
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX
    )
    assert done.returncode == 0, done.stderr
    assert_similar(done.stdout, blocks("answer")[name][1])


def grpcurl() -> str:
    """The installed program, or one that Go installs."""
    if installed := shutil.which("grpcurl"):
        return installed
    if not shutil.which("go"):
        pytest.skip("grpcurl is not installed, nor is Go to do it")
    get = [served.ROOT / ".ci" / "get-go-program", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"]
    done = subprocess.run(get, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_similar(actual: str, wanted: str) -> None:
    """JSON is compared by value, other text word by word; numbers may differ in the last digits that are printed."""
    try:
        actual_value, wanted_value = json.loads(actual), json.loads(wanted)
    except ValueError:
        words = [NUMBER.sub("#", " ".join(text.split())) for text in (actual, wanted)]
        assert words[0] == words[1], actual
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (actual, wanted)]
        assert all(map(close, *numbers)), actual
    else:
        assert same_json(actual_value, wanted_value), actual


def same_json(actual, wanted) -> bool:
    if isinstance(wanted, dict) and isinstance(actual, dict):
        if actual.keys() != wanted.keys():
            return False
        return all(key in VOLATILE or same_json(actual[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(actual, list):
        return len(actual) == len(wanted) and all(map(same_json, actual, wanted))
    if isinstance(wanted, float) or isinstance(actual, float):
        return isinstance(actual, int | float) and close(actual, wanted)
    return actual == wanted


def close(actual: float, wanted: float) -> bool:
    return math.isclose(actual, wanted, rel_tol=1e-4, abs_tol=1e-4)
