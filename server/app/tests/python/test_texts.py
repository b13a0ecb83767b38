"""What `[input]` of a model.toml makes of texts, beside Python's `tokenizers`, and the answers beside onnxruntime's.

Ids, masks and types are the same to the last one; scores differ by 1e-5 at most.
"""

import functools
import json
import pathlib
import shutil
import subprocess

import grpc
import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

import served
import torchserve_client
from clients import SECONDS_MAX, request

SAMPLES = served.ROOT / "server" / "app" / "tests" / "fixtures" / "texts"
TEXTS = json.loads((SAMPLES / "texts.json").read_text())
LABELS = ["praise", "blame", "question", "other"]
TOLERANCE = 1e-5

# The tokenizer, the model and the section of each model in the repository.
TOKENS = {
    "wordpiece": ("wordpiece", "tokens", ""),
    "unigram": ("unigram", "tokens", ""),
    "bytelevel": ("bytelevel", "tokens", "tokens_max = 512\n"),
    "buckets": ("bytelevel", "tokens", "lengths = [8, 32, 100]\n"),
    "plain": ("wordpiece", "tokens", "tokens_max = 20\nlengths = [20]\nspecial_tokens = false\n"),
    "forty": ("bytelevel", "tokens_of_40", 'ids = "words"\npad_token = "<mask>"\n'),
}
# To which texts are filled up; longer ones of a request to the longest.
LENGTHS = {"buckets": [8, 32, 100], "unigram": [24]}
CLASSIFIER = {
    "text_classifier": f'[output]\nkind = "classes"\nsoftmax = true\ntop = 4\nlabels = {LABELS}\n',
    "best": f'[output]\nkind = "label"\nlabels = {LABELS}\n',
    "scores": "",
}


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def server(request, tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    for name, (tokenizer, model, settings) in TOKENS.items():
        add(repository / name, tokenizer, model, settings)
    for name, output in CLASSIFIER.items():
        add(repository / name, "wordpiece", "classifier", output)
    # One for all versions of a model.
    shutil.move(repository / "best" / "1" / "tokenizer.json", repository / "best" / "tokenizer.json")
    with served.serve(request.param, repository=repository) as running:
        yield running


def add(directory: pathlib.Path, tokenizer: str, model: str, settings: str) -> None:
    (directory / "1").mkdir(parents=True)
    shutil.copy(SAMPLES / f"{model}.onnx", directory / "1" / "model.onnx")
    shutil.copy(SAMPLES / f"{tokenizer}.json", directory / "1" / "tokenizer.json")
    (directory / "model.toml").write_text(f'[input]\nkind = "text"\n{settings}')


@functools.cache
def reference(model: str) -> tuple[Tokenizer, bool]:
    """The tokenizer as the section of `model` sets it, and whether it adds special tokens."""
    tokenizer = Tokenizer.from_file(str(SAMPLES / f"{TOKENS[model][0]}.json"))
    if model == "bytelevel":
        tokenizer.enable_truncation(512)
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    if model == "buckets":
        tokenizer.enable_truncation(100)
    if model == "plain":
        tokenizer.enable_truncation(20)
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]", length=20)
    if model == "forty":
        tokenizer.enable_truncation(40)
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<mask>"), pad_token="<mask>", length=40)
    return tokenizer, model != "plain"


def encode(model: str, texts: list[str]) -> dict[str, np.ndarray]:
    tokenizer, special = reference(model)
    if model in LENGTHS:
        # Python knows one length, and leaves longer texts as they are.
        tokenizer.no_padding()
        longest = max(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))
        length = next((length for length in LENGTHS[model] if length >= longest), longest)
        direction = "left" if model == "unigram" else "right"
        pad_id = tokenizer.token_to_id("<pad>")
        tokenizer.enable_padding(direction=direction, pad_id=pad_id, pad_token="<pad>", length=length)
    encodings = tokenizer.encode_batch(texts, add_special_tokens=special)
    columns = {"ids": "input_ids", "attention_mask": "attention_mask", "type_ids": "token_type_ids"}
    return {name: np.array([getattr(encoding, column) for encoding in encodings]) for column, name in columns.items()}


