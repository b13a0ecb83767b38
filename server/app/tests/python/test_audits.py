"""Batches that are run again row by row while a model serves: what samples did not show is found, told and ended."""

import concurrent.futures

import numpy as np
import onnx
import onnx.parser
import pytest

import served
from clients import Client, request

THREADS = 8
SECONDS_MAX = 120
# Beyond what samples have, which end with half precision.
LARGE = 1e6

# A value above 100000 in any row is added to all rows. How a sequence keeps rows apart is not followed in the graph.
MIXES_BESIDE_LARGE_ROWS = """
    <ir_version: 8, opset_import: ["": 17]>
    mixer (float[N, 4] x) => (float[N, 4] y) <float limit = {100000.0}> {
        columns = SplitToSequence <axis = 1> (x)
        same = ConcatFromSequence <axis = 1> (columns)
        largest = ReduceMax <keepdims = 0> (same)
        is_large = Greater(largest, limit)
        more = Cast <to = 1> (is_large)
        y = Add(same, more)
    }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("audited")
    for name, audit in (("audited", 1.0), ("unaudited", 0.0)):
        version = repository / name / "1"
        version.mkdir(parents=True)
        onnx.save(onnx.parser.parse_model(MIXES_BESIDE_LARGE_ROWS), version / "model.onnx")
        settings = f'batching = {{ delay = "2ms", audit = {audit} }}\n'
        (repository / name / "model.toml").write_text(settings)
    with served.serve("onnxruntime", repository=repository) as running:
        yield running


def rows_max(server: served.Server, model: str) -> int:
    return int(request(server.http, "GET", f"/v2/models/{model}/latency-model").json["batch_rows_max"])


def failing(server: served.Server) -> list[str]:
    return request(server.http, "GET", "/v2/health/ready").json.get("failing", [])


def ask_together(server: served.Server, model: str) -> list[bool]:
    """Whether each of several requests at a time, one of which has large values, gets its own answer."""

    def ask(thread: int) -> bool:
        row = np.full((1, 4), LARGE if thread == 0 else thread, np.float32)
        with Client(server, "grpc") as client:
            answers = [client.infer(model, {"x": row}).outputs["y"] for _ in range(10)]
        wanted = row + (1 if thread == 0 else 0)
        return all(np.array_equal(answer, wanted) for answer in answers)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(ask, range(THREADS)))


def audits(server: served.Server, model: str) -> dict[str, float]:
    lines = request(server.metrics, "GET", "/metrics").body.decode().splitlines()
    start = f'gristmill_batch_audits_total{{model="{model}",version="1",outcome="'
    ours = [line.removeprefix(start).split('"} ') for line in lines if line.startswith(start)]
    return {outcome: float(count) for outcome, count in ours}


def test_a_model_that_mixes_rows_is_caught_while_it_serves(server):
    served.eventually(lambda: rows_max(server, "audited") > 1, SECONDS_MAX)

    def is_caught():
        ask_together(server, "audited")
        return failing(server)

    [fault] = served.eventually(is_caught, SECONDS_MAX)
    assert fault.startswith("model 'audited': version 1: each request runs alone: output 'y' of row ")
    assert "is allowed (SplitToSequence" in fault
    assert rows_max(server, "audited") == 1
    assert all(ask_together(server, "audited"))
    assert audits(server, "audited")["different"] >= 1
    # The thread in the background writes it when it has a core.
    [line] = served.eventually(
        lambda: [line for line in server.log.splitlines() if "in a batch than alone" in line], SECONDS_MAX
    )
    assert "ERROR" in line and "1000000" not in line
    index = request(server.http, "POST", "/v2/repository/index", {}).json
    assert {entry["name"]: entry.get("reason", "") for entry in index}["audited"] in fault


def test_an_audit_of_nothing_finds_nothing(server):
    served.eventually(lambda: rows_max(server, "unaudited") > 1, SECONDS_MAX)
    ask_together(server, "unaudited")
    assert audits(server, "unaudited") == {}
    assert not [fault for fault in failing(server) if "unaudited" in fault]
