"""Routes as clients meet them: which arm a key gets, computed again here from the README's formula alone."""

import json
import math
import shutil

import pytest

import reference
import served
from clients import Client, request
from served import eventually

KEYS = [f"user-{number}" for number in range(300)] + ["", "å", "a longer key, of more than thirty-two bytes in all"]
SALT = "checkout-2026"
WEIGHTS = {"control": 60, "candidate": 29.75, "third": 10.25}
ROUTES = f"""
[routes.risk]
key = "%s"
salt = "{SALT}"
arms = [
    {{ name = "control", model = "diabetes", version = 1, weight = 60 }},
    {{ name = "candidate", model = "diabetes", version = 2, weight = 29.75 }},
    {{ name = "third", model = "diabetes", version = 1, weight = 10.25 }},
]
"""
VERSION = {"control": "1", "candidate": "2", "third": "1"}

PRIMES = (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261)
MASK = (1 << 64) - 1


def xxh64(data: bytes, seed: int) -> int:
    """XXH64 as its specification describes it (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md)."""
    one, two, three, four, five = PRIMES

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & MASK

    def stir(accumulator: int, lane: int) -> int:
        return rotate((accumulator + lane * two) & MASK, 31) * one & MASK

    def number(start: int, length: int) -> int:
        return int.from_bytes(data[start : start + length], "little")

    place = 0
    if len(data) >= 32:
        lanes = [(seed + one + two) & MASK, (seed + two) & MASK, seed, (seed - one) & MASK]
        while place + 32 <= len(data):
            lanes = [stir(lane, number(place + 8 * index, 8)) for index, lane in enumerate(lanes)]
            place += 32
        hashed = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & MASK
        for lane in lanes:
            hashed = ((hashed ^ stir(0, lane)) * one + four) & MASK
    else:
        hashed = (seed + five) & MASK
    hashed = (hashed + len(data)) & MASK
    while place + 8 <= len(data):
        hashed = (rotate(hashed ^ stir(0, number(place, 8)), 27) * one + four) & MASK
        place += 8
    if place + 4 <= len(data):
        hashed = (rotate(hashed ^ number(place, 4) * one & MASK, 23) * two + three) & MASK
        place += 4
    for byte in data[place:]:
        hashed = rotate(hashed ^ byte * five & MASK, 11) * one & MASK
    hashed = (hashed ^ hashed >> 33) * two & MASK
    hashed = (hashed ^ hashed >> 29) * three & MASK
    return hashed ^ hashed >> 32


def arm_of(key: bytes) -> str:
    """The README's formula."""

    def score(arm: str) -> float:
        seed = xxh64(arm.encode(), xxh64(SALT.encode(), 0))
        unit = ((xxh64(key, seed) >> 12) + 0.5) / 2**52
        return -math.log(unit) / WEIGHTS[arm]

    return min(WEIGHTS, key=score)


@pytest.fixture
def repository(tmp_path):
    shutil.copytree(served.REPOSITORY / "diabetes", tmp_path / "diabetes")
    return tmp_path


