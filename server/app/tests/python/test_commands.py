"""The program at the prompt: what `check` and `health` say and exit with, and what the server says when it starts."""

import os
import pathlib
import shutil
import socket
import subprocess

import pytest

import reference
import served

SECONDS_MAX = 120


def gristmill(*arguments: str, directory: pathlib.Path = served.ROOT, program: str | None = None, **environment: str):
    """Runs the program to its end, in `directory`, with no settings but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRISTMILL_")}
    return subprocess.run(
        [program or served.binary(), *arguments],
        cwd=directory,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )


@pytest.fixture
def repository(tmp_path):
    """A copy of one example model, to be spoilt."""
    shutil.copytree(served.REPOSITORY / "diabetes", tmp_path / "diabetes")
    return tmp_path


@pytest.mark.parametrize("backend", ["onnxruntime", "tract"])
def test_check_proves_every_version(backend):
    done = gristmill("check", "--repository", str(served.REPOSITORY), "--backend", backend)
    assert done.returncode == 0, done.stdout + done.stderr
    for model, version in reference.MODELS:
        assert f"{model} version {version}: sound" in done.stdout
    for derived in ("mean_radius FP32", "output_probability FP32", "benign, malignant", "batch axis 0"):
        assert derived in done.stdout


def test_check_takes_flags_from_the_environment():
    done = gristmill("check", GRISTMILL_REPOSITORY=str(served.REPOSITORY), GRISTMILL_BACKEND="tract")
    assert done.returncode == 0
    assert "tract" in done.stdout


@pytest.mark.parametrize("backend", ["onnxruntime", "tract"])
def test_check_names_a_spoilt_file(repository, backend):
    path = repository / "diabetes" / "2" / "model.onnx"
    path.write_bytes(path.read_bytes()[:200])
    done = gristmill("check", "--repository", str(repository), "--backend", backend)
    assert done.returncode == 1
    assert "diabetes version 1: sound" in done.stdout
    assert "diabetes version 2: FAULT" in done.stdout
    assert str(path) in done.stdout


def test_check_names_a_faulty_setting(repository):
    (repository / "diabetes" / "model.toml").write_text("instances = 0\n")
    done = gristmill("check", "--repository", str(repository), "--backend", "tract")
    assert done.returncode == 1
    for word in ("model.toml", "instances is 0"):
        assert word in done.stdout


def test_check_of_nothing_fails(tmp_path):
    assert gristmill("check", "--repository", str(tmp_path)).returncode != 0
    missing = gristmill("check", "--repository", str(tmp_path / "nowhere"))
    assert missing.returncode != 0
    assert "nowhere" in missing.stderr


def test_settings_apply(repository):
    (repository / "diabetes" / "model.toml").write_text(
        'backend = "tract"\ninstances = 3\nbatching = { rows_max = 16, delay = "1ms" }\n'
    )
    done = gristmill("check", "--repository", str(repository))
    assert done.returncode == 0, done.stdout
    assert "at most 16 rows" in done.stdout
    assert "instances 3" in done.stdout
    assert "why     tract" in done.stdout


def test_health_follows_the_server(server):
    assert gristmill("health", "--server", server.http).returncode == 0
    assert gristmill("health", GRISTMILL_HTTP=server.http).returncode == 0


def test_health_of_nobody_fails():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        done = gristmill("health", "--server", address)
    assert done.returncode != 0
    assert address in done.stderr


def test_start_up_summary_says_what_is_served_and_where(server):
    for word in (server.http, server.grpc, server.metrics, "breast_cancer", "diabetes", "digits"):
        assert word in server.log


def test_without_onnx_runtime_the_server_says_so_and_serves(tmp_path):
    program = tmp_path / "gristmill"
    shutil.copy2(served.binary(), program)
    done = gristmill(
        "check",
        "--repository",
        str(served.REPOSITORY),
        directory=tmp_path,
        program=str(program),
        ORT_DYLIB_PATH="",
        LD_LIBRARY_PATH="",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if "ONNX Runtime was not found" in line]
    assert "tract" in line
    assert "ORT_DYLIB_PATH" in line


def test_a_port_in_use_is_named(server):
    done = gristmill("serve", "--repository", str(served.REPOSITORY), "--http", server.http)
    assert done.returncode != 0
    assert "--http" in done.stderr
    assert server.http in done.stderr


@pytest.mark.parametrize("command", [[], ["serve"], ["check"], ["health"]])
def test_help_is_a_manual(command):
    done = gristmill(*command, "--help")
    assert done.returncode == 0
    for word in ("Usage:", "Options:") if command else ("Usage:", "Commands:", "serve", "check"):
        assert word in done.stdout