def given(model: str, texts: list[str]) -> dict[str, np.ndarray]:
    """What a model of `TOKENS` is to give back."""
    inputs = encode(model, texts)
    if model == "forty":
        inputs = {"words": inputs["input_ids"], "input_mask": inputs["attention_mask"]}
    return {f"{name}_given": value for name, value in inputs.items()}


def scores(texts: list[str]) -> np.ndarray:
    outputs = classifier().run(None, encode("wordpiece", texts))
    return outputs[0]


@functools.cache
def classifier() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(SAMPLES / "classifier.onnx", providers=["CPUExecutionProvider"])


def softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


def predict(server, model: str, body: bytes, content_type: str = "text/plain"):
    reply = request(server.http, "POST", f"/predictions/{model}", body, {"Content-Type": content_type})
    assert reply.status == 200, reply.body
    return reply.json


def predict_grpc(server, model: str, fields: dict[str, bytes]):
    with torchserve_client.inference(server.grpc) as stub:
        return json.loads(stub.Predictions(torchserve_client.request(model, fields), timeout=SECONDS_MAX).prediction)


def assert_tokens(actual: dict, wanted: dict[str, np.ndarray], row: int) -> None:
    assert actual.keys() == wanted.keys()
    for name, value in wanted.items():
        assert actual[name] == value[row].tolist(), name


@pytest.mark.parametrize("model", TOKENS)
def test_tokens_are_pythons(server, model):
    """Each text by itself, over REST and over gRPC."""
    for text in TEXTS:
        wanted = given(model, [text])
        assert_tokens(predict(server, model, text.encode()), wanted, 0)
        assert_tokens(predict_grpc(server, model, {"data": text.encode()}), wanted, 0)


@pytest.mark.parametrize("model", TOKENS)
def test_rows_have_the_length_of_the_longest(server, model):
    answers = predict(server, model, json.dumps(TEXTS).encode(), "application/json")
    wanted = given(model, TEXTS)
    assert len(answers) == len(TEXTS)
    for row, answer in enumerate(answers):
        assert_tokens(answer, wanted, row)


