"""What `[input]` and `[output]` of a model.toml make of pictures and scores, beside Pillow and numpy.

Pillow decodes, and resizes as torchvision's transforms let it: `Resize`, `CenterCrop`, `ToTensor`, `Normalize`.

PNG files give the same numbers within a level of 256: Pillow resizes some pictures rows first, and rounds in between.
JPEG decoders differ: by a level more where no colour was left out, and by a few at the edges of colours where it was.
"""

import io
import json
import pathlib
import shutil

import grpc
import numpy as np
import pytest
from PIL import Image

import reference
import served
import torchserve_client
from clients import SECONDS_MAX, request

SAMPLES = served.ROOT / "server" / "app" / "tests" / "fixtures" / "handlers"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Of 256 levels: the most by which a value may differ from Pillow's, and the mean over a picture.
LEVELS_MAX = {".png": 1, "full_colour.jpg": 2, "half_colour.jpg": 12, "grey.jpg": 2}
MEAN_LEVELS_MAX = 0.5

PICTURES = {
    "imagenet": f'[input]\nkind = "image"\nresize = 256\nsize = [224, 224]\nmean = {MEAN}\nstd = {STD}\n',
    "stretched": '[input]\nkind = "image"\nsize = [96, 64]\n',
    "enlarged": '[input]\nkind = "image"\nsize = [301, 402]\ncolor = "BGR"\n',
}
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIGITS_INPUT = '[input]\nkind = "image"\nstd = [0.0625]\n'
DIGITS = {
    "best": DIGITS_INPUT + f'[output]\nkind = "classes"\ntensor = "probabilities"\ntop = 3\nlabels = {LABELS}\n',
    "softmax": DIGITS_INPUT + '[output]\nkind = "classes"\nsoftmax = true\nlabels = "index_to_name.json"\n',
    "rows": DIGITS_INPUT + '[output]\nkind = "rows"\ntensor = "probabilities"\n',
    "label": DIGITS_INPUT + '[output]\nkind = "label"\nlabels = "labels.txt"\n',
}


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def server(request, tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    for name, settings in PICTURES.items():
        add(repository / name, SAMPLES / "same.onnx", settings)
    for name, settings in DIGITS.items():
        add(repository / name, served.REPOSITORY / "digits" / "1" / "model.onnx", settings)
    (repository / "softmax" / "index_to_name.json").write_text(
        json.dumps({str(index): [f"n{index:08}", label] for index, label in enumerate(LABELS)})
    )
    (repository / "label" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    with served.serve(request.param, repository=repository) as running:
        yield running


def add(model: pathlib.Path, file: pathlib.Path, settings: str) -> None:
    (model / "1").mkdir(parents=True)
    shutil.copy(file, model / "1" / "model.onnx")
    (model / "model.toml").write_text(settings)


def predict(server, model: str, body: bytes, content_type: str = "application/octet-stream"):
    reply = request(server.http, "POST", f"/predictions/{model}", body, {"Content-Type": content_type})
    assert reply.status == 200, reply.body
    return reply.json


def as_torchvision(model: str, picture: Image.Image) -> np.ndarray:
    picture = picture.convert("RGB")
    if model == "imagenet":
        picture = center_crop(resize_shorter(picture, 256), 224)
        return normalized(picture, MEAN, STD)
    if model == "stretched":
        return normalized(picture.resize((64, 96), Image.Resampling.BILINEAR))
    enlarged = picture.resize((402, 301), Image.Resampling.BILINEAR)
    return normalized(Image.fromarray(np.asarray(enlarged)[:, :, ::-1].copy()))


def resize_shorter(picture: Image.Image, side: int) -> Image.Image:
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    long = int(side * long / short)
    return picture.resize((side, long) if width <= height else (long, side), Image.Resampling.BILINEAR)


def center_crop(picture: Image.Image, side: int) -> Image.Image:
    left, top = (int(round((length - side) / 2.0)) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def normalized(picture: Image.Image, mean=(0, 0, 0), std=(1, 1, 1)) -> np.ndarray:
    values = np.asarray(picture).astype(np.float32) / np.float32(255)
    return ((values - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


@pytest.mark.parametrize("model", PICTURES)
@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".png", ".jpg")))
def test_pictures_are_pillows(server, model, sample):
    content = (SAMPLES / sample).read_bytes()
    wanted = as_torchvision(model, Image.open(io.BytesIO(content)))
    actual = np.array(predict(server, model, content), dtype=np.float32)
    assert actual.shape == wanted.shape
    std = np.float32(STD if model == "imagenet" else (1, 1, 1)).reshape(3, 1, 1)
    levels = np.abs(actual - wanted) * std * 255
    levels_max = LEVELS_MAX.get(sample) or LEVELS_MAX[pathlib.Path(sample).suffix]
    assert levels.max() <= levels_max + 0.01, levels.max()
    assert levels.mean() <= MEAN_LEVELS_MAX, levels.mean()


def digit(sample: str) -> tuple[bytes, np.ndarray]:
    """A picture, and the scores of the model of digits for it as Python computes them."""
    content = (SAMPLES / sample).read_bytes()
    picture = Image.open(io.BytesIO(content)).convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    values = (np.asarray(picture).astype(np.float32) / np.float32(255)) / np.float32(0.0625)
    outputs = reference.expected("digits", "1", {"image": values.reshape(1, 1, 8, 8)})
    return content, outputs["probabilities"][0]


SHAPES = ["grey.png", "wide.png", "small.png", "alpha.png"]


@pytest.mark.parametrize("sample", SHAPES)
def test_the_best_classes(server, sample):
    content, scores = digit(sample)
    best = np.argsort(-scores, kind="stable")[:3]
    actual = predict(server, "best", content)
    assert list(actual) == [LABELS[index] for index in best]
    np.testing.assert_allclose(list(actual.values()), scores[best], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sample", SHAPES)
def test_softmax_and_the_label(server, sample):
    content, scores = digit(sample)
    exponents = np.exp(scores - scores.max())
    best = np.argsort(-scores, kind="stable")[:5]
    actual = predict(server, "softmax", content)
    assert list(actual) == [LABELS[index] for index in best]
    np.testing.assert_allclose(list(actual.values()), (exponents / exponents.sum())[best], rtol=1e-5)
    assert predict(server, "label", content) == LABELS[best[0]]


@pytest.mark.parametrize("sample", SHAPES)
def test_rows_of_one_output(server, sample):
    content, scores = digit(sample)
    np.testing.assert_allclose(predict(server, "rows", content), scores, rtol=1e-5, atol=1e-5)


def test_what_bodies_are_is_described(server):
    paths = request(server.http, "GET", "/openapi.json").json["paths"]
    described = {model: paths[f"/predictions/{model}"]["post"] for model in ("best", "label", "rows")}
    for operation in described.values():
        assert set(operation["requestBody"]["content"]) == {"application/json", "image/jpeg", "image/png"}
    answers = {
        model: operation["responses"]["200"]["content"]["application/json"]["schema"].get("anyOf", [{}])[0]
        for model, operation in described.items()
    }
    assert answers == {
        "best": {"type": "object", "additionalProperties": {"type": "number"}},
        "label": {"type": "string"},
        "rows": {},
    }


def test_every_way_to_send_a_picture(server):
    """As bytes, with any content type, as a form, over gRPC; and numbers in JSON are still rows."""
    content, scores = digit("grey.png")
    wanted = predict(server, "best", content)
    assert predict(server, "best", content, "image/png") == wanted
    head = b'--edge\r\nContent-Disposition: form-data; name="data"; filename="grey.png"\r\n\r\n'
    assert predict(server, "best", head + content + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge") == wanted
    with torchserve_client.inference(server.grpc) as stub:
        question = torchserve_client.request("best", {"data": content})
        assert json.loads(stub.Predictions(question, timeout=SECONDS_MAX).prediction) == wanted
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predictions(torchserve_client.request("best", {"data": b"GIF89a"}), timeout=SECONDS_MAX)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    rows = reference.rows("digits", "1", 2, seed=71)["image"]
    answers = predict(server, "best", json.dumps({"instances": rows.tolist()}).encode(), "application/json")
    probabilities = reference.expected("digits", "1", {"image": rows})["probabilities"]
    assert [list(answer)[0] for answer in answers["predictions"]] == [LABELS[row.argmax()] for row in probabilities]


def test_sections_that_do_not_fit_are_refused(tmp_path):
    digits = served.REPOSITORY / "digits" / "1" / "model.onnx"
    add(tmp_path / "wrong", digits, '[input]\nkind = "image"\nsize = [9, 9]\n')
    with served.serve("tract", repository=tmp_path) as server:
        reply = request(server.http, "POST", "/v2/repository/index", {})
        assert "input.size" in reply.json[0]["reason"], reply.body


def test_contents_that_are_refused_leave_the_handler_of_those_that_serve(tmp_path):
    source = served.REPOSITORY / "digits" / "1"
    model = tmp_path / "models" / "best"
    add(model, source / "model.onnx", DIGITS["best"])
    content, _ = digit("grey.png")
    with served.serve("tract", "--settle-time", "50ms", repository=tmp_path / "models") as server:
        wanted = predict(server, "best", content)
        golden = json.loads((source / "golden.json").read_text())
        golden["outputs"]["digit"] = [(value + 1) % 10 for value in golden["outputs"]["digit"]]
        (model / "1" / "golden.json").write_text(json.dumps(golden))
        shutil.copy(source / "model.onnx", model / "1" / "model.onnx")

        def reason() -> str:
            return request(server.http, "POST", "/v2/repository/index", {}).json[0].get("reason", "")

        served.eventually(lambda: "golden" in reason())
        assert predict(server, "best", content) == wanted
