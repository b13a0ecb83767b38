"""Models that mix the rows of a batch are not batched, those that keep them apart are, and no answer has another's values.

ONNX Runtime decides what is asked of the proof: tract cannot run all of these models, but what it runs is answered right.
"""

import collections
import concurrent.futures
import threading

import numpy as np
import onnx
import pytest

import served
from adversarial import CASES, KEEPERS, MIXERS
from adversarial.opened import opened_cases, runnable
from clients import Client, request

THREADS = 16
TURNS = 6
# Samples run in spare time after a version serves.
SETTLED_SECONDS_MAX = 120
# Requests meet in a batch although each run takes some microseconds.
SETTINGS = 'batching = { delay = "1ms" }\n'


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def adversaries(request, tmp_path_factory):
    repository = tmp_path_factory.mktemp("adversaries")
    for case in CASES:
        put(repository, case.name, case.model())
    with served.serve(request.param, repository=repository) as running:
        yield running


def put(repository, name: str, model: onnx.ModelProto) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    onnx.save(model, version / "model.onnx")
    (repository / name / "model.toml").write_text(SETTINGS)


def index(server: served.Server) -> dict[str, dict]:
    entries = request(server.http, "POST", "/v2/repository/index", {}).json
    return {entry["name"]: entry for entry in entries}


def ready(server: served.Server) -> set[str]:
    return {name for name, entry in index(server).items() if entry["state"] == "READY"}


def rows_max(server: served.Server, model: str) -> int:
    """Rows of the largest batch now: one where requests run alone."""
    return int(request(server.http, "GET", f"/v2/models/{model}/latency-model").json["batch_rows_max"])


def is_undecided(server: served.Server, model: str, reason: str) -> bool:
    """Whether samples are still to run: the model may have batches, has none, and nothing says that it must not."""
    may = request(server.http, "GET", f"/v2/models/{model}/config").json["max_batch_size"] > 0
    return may and rows_max(server, model) == 1 and not reason


def settle(server: served.Server) -> None:
    """Waits until each model's samples have run, which they do in time that nothing else wants, so it asks seldom and
    of few."""
    undecided = sorted(ready(server))

    def is_settled():
        reasons = {name: entry.get("reason", "") for name, entry in index(server).items()}
        while undecided and not is_undecided(server, undecided[-1], reasons[undecided[-1]]):
            undecided.pop()
        return not undecided

    served.eventually(is_settled, SETTLED_SECONDS_MAX, every=0.2)


def test_models_that_mix_rows_are_not_batched(adversaries):
    settle(adversaries)
    served_names = ready(adversaries)
    batched = [case.name for case in MIXERS if case.name in served_names and rows_max(adversaries, case.name) > 1]
    assert batched == []
    if adversaries.backend == "onnxruntime":
        assert {case.name for case in MIXERS} <= served_names


def test_models_that_keep_rows_apart_are_batched(adversaries):
    settle(adversaries)
    served_names = ready(adversaries)
    alone = [case.name for case in KEEPERS if case.name in served_names and rows_max(adversaries, case.name) == 1]
    assert alone == []
    if adversaries.backend == "onnxruntime":
        assert {case.name for case in KEEPERS} <= served_names


def test_concurrent_requests_get_their_own_answers(adversaries):
    served_names = ready(adversaries)
    cases = [case for case in CASES if case.name in served_names]
    assert cases
    work = []
    for case in cases:
        generator = np.random.default_rng(7)
        pairs = []
        for _ in range(THREADS * TURNS):
            inputs = case.request(generator, int(generator.integers(1, 4)))
            pairs.append((inputs, case.answer(inputs)))
        work.append((case.name, case.difference, pairs))
    faults = ask_all(adversaries, work)
    # What tract cannot run is refused, at load or when it is asked; what it answers is right.
    failed = faults.pop("failed", [])
    assert not faults
    assert adversaries.backend == "tract" or not failed
    if adversaries.backend == "onnxruntime":
        assert shared_runs(adversaries, [case.name for case in KEEPERS]) > len(KEEPERS) / 2
        assert shared_runs(adversaries, [case.name for case in MIXERS]) == 0


def ask_all(server: served.Server, work) -> dict[str, list[str]]:
    """Each model in turn from all threads at once: wrong answers by model, and requests that failed."""
    everyone = threading.Barrier(THREADS)
    faults = collections.defaultdict(list)

    def ask(thread: int) -> None:
        with Client(server, "grpc") as client:
            for name, difference, pairs in work:
                everyone.wait()
                for inputs, wanted in pairs[thread::THREADS]:
                    try:
                        actual = client.infer(name, inputs).outputs
                    except Exception as error:
                        faults["failed"].append(f"{name}: {error}")
                        continue
                    if found := difference(actual, wanted):
                        faults[name].append(found)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(ask, thread) for thread in range(THREADS)]:
            done.result()
    return dict(faults)


def shared_runs(server: served.Server, names: list[str]) -> int:
    """Of how many models two requests shared a run."""
    shared = 0
    for name in names:
        [statistics] = request(server.http, "GET", f"/v2/models/{name}/stats").json["model_stats"]
        requests = int(statistics["inference_stats"]["success"]["count"])
        shared += int(statistics["execution_count"]) < requests
    return shared


def test_cases_of_the_suite_with_opened_axes(tmp_path):
    work = []
    for number, case in enumerate(opened_cases()):
        if pairs := runnable(case, number, THREADS):
            put(tmp_path, case.name, case.model)
            work.append((case.name, case.difference, pairs))
    with served.serve("onnxruntime", repository=tmp_path) as server:
        settle(server)
        served_names = ready(server)
        work = [item for item in work if item[0] in served_names]
        assert len(work) > 600
        faults = ask_all(server, work)
        faults.pop("failed", None)
        assert not faults
        assert shared_runs(server, [name for name, _, _ in work]) > len(work) / 4