def test_scores_are_onnxruntimes(server):
    for text in TEXTS:
        [wanted] = scores([text])
        for answer in (predict(server, "scores", text.encode()), predict_grpc(server, "scores", {"data": text.encode()})):
            np.testing.assert_allclose(answer, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_text_classifier(server):
    for text in TEXTS:
        probabilities = softmax(scores([text])[0])
        order = np.argsort(-probabilities, kind="stable")
        answer = predict(server, "text_classifier", text.encode())
        assert list(answer) == [LABELS[index] for index in order]
        np.testing.assert_allclose(list(answer.values()), probabilities[order], rtol=TOLERANCE, atol=TOLERANCE)
        assert predict_grpc(server, "text_classifier", {"data": text.encode()}) == answer
        assert predict(server, "best", text.encode()) == LABELS[order[0]]


TEXT = 'Ça, "je" ne [sais] pas 🍞\n'
FORM = b'--edge\r\nContent-Disposition: form-data; name="%s"; filename="a.txt"\r\n%s\r\n%s\r\n--edge--\r\n'
MULTIPART = "multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    "body, content_type",
    [
        (TEXT.encode(), "text/plain; charset=utf-8"),
        (TEXT.encode(), "application/octet-stream"),
        (TEXT.encode(), "application/x-www-form-urlencoded"),
        (json.dumps(TEXT).encode(), "application/json"),
        (json.dumps({"text": TEXT, "target": 1}).encode(), "application/json"),
        (json.dumps({"data": TEXT}, ensure_ascii=False).encode(), "application/json"),
        (json.dumps({"body": TEXT}).encode(), "application/x-www-form-urlencoded"),
        (FORM % (b"data", b"", TEXT.encode()), MULTIPART),
        (FORM % (b"text", b"Content-Type: text/plain\r\n", TEXT.encode()), MULTIPART),
        (FORM % (b"body", b"Content-Type: application/json\r\n", json.dumps({"text": TEXT}).encode()), MULTIPART),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_every_way_to_send_a_text(server, body, content_type):
    assert_tokens(predict(server, "bytelevel", body, content_type), given("bytelevel", [TEXT]), 0)


@pytest.mark.parametrize("field", ["data", "body", "text", "file"])
def test_every_field_over_grpc(server, field):
    wanted = given("bytelevel", [TEXT])
    for content in (TEXT.encode(), json.dumps({"text": TEXT}).encode()):
        assert_tokens(predict_grpc(server, "bytelevel", {field: content}), wanted, 0)


@pytest.mark.parametrize("key", ["instances", "data", "text"])
def test_every_way_to_send_several(server, key):
    texts = TEXTS[:8]
    wanted = [LABELS[row.argmax()] for row in scores(texts)]
    entries = [text if index % 2 else {"text": text} for index, text in enumerate(texts)]
    answer = predict(server, "best", json.dumps({key: entries}).encode(), "application/json")
    assert answer == ({"predictions": wanted} if key == "instances" else wanted)
    assert predict_grpc(server, "best", {"data": json.dumps({key: entries}).encode()}) == answer


def test_text_that_looks_like_json(server):
    """What says that it is text is none, nor is what only begins like it."""
    for text, content_type in (('["a", "b"]', "text/plain"), ("[CLS] a", "application/x-www-form-urlencoded")):
        assert_tokens(predict(server, "bytelevel", text.encode(), content_type), given("bytelevel", [text]), 0)
    for text in ("[CLS] a", "{never closed"):
        assert_tokens(predict_grpc(server, "bytelevel", {"data": text.encode()}), given("bytelevel", [text]), 0)


def test_ids_are_still_taken(server):
    inputs = encode("wordpiece", TEXTS[2:3])
    row = {name: value[0].tolist() for name, value in inputs.items()}
    np.testing.assert_allclose(
        predict(server, "scores", json.dumps(row).encode(), "application/json"), scores(TEXTS[2:3])[0], rtol=TOLERANCE
    )


@pytest.mark.parametrize(
    "body, content_type, status, text",
    [
        (b"caf\xe9", "text/plain", 400, "UTF-8"),
        (b'["a", 1]', "application/json", 400, "row 1 must be a text"),
        (b'{"text": "a"', "application/json", 400, "malformed JSON"),
        (b"a" * ((1 << 20) + 1), "text/plain", 413, "1048576"),
    ],
)
def test_faults(server, body, content_type, status, text):
    reply = request(server.http, "POST", "/predictions/bytelevel", body, {"Content-Type": content_type})
    assert reply.status == status
    assert text in reply.json["message"]


def test_faults_over_grpc(server):
    with torchserve_client.inference(server.grpc) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.Predictions(torchserve_client.request("bytelevel", {"data": b"caf\xe9"}), timeout=SECONDS_MAX)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in raised.value.details()


def test_check_shows_the_tokenizer_and_what_is_wrong_with_it(tmp_path):
    add(tmp_path / "sound", "bytelevel", "tokens", "lengths = [8, 32]\n")
    add(tmp_path / "torn", "wordpiece", "tokens", "")
    torn = tmp_path / "torn" / "1" / "tokenizer.json"
    torn.write_bytes(torn.read_bytes()[:1000])
    command = [served.binary(), "check", "--repository", str(tmp_path), "--backend", "tract"]
    report = subprocess.run(command, cwd=served.ROOT, capture_output=True, text=True)
    assert report.returncode == 1
    sound, fault = report.stdout.split("torn version 1: FAULT")
    assert "text by tokenizer.json, which knows 600 tokens" in sound
    assert 'model.toml: input.tokenizer is "tokenizer.json": it is no tokenizer' in fault


def test_what_bodies_are_is_described(server):
    document = request(server.http, "GET", "/openapi.json").json
    content = document["paths"]["/predictions/text_classifier"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "text/plain"}
    example = content["application/json"]["example"]
    headers = {"Content-Type": "application/json"}
    reply = request(server.http, "POST", "/predictions/text_classifier", json.dumps(example).encode(), headers)
    assert reply.status == 200 and set(reply.json) == set(LABELS), reply.body
