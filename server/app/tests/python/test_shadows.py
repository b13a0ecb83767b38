"""Shadows as operators meet them: two real versions compared on live requests, checked by asking both of them here."""

import json
import shutil
import subprocess

import numpy
import pytest

import reference
import served
from clients import request
from served import eventually
from test_routes import xxh64

SALT = "risk"
ROUTES = """
[routes.risk]
arms = [{ name = "control", model = "diabetes", version = 1, weight = 100 }]

[[routes.risk.shadows]]
name = "next"
model = "diabetes"
version = 2
keep_inputs = true

[[routes.risk.shadows]]
name = "twin"
model = "twin"
percent = 30
"""


@pytest.fixture
def server(tmp_path):
    shutil.copytree(served.REPOSITORY / "diabetes", tmp_path / "diabetes")
    # The same contents as the control, as another model.
    shutil.copytree(served.REPOSITORY / "diabetes" / "1", tmp_path / "twin" / "1")
    (tmp_path / "routes.toml").write_text(ROUTES)
    with served.serve("tract", repository=tmp_path) as server:
        yield server


def infer(server: served.Server, path: str, inputs, headers=None):
    reply = request(server.http, "POST", f"/v2/models/{path}/infer", {"inputs": inputs}, headers)
    assert reply.status == 200, reply.body
    return reply.json


def inputs(rows: int, seed: int):
    arrays = reference.rows("diabetes", "1", rows, seed=seed)
    return [
        {"name": name, "shape": list(array.shape), "datatype": "FP32", "data": array.ravel().tolist()}
        for name, array in arrays.items()
    ]


def mismatches(server: served.Server):
    """Of each shadow, by name."""
    reply = request(server.http, "GET", "/v1/admin/routes/risk/mismatches")
    assert reply.status == 200, reply.body
    return {shadow["shadow"]: shadow for shadow in reply.json["shadows"]}


def total(counts) -> int:
    """Every request that was to be mirrored, once it has come to an end."""
    return sum(value for name, value in counts.items() if name not in ("mismatch_rate", "last_error"))


def is_mirrored(key: bytes, shadow: bytes, percent: float) -> bool:
    """The README's formula."""
    seed = xxh64(shadow, xxh64(b"shadow", xxh64(SALT.encode(), 0)))
    return ((xxh64(key, seed) >> 12) + 0.5) / 2**52 < percent / 100


def test_two_versions_are_compared_and_clients_are_answered_by_one(server):
    keys = [f"user-{number}" for number in range(40)]
    for number, key in enumerate(keys):
        answer = infer(server, "risk", inputs(2, seed=number), {"X-Routing-Key": key})
        assert answer["model_version"] == "1"
    expected = {"next": len(keys), "twin": sum(is_mirrored(key.encode(), b"twin", 30) for key in keys)}
    assert 0 < expected["twin"] < len(keys)
    eventually(lambda: {name: total(shadow["counts"]) for name, shadow in mismatches(server).items()} == expected)

    # On a machine that is busy most may have been shed: some are waited for.
    def compared(name: str, least: int = 3):
        infer(server, "risk", inputs(2, seed=99), {"X-Routing-Key": keys[0]})
        counts = mismatches(server)[name]["counts"]
        return counts["matched"] + counts["mismatched"] >= least

    keys.sort(key=lambda key: not is_mirrored(key.encode(), b"twin", 30))
    eventually(lambda: compared("next"))
    eventually(lambda: compared("twin"))
    found = mismatches(server)
    assert found["twin"]["counts"]["mismatch_rate"] == 0 and found["twin"]["mismatches"] == []
    assert found["next"]["counts"]["mismatch_rate"] == 1
    for counts in (found[name]["counts"] for name in found):
        assert (counts["shadow_failed"], counts["primary_failed"], counts["last_error"]) == (0, 0, "")

    statistics = request(server.http, "GET", "/v2/models/diabetes/versions/2/stats").json["model_stats"]
    assert [entry["inference_count"] for entry in statistics] == [0], "nobody asked version 2"
    for mismatch in found["next"]["mismatches"]:
        assert (mismatch["primary_version"], mismatch["shadow_version"]) == (1, 2)
        assert len(mismatch["prediction_id"]) == 32
        [told] = mismatch["outputs"]
        answers = [infer(server, f"diabetes/versions/{version}", mismatch["inputs"])["outputs"] for version in (1, 2)]
        one, other = ({output["name"]: numpy.array(output["data"]) for output in outputs} for outputs in answers)
        apart = numpy.abs(other[told["name"]] - one[told["name"]])
        assert told["elements"] == apart.size and told["fault"] == ""
        assert told["absolute"] == pytest.approx(apart.max(), rel=1e-5)
        assert told["differing"] == (apart > 1e-5 + 1e-5 * numpy.abs(one[told["name"]])).sum()


def test_the_command_the_messages_and_the_metrics_say_the_same(server):
    def compared():
        infer(server, "risk", inputs(1, seed=1))
        return mismatches(server)["next"]["counts"]["mismatched"] >= 2

    eventually(compared)
    eventually(lambda: is_settled(server))
    command = [served.binary(), "routes", "mismatches", "risk", "--server", server.grpc]
    told = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout
    assert json.loads(told)["shadows"] == list(mismatches(server).values())
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "shadow next: " in table and "diabetes@1 diabetes@2" in table, table

    route = request(server.http, "GET", "/v1/admin/routes/risk").json
    assert [shadow["counts"] for shadow in route["shadows"]] == [
        shadow["counts"] for shadow in mismatches(server).values()
    ]
    metrics = request(server.http, "GET", "/metrics").body.decode()
    for name, shadow in mismatches(server).items():
        for outcome in ("matched", "mismatched", "no_room", "no_core"):
            line = f'gristmill_shadow_requests_total{{route="risk",shadow="{name}",outcome="{outcome}"}}'
            assert f'{line} {shadow["counts"][outcome]}' in metrics
    missing = request(server.http, "GET", "/v1/admin/routes/none/mismatches")
    assert missing.status == 404, missing.body


def is_settled(server: served.Server) -> bool:
    """Nothing waits for a shadow any more: every request was to go to the first of them."""
    answered = request(server.http, "GET", "/v2/models/diabetes/versions/1/stats").json["model_stats"]
    return total(mismatches(server)["next"]["counts"]) == answered[0]["inference_stats"]["success"]["count"]
