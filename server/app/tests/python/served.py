"""Starts the real server on free loopback ports, waits until it is ready, and stops it as an operator would."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[4]
REPOSITORY = ROOT / "models"
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30


@dataclasses.dataclass(frozen=True)
class Server:
    """Addresses are `host:port`. `log` is what the process wrote so far to standard output and error."""

    backend: str
    pid: int
    http: str
    grpc: str
    metrics: str
    log_file: pathlib.Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@functools.cache
def binary() -> str:
    """GRISTMILL_BIN, or else what cargo builds here."""
    if path := os.environ.get("GRISTMILL_BIN"):
        return os.path.abspath(path)
    build = ["cargo", "build", "--locked", "--package", "gristmill", "--bin", "gristmill", "--message-format=json"]
    messages = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = (json.loads(line) for line in messages.splitlines())
    [path] = [artifact["executable"] for artifact in artifacts if artifact.get("executable")]
    return path


@contextlib.contextmanager
def serve(
    backend: str,
    *flags: str,
    repository: pathlib.Path = REPOSITORY,
    ready_seconds_max: float = READY_SECONDS_MAX,
    **variables: str,
):
    """Yields a ready `Server` that has tried every version, and expects it to exit with 0 when it is told to stop.

    `variables` are added to its environment.
    """
    with tempfile.TemporaryDirectory() as directory:
        ready_file = pathlib.Path(directory) / "ready.json"
        log_file = pathlib.Path(directory) / "log"
        command = [binary(), "serve", "--repository", str(repository), "--backend", backend]
        command += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
        command += ["--ready-file", str(ready_file), "--lame-duck", "0s", *flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRISTMILL_")}
        environment |= variables
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            addresses = wait_until_ready(process, ready_file, log_file, ready_seconds_max)
            eventually(lambda: not is_loading(addresses["http"]), ready_seconds_max)
            yield Server(backend, process.pid, log_file=log_file, **addresses)
            if process.poll() is not None:
                raise AssertionError(f"the server ended by itself with {process.returncode}:\n{log_file.read_text()}")
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS_MAX)
            assert code == 0, f"exit code {code} after SIGTERM:\n{log_file.read_text()}"
        finally:
            process.kill()
            process.wait()


def is_loading(http: str) -> bool:
    """A server is ready when each model has one version; others may still be on their way."""
    index = urllib.request.Request(f"http://{http}/v2/repository/index", data=b"{}", method="POST")
    with urllib.request.urlopen(index) as reply:
        return any(entry["state"] == "LOADING" for entry in json.load(reply))


def eventually(condition, seconds_max: float = 30, every: float = 0.01):
    """Asks until the answer is true, and returns it; `every` so many seconds."""
    deadline = time.monotonic() + seconds_max
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds_max} s"
        time.sleep(every)
    return answer


def wait_until_ready(
    process: subprocess.Popen, ready_file: pathlib.Path, log_file: pathlib.Path, seconds_max: float
) -> dict[str, str]:
    deadline = time.monotonic() + seconds_max
    while not ready_file.exists():
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{log_file.read_text()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not ready within {seconds_max} s:\n{log_file.read_text()}")
        time.sleep(0.01)
    addresses = json.loads(ready_file.read_text())
    return {name: addresses[name] for name in ("http", "grpc", "metrics")}
