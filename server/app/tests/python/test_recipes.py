"""The recipes of loadtest/ that Go's client installs the programs for, against a running server."""

import json
import shutil
import subprocess

import pytest

import served

RECIPES = served.ROOT / "loadtest" / "recipes"
# Go compiles its standard library the first time.
SECONDS_MAX = 600


def run(recipe: str, *arguments: str) -> str:
    """Its standard output."""
    if not shutil.which("go"):
        pytest.skip("Go is not installed")
    done = subprocess.run([RECIPES / recipe, *arguments], capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_grpcurl(server):
    text = run("grpcurl.sh", server.grpc)
    assert "inference.GRPCInferenceService" in text and '"SERVING"' in text and '"progression"' in text


def test_ghz(server):
    report = json.loads(run("ghz.sh", server.grpc, "--total", "500", "--concurrency", "8", "--format", "json"))
    assert report["count"] == 500
    assert report["statusCodeDistribution"] == {"OK": 500}