def body(**more):
    inputs = reference.rows("diabetes", "1", 1, seed=7)
    tensors = [
        {"name": name, "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        for name, rows in inputs.items()
    ]
    return {"inputs": tensors, **more}


def ask(server: served.Server, headers=None, **more):
    """Arm, version and prediction id of one request over HTTP, which its headers and its parameters agree on."""
    reply = request(server.http, "POST", "/v2/models/risk/infer", body(**more), headers)
    assert reply.status == 200, reply.body
    about = reply.json["parameters"]
    said = {name: reply.headers[f"x-gristmill-{name}"] for name in ("route", "arm", "version", "prediction-id")}
    assert said["route"] == about["gristmill_route"] == "risk"
    assert said["arm"] == about["gristmill_arm"]
    assert said["version"] == f"{reply.json['model_name']}:{reply.json['model_version']}"
    assert said["prediction-id"] == about["gristmill_prediction_id"]
    assert reply.json["model_version"] == VERSION[said["arm"]]
    return said["arm"], said["prediction-id"]


def test_the_hash_is_xxh64():
    assert xxh64(b"", 0) == 0xEF46DB3751D8E999
    assert xxh64(b"a", 0) == 0xD24EC4F1A98C6E5B
    assert xxh64(b"Nobody inspects the spammish repetition", 0) == 0xFBCEA83C8A378BF1


def test_keys_in_a_header_are_dealt_as_documented(repository):
    (repository / "routes.toml").write_text(ROUTES % "header")
    with served.serve("tract", repository=repository) as server:
        arms = set()
        for key in KEYS:
            headers = {"X-Routing-Key": key.encode()} if key else {}
            arm, prediction = ask(server, headers)
            assert arm == arm_of(key.encode() or bytes.fromhex(prediction)), key
            arms.add(arm)
        assert arms == set(WEIGHTS)


def test_keys_in_parameters_and_ids_are_dealt_alike(repository):
    routes = repository / "routes.toml"
    routes.write_text(ROUTES % "parameter:user_id")
    with served.serve("tract", "--settle-time", "50ms", repository=repository) as server:
        for key in [*KEYS[:20], 42, -7, True]:
            text = json.dumps(key).strip('"')
            assert ask(server, parameters={"user_id": key})[0] == arm_of(text.encode()), key
        for key in KEYS[:20]:
            assert ask_grpc(server, parameters={"user_id": key}) == arm_of(key.encode())
        assert ask_grpc(server, parameters={"user_id": 42}) == arm_of(b"42")

        routes.write_text(ROUTES % "request_id")
        route = lambda: request(server.http, "GET", "/v1/admin/routes/risk").json
        eventually(lambda: route()["key"] == "request_id")
        for key in KEYS[:20]:
            assert ask(server, id=key)[0] == arm_of(key.encode())
            assert ask_grpc(server, request_id=key) == arm_of(key.encode())


def test_headers_that_are_forwarded_count_as_parameters(repository):
    (repository / "routes.toml").write_text(ROUTES % "parameter:user-id")
    flags = ["--http-header-forward-pattern", "user-.*", "--grpc-header-forward-pattern", "user-id"]
    with served.serve("tract", *flags, repository=repository) as server:
        for key in KEYS[:20]:
            assert ask(server, {"User-Id": key.encode()})[0] == arm_of(key.encode()), key
            assert ask_grpc(server, headers={"user-id": key}) == arm_of(key.encode()), key
        # What the request says itself counts.
        assert ask(server, {"User-Id": b"other"}, parameters={"user-id": KEYS[0]})[0] == arm_of(KEYS[0].encode())


def ask_grpc(server: served.Server, **options) -> str:
    """The arm of one request over gRPC, from the answer's parameters."""
    with Client(server, "grpc") as client:
        inputs = reference.rows("diabetes", "1", 1, seed=7)
        tensors = [client.input(name, value) for name, value in inputs.items()]
        response = client.triton.infer("risk", tensors, **options).get_response()
        said = {name: value.string_param for name, value in response.parameters.items()}
        assert said["gristmill_route"] == "risk"
        assert len(bytes.fromhex(said["gristmill_prediction_id"])) == 16
        assert response.model_version == VERSION[said["gristmill_arm"]]
        return said["gristmill_arm"]


def test_metadata_carries_the_key_and_what_was_chosen(repository):
    (repository / "routes.toml").write_text(ROUTES % "header")
    with served.serve("tract", repository=repository) as server:
        for key in KEYS[:20]:
            assert ask_grpc(server, headers={"x-routing-key": key}) == arm_of(key.encode())


def test_every_dialect_can_ask_a_route(repository):
    (repository / "routes.toml").write_text(ROUTES % "header")
    [rows] = reference.rows("diabetes", "1", 2, seed=7).values()
    headers = {"X-Routing-Key": "user-1", "Content-Type": "application/json"}
    arm = arm_of(b"user-1")
    with served.serve("tract", repository=repository) as server:
        for path, asked in [
            ("/v1/models/risk:predict", {"instances": rows.tolist()}),
            ("/predict/risk", {"instances": rows.tolist()}),
            ("/predictions/risk", rows.tolist()),
            ("/endpoints/risk/invocations", {"instances": rows.tolist()}),
        ]:
            reply = request(server.http, "POST", path, asked, headers)
            assert reply.status == 200, (path, reply.body)
            assert reply.headers["x-gristmill-arm"] == arm
            assert reply.headers["x-gristmill-version"] == f"diabetes:{VERSION[arm]}"
        assert request(server.http, "GET", "/v2/models/risk").json["name"] == "risk"
        assert request(server.http, "GET", "/v2/models/risk/ready").status == 200
        assert request(server.http, "POST", "/v2/models/risk/versions/1/infer", body()).status == 404
