"""KServe's own client. Its messages and those of Triton's clients have the same names, which one process can load once,
so that what it must get is checked in another."""

import os
import pathlib
import re
import subprocess
import sys

CHECKS = pathlib.Path(__file__).with_name("kserve_checks.py")
SECONDS_MAX = 600


def test_the_client_of_kserve(server):
    environment = os.environ | {"SERVER_HTTP": server.http, "SERVER_GRPC": server.grpc}
    command = [sys.executable, "-s", "-m", "pytest", str(CHECKS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 20, done.stdout
