"""Writes the fuzz targets' seeds: corpus/<target>/seed-<what it is>. Needs nothing but Python 3.

    python3 make_seeds.py
"""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


# Protobuf by hand: a key (number and wire type) and its value, after another.
def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def block(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def packed(field, values):
    return block(field, b"".join(map(varint, values)))


def floats(values, kind="f"):
    return struct.pack(f"<{len(values)}{kind}", *values)


def parameter(field, name, value):
    return block(field, block(1, name) + block(2, value))


def tensor(name, datatype, shape, contents=b"", parameters=b""):
    header = block(1, name) + block(2, datatype) + packed(3, shape) + parameters
    return block(5, header + (block(5, contents) if contents else b""))


def texts(*elements):
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def proto_infer():
    model = block(1, "m")
    yield "raw-fp32", model + block(2, "3") + block(3, "id") + tensor("x", "FP32", [1, 2]) + block(7, floats([1, -2]))
    yield "raw-two-inputs", (
        model + tensor("a", "INT64", [2]) + tensor("b", "BOOL", [2]) + block(7, bytes(16)) + block(7, b"\x01\x07")
    )
    yield "raw-bytes", model + tensor("t", "BYTES", [2, 1]) + block(7, texts(b"yes", b"\xff"))
    yield "raw-half", model + tensor("h", "FP16", [2]) + tensor("g", "BF16", [0, 3]) + block(7, b"\0\x3c\0\x7e") + block(7, b"")
    yield "typed-bool", model + tensor("x", "BOOL", [3], packed(1, [1, 0, 1]))
    yield "typed-int8", model + tensor("x", "INT8", [2], packed(2, [127, -128]))
    yield "typed-int16", model + tensor("x", "INT16", [1], packed(2, [-32768]))
    yield "typed-int64", model + tensor("x", "INT64", [2], packed(3, [-1, 1 << 62]))
    yield "typed-uint", model + tensor("x", "UINT16", [1], packed(4, [65535])) + tensor("y", "UINT64", [1], packed(5, [1 << 63]))
    yield "typed-fp32", model + tensor("x", "FP32", [2, 1], block(6, floats([0.5, float("nan")])))
    yield "typed-fp64", model + tensor("x", "FP64", [], block(7, floats([0.1], "d")))
    yield "typed-bytes", model + tensor("x", "BYTES", [2], block(8, "one") + block(8, b""))
    yield "parameters", (
        model
        + parameter(4, "timeout", number(5, 1_000_000))
        + parameter(4, "priority", number(2, 1))
        + parameter(4, "sequence_id", block(3, ""))
        + parameter(4, "binary_data_output", number(1, 1))
        + parameter(4, "own", varint(4 << 3 | 1) + floats([0.5], "d"))
        + tensor("x", "UINT8", [1], packed(4, [9]), parameter(4, "note", number(1, 0)))
        + block(6, block(1, "y"))
        + block(6, block(1, "z") + parameter(2, "classification", number(2, 0)))
    )


def tensor_proto():
    def shape(*sizes):
        return block(2, b"".join(block(2, number(1, size)) for size in sizes))

    yield "floats", number(1, 1) + shape(1, 2) + block(5, floats([1, -2]))
    yield "repeated", number(1, 2) + shape(2, 3) + block(6, floats([1.5], "d"))
    yield "zeros", number(1, 9) + shape(4)
    yield "content", number(1, 1) + shape(2) + block(4, floats([1, 2]))
    yield "narrow", number(1, 4) + shape(2) + packed(7, [0, 255])
    yield "half", number(1, 19) + shape(2) + packed(13, [0x3C00, 0x7E00])
    yield "truth", number(1, 10) + shape(2) + packed(11, [0, 1])
    yield "unsigned", number(1, 23) + shape(1) + packed(17, [(1 << 64) - 1])
    yield "strings", number(1, 7) + shape(2) + block(8, "a") + block(8, b"\xff")
    yield "packed-strings", number(1, 7) + shape(2) + block(4, b"\x01\x02a\xff\xfe")
    yield "scalar", number(1, 3) + packed(7, [-1])
    yield "too-many", number(1, 1) + shape(1 << 40) + block(5, floats([1]))


def tensor_examples():
    def example(**features):
        entries = (block(1, name.encode()) + block(2, values) for name, values in features.items())
        return block(1, b"".join(block(1, entry) for entry in entries))

    def strings(*values):
        return block(1, b"".join(block(1, value) for value in values))

    def numbers(*values):
        return block(2, block(1, floats(values)))

    def integers(*values):
        return block(3, packed(1, values))

    # The model before: dtype + 14 * rank, or several inputs.
    def body(dtype, rank, *examples, context=None):
        message = b"".join(block(1, example) for example in examples)
        if context is not None:
            message += block(2, context)
        return bytes([dtype + 14 * rank]) + block(1 if context is None else 2, message)

    fp32, int8, text = 11, 1, 13
    yield "floats", body(fp32, 1, example(x=numbers(1, 2)), example(x=numbers(3, float("nan"))))
    yield "integers", body(int8, 0, example(x=integers(127)), example(x=integers(5)))
    yield "integers-for-floats", body(fp32, 0, example(x=integers(3)))
    yield "strings", body(text, 1, example(x=strings(b"a", b"\xff")))
    yield "context", body(fp32, 0, example(), example(x=numbers(1)), context=example(x=numbers(2)))
    yield "several", body(0, 3, example(a=integers(1), b=numbers(1, 2), c=strings(b"yes"), d=integers(1)))
    yield "without-values", body(fp32, 0, block(1, block(1, block(1, b"x") + block(2, b""))))


def request(*inputs, **others):
    return json.dumps({**others, "inputs": list(inputs)}, separators=(",", ":"))


def entry(name, datatype, shape, data=None, **others):
    entry = {"name": name, "shape": shape, "datatype": datatype}
    return {**entry, **({} if data is None else {"data": data}), **others}


def json_infer():
    yield "flat-fp32", request(entry("x", "FP32", [1, 3], [1, -2.5, 3e-7]), id="a")
    yield "nested-fp64", request(entry("x", "FP64", [2, 2], [[0.1, 1e300], [-0.0, 5e-324]]))
    yield "scalar", request(entry("x", "INT32", [], -7))
    yield "empty", request(entry("x", "UINT8", [0, 3], []))
    yield "integers", request(
        entry("a", "INT8", [1], [-128]), entry("b", "INT16", [1], [1.0]), entry("c", "INT64", [1], [-(1 << 63)]),
        entry("d", "UINT16", [1], [65535]), entry("e", "UINT32", [1], [1]), entry("f", "UINT64", [1], [(1 << 64) - 1]),
    )
    yield "truth-and-text", request(entry("x", "BOOL", [2], [True, False]), entry("t", "BYTES", [3], ["", "é\n\"", "\U0001F600"]))
    yield "not-finite", '{"inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[NaN,Infinity,-Infinity]}]}'
    yield "data-first", '{"inputs":[{"data":[[1],[2]],"datatype":"FP32","shape":[2,1],"name":"x"}]}'
    yield "escapes", '{"id":"\\u00e9\\ud83d\\ude00\\/\\b","inputs":[{"name":"\\"outputs\\":[","shape":[1],"datatype":"BYTES","data":["\\\\"]}]}'
    yield "everything", request(
        entry("x", "FP32", [1], [1], parameters={"note": None}),
        id="i", model_name="m", parameters={"timeout": 5, "priority": 1, "sequence_id": 0, "binary_data_output": False, "own": [{}]},
        outputs=[{"name": "y", "parameters": {"binary_data": True, "classification": 0}}],
    )
    yield "spaces", ' {\n "inputs" : [ { "name" : "x" ,\t"shape" : [ 1 ] , "datatype" : "INT32" , "data" : [ 1 ] } ] , "outputs" : null }\r\n'


def json_features():
    def body(dtype, rank, **members):
        # The first byte picks the model: see the target. NaN and Infinity are written as they are.
        return bytes([dtype + 14 * rank]) + json.dumps(members).encode()

    int64, bytes_, fp32, several = 4, 13, 11, (0, 3)
    yield "rows", body(fp32, 1, instances=[[1, 2.5], [float("nan"), float("-inf")]], signature_name="serving_default")
    yield "nested-rows", body(fp32, 2, instances=[[[1, 2], [3, 4]]])
    yield "plain-rows", body(int64, 0, instances=[1, -2, 3.0])
    yield "named-rows", body(int64, 1, instances=[{"x": [1, 2]}, {"x": [3, 4]}])
    yield "columns", body(fp32, 1, inputs={"x": [[1, 2], [3, 4]]})
    yield "only-column", body(fp32, 1, inputs=[[1, 2], [3, 4]])
    yield "base64", body(bytes_, 0, instances=["text", {"b64": "/wA="}])
    yield "several", body(*several, instances=[{"a": True, "b": [1, 2], "c": "x"}, {"c": {"b64": ""}, "b": [3, 4], "a": 0}])
    yield "several-columns", body(*several, inputs={"a": [1, 0], "b": [[1, 2], [3, 4]], "c": ["x", "y"]})
    yield "split", body(*several, dataframe_split={"index": [0], "columns": ["c", "z", "a", "b"], "data": [["x", 0, True, [1, 2]]]})
    yield "split-side-by-side", body(fp32, 1, dataframe_split={"data": [[1, None], [2, 3]], "columns": [0, 1]})
    yield "records", body(*several, dataframe_records=[{"a": 1, "b": [1, None], "c": "x", "z": {}}], params={"t": 1})
    yield "records-side-by-side", body(fp32, 1, dataframe_records=[{"p": 1, "q": 2}, {"p": 3, "q": 4}])
    yield "csv", bytes([fp32 + 14]) + b'p,"q ""q"""\r\n1,\r\n-inf,2.5e3\n'
    yield "csv-of-several", bytes([several[0] + 14 * several[1]]) + b'c,a,b\n"x, y",True,1\n,0,nan\n'
    yield "features-row", body(fp32, 1, features=[1, 2.5])
    yield "features-named", body(*several, features={"a": True, "b": [1, 2], "c": "x"})
    yield "features-rows", body(int64, 0, features=[1, -2], note={})
    yield "examples", body(*several, context={"a": False}, examples=[{"b": [1, 2], "c": "x"}, {"b": [3, 4], "c": ["y"]}])


def torchserve_body():
    unsaid, said_json, raw, form = range(4)

    def body(dtype, rank, content_type, content):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        return bytes([dtype + 14 * rank, content_type]) + content

    def field(name, content, header=b""):
        return b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n' + header + b"\r\n" + content + b"\r\n"

    fp32 = 11
    yield "row", body(fp32, 1, said_json, [1, 2])
    yield "rows", body(fp32, 1, unsaid, [[1, 2], [3, 4]])
    yield "instances", body(fp32, 1, said_json, {"id": 1, "instances": [[1, 2]]})
    yield "data", body(fp32, 1, unsaid, {"data": [1, 2]})
    yield "named", body(0, 3, said_json, {"a": True, "b": [1, 2], "c": {"b64": "/wA="}})
    yield "raw", body(fp32, 1, raw, struct.pack("<2f", 1, 2))
    json_header = b"Content-Type: application/json\r\n"
    yield "form", body(fp32, 1, form, field(b"data", b"[1, 2]", json_header) + b"--b--\r\n")
    yield "form-of-several", body(
        0, 3, form, b"x\r\n" + field(b"a", b"1") + field(b"b", b"[1,2]") + field(b"c", b'"x"') + b"--b--"
    )


def handled_body():
    unsaid, said_json, plain, form = range(4)

    def body(kind, content_type, content):
        content = content if isinstance(content, (bytes, str)) else json.dumps(content)
        return bytes([kind, content_type]) + (content.encode() if isinstance(content, str) else content)

    yield "text", body(0, plain, "A film that nobody needs, said n\u00e4mlich \u6d6a.")
    yield "texts", body(0, said_json, ["one", {"text": "two", "label": 1}, {"data": ""}])
    yield "text-instances", body(1, unsaid, {"instances": [{"body": "three"}, "\U0001f600"]})
    yield "text-form", body(1, form, b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nfour\r\n--b--')
    yield "tokens", body(0, said_json, [{"input_ids": [1, 2], "attention_mask": [1, 1]}])
    yield "csv", body(2, plain, 'b,"a"\n1,2.5\n"-3",\n')
    yield "csv-without-names", body(3, plain, "1,2\r\n3,4")
    yield "bytes", body(4, unsaid, floats([1, 2, 3, 4]))
    yield "bytes-of-an-open-row", body(5, unsaid, struct.pack("<4h", 1, 2, 3, 4))
    yield "rows", body(6, plain, [[1, 2]])


def archive():
    def packed_files(model, **files):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {"MAR-INF/MANIFEST.json": json.dumps({"model": model}), **files}.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return memory.getvalue()

    model = {"modelName": "m", "serializedFile": "m.onnx", "modelVersion": "1.0"}
    yield "plain", packed_files(model, **{"m.onnx": b"onnx", "m.data": b"weights"})
    yield "pictures", packed_files({**model, "handler": "image_classifier"}, **{"m.onnx": b"", "index_to_name.json": "{}"})
    yield "texts", packed_files({**model, "handler": "text_classifier"}, **{"m.onnx": b"", "tokenizer.json": "{}"})
    yield "own-settings", packed_files({**model, "handler": "h.py:f"}, **{"m.onnx": b"", "h.py": "", "model.toml": ""})
    yield "leads-out", packed_files(model, **{"../m.onnx": b""})


def binary_infer():
    def body(header, tail):
        return struct.pack("<H", len(header)) + header.encode() + tail

    def sized(name, datatype, shape, size):
        return entry(name, datatype, shape, parameters={"binary_data_size": size})

    yield "fp32", body(request(sized("x", "FP32", [1, 2], 8), id="a"), floats([1, 2]))
    yield "half", body(request(sized("x", "FP16", [2], 4), sized("y", "BF16", [1], 2)), b"\0\x3c\0\x7e\x80\x3f")
    yield "texts", body(request(sized("t", "BYTES", [2], 12)), texts(b"yes", b"\xff"))
    yield "mixed", body(request(entry("a", "INT8", [2], [1, 2]), sized("b", "BOOL", [1], 1)), b"\x01")
    yield "all-binary-out", body(request(sized("x", "UINT64", [0], 0), parameters={"binary_data_output": True}), b"")
    yield "json-only", body(request(entry("x", "INT64", [1], [5])), b"")
    # A header length of 0, then the signature: dtype + 14 * rank, whose low bits make axes dynamic.
    yield "raw-fp32-row", struct.pack("<HB", 0, 11 + 14 * 2) + floats([1, 2])
    yield "raw-texts", struct.pack("<HB", 0, 13 + 14) + texts(b"yes")
    yield "raw-bool", struct.pack("<HB", 0, 0) + b"\x01"
    yield "raw-rank-three", struct.pack("<HB", 0, 5 + 14 * 3) + bytes(24)


def model_toml():
    yield "everything", """\
backend = "onnxruntime"
providers = ["tensorrt", { name = "cuda", options = { device_id = "1" } }, "cpu"]
spinning = true
instances = 2
threads = 3
batching = { rows_max = 16, delay = "2ms" }
queue = { rows_max = 100, bytes_max = 1000 }
"""
    yield "tables", "[batching]\nrows_max = 0x10\ndelay = '1s 5us'\n[queue]\nrows_max = 1_000\n"
    yield "tract", 'backend = "tract"\nproviders = []\n'
    yield "provider-table", "[[providers]]\nname = \"openvino\"\n[providers.options]\n\"device type\" = '''CPU'''\n"
    yield "all-providers", 'providers = ["cpu", "cuda", "tensorrt", "openvino", "rocm", "migraphx"]\n'
    yield "out-of-bounds", "instances = 1025\nbatching.delay = \"61s\"\n"
    yield "nonsense", "instance = -1\n# comment\nspinning = 2024-01-01\n"


    yield "sections", """\
slo = "20ms"
weight = 2
run_timeout = "1s"
labels = { stable = 2 }
versions = "all"
[input]
kind = "image"
size = [2, 3]
resize = 4
layout = "CHW"
color = "BGR"
mean = [0.5, 0, 1]
std = [1, 1, 0.25]
[output]
kind = "classes"
softmax = true
top = 2
labels = ["a", "b"]
"""


def png(width, height, color, depth, rows, *chunks, interlaced=False):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    content = zlib.compress(b"".join(bytes([filter_]) + row for filter_, row in rows))
    chunks = [chunk(b"IHDR", header), *(chunk(*other) for other in chunks), chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg(width, height, factors, scans, progressive=False, interval=None):
    """With sampling factors by component, each with the same tables: two bits a code, for 0, 1 and a run."""

    def segment(marker, content):
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    def tables(kind, *symbols):
        return bytes([kind << 4, 0, len(symbols)]) + bytes(14) + bytes(symbols)

    components = b"".join(bytes([number, factor, 0]) for number, factor in enumerate(factors, 1))
    frame = struct.pack(">BHHB", 8, height, width, len(factors)) + components
    out = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64)) + segment(0xC2 if progressive else 0xC0, frame)
    out += segment(0xC4, tables(0, 0, 1, 7) + tables(1, 0x00, 0x01, 0xF0))
    if interval is not None:
        out += segment(0xDD, struct.pack(">H", interval))
    for numbers, spectrum, data in scans:
        selected = b"".join(bytes([number, 0]) for number in numbers)
        out += segment(0xDA, bytes([len(numbers)]) + selected + bytes(spectrum)) + data
    return out + b"\xff\xd9"


def picture():
    # The model before: see the target.
    gray, rgb, palette, gray_alpha, rgba = 0, 2, 3, 4, 6
    none, sub, up, average, paeth = range(5)
    pixels = bytes(range(0, 240, 20))
    yield "png-rgb", b"\0" + png(2, 2, rgb, 8, [(none, pixels[:6]), (paeth, pixels[6:])])
    yield "png-gray", b"\1" + png(4, 3, gray, 8, [(up, pixels[:4]), (average, pixels[4:8]), (sub, pixels[8:])])
    yield "png-one-bit", b"\2" + png(9, 2, gray, 1, [(none, b"\xaa\x80"), (none, b"\x55\0")])
    yield "png-palette", b"\3" + png(3, 1, palette, 2, [(none, b"\x18")], (b"PLTE", pixels[:9]), (b"tRNS", b"\0\x7f"))
    yield "png-deep", b"\4" + png(1, 1, rgb, 16, [(none, pixels[:6])])
    yield "png-alpha", b"\5" + png(1, 2, rgba, 8, [(none, pixels[:4]), (none, pixels[4:8])])
    yield "png-gray-alpha", b"\5" + png(1, 2, gray_alpha, 8, [(none, pixels[:2]), (none, pixels[2:4])])
    # The passes of a picture of 2 by 2 that have pixels: one, one in the first row, two in the second.
    yield "png-interlaced", b"\0" + png(2, 2, gray, 8, [(none, b"\1"), (none, b"\2"), (none, b"\3\4")], interlaced=True)
    yield "png-long", b"\2" + png(400, 1, gray, 8, [(none, bytes(400))])
    whole = (0, 63, 0)
    yield "jpeg-gray", b"\2" + jpeg(8, 8, [0x11], [([1], whole, b"\x43")])
    yield "jpeg-color", b"\0" + jpeg(9, 7, [0x11] * 3, [([1, 2, 3], whole, b"\x04\x40\x00\x3f")])
    yield "jpeg-subsampled", b"\1" + jpeg(16, 16, [0x22, 0x11, 0x11], [([1, 2, 3], whole, b"\x04\x40\x3f")])
    yield "jpeg-restarts", b"\4" + jpeg(16, 8, [0x11], [([1], whole, b"\x0f\xff\xd0\x0f")], interval=1)
    yield "jpeg-progressive", b"\5" + jpeg(
        8, 8, [0x11], [([1], (0, 0, 1), b"\x3f"), ([1], (1, 63, 0), b"\x3f"), ([1], (0, 0, 0x10), b"\x7f")], progressive=True
    )
    yield "neither", b"\0GIF89a"


def generate_body():
    def body(dtype, rank, **members):
        return bytes([dtype + 14 * rank]) + json.dumps(members).encode()

    text, fp32, several = 13, 11, (0, 3)
    yield "text", body(text, 0, x="once upon a time", id="i")
    yield "values", body(fp32, 1, x=[1, 2.5])
    yield "several", body(*several, a=True, b=[1, 2], c="x", parameters={"timeout": 5, "priority": 1})
    yield "in-parameters", body(*several, a=False, parameters={"b": [1, 2], "c": "x", "temperature": 0.5, "sequence_id": 0})
    yield "others", body(text, 0, x="y", stream=False, stop=["a"], parameters=None)


def triton_config():
    yield "everything", """\
name: "m"
platform: 'onnxruntime_onnx'  # as Triton writes it
max_batch_size: 8
default_model_filename: "model.onnx"
version_policy { specific { versions: [1, 3] } }
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: [ 4 ] } optional: true } ]
output: [ { name: "y", data_type: TYPE_INT64, dims: [ ], label_filename: "labels.txt" }; ]
instance_group < count: 2; kind: KIND_CPU >
dynamic_batching {
  preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 preserve_ordering: true
  priority_levels: 3 default_priority_level: 2
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000 max_queue_size: 5 }
  priority_queue_policy { key: 1 value { allow_timeout_override: true } }
}
"""
    yield "placement", """\
instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0, 1 ] rate_limiter { priority: 2 } }, { kind: KIND_AUTO } ]
optimization {
  graph { level: -1 } input_pinned_memory { enable: true }
  execution_accelerators {
    gpu_execution_accelerator : [ { name : "tensorrt" parameters { key: "precision_mode" value: "FP16" } } ]
    cpu_execution_accelerator : [ { name : "openvino" } ]
  }
}
"""
    yield "parameters", """\
backend: "onnxruntime"
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
parameters: { key: "session.use_device_allocator_for_initializers", value: { string_value: "1" } }
parameters: [ { key: "x" value { string_value: "a" "b\\n\\x41\\101\\u00e9" } } ]
model_warmup [ { name: "w" batch_size: 2 count: 1 inputs { key: "x" value: {
  data_type: TYPE_FP32 dims: 4 random_data: true } } } ]
"""
    yield "json", json.dumps({
        "name": "m", "maxBatchSize": "4", "input": [{"name": "x", "data_type": "TYPE_BF16", "dims": ["-1"]}],
        "versionPolicy": {"latest": {"num_versions": 2}}, "dynamic_batching": {},
        "parameters": {"a": {"string_value": "b"}}, "instance_group": [{"count": 1}],
        "model_warmup": [{"name": "w", "inputs": {"x": {"data_type": "TYPE_INT8", "dims": [1], "zero_data": True}}}],
    })
    yield "sequences", "sequence_batching { direct { } }\nensemble_scheduling { step [ ] }\n"


def routes_toml():
    yield "split", """\
[routes.r]
key = "parameter:user"
salt = "s"
arms = [
    { name = "a", model = "m", version = 1, weight = 99.5 },
    { model = "m", label = "stable", weight = 0.5 },
]
shadows = [{ name = "s", model = "n", percent = 10, absolute = 1e-3, relative = 0, keep_inputs = true }]
"""
    yield "canary", """\
[routes."r 2"]
policy = "canary"
key = "request_id"
arms = [{ model = "m", version = 1 }, { model = "m", version = 2 }]
[routes."r 2".canary]
steps = [{ percent = 5, time = "10m", requests = 100 }, { percent = 100 }]
error_rate_increase_max = 0.01
p99_ratio_max = 1.5
confidence = 0.95
stage = "rolled_back"
why = "it \\"failed\\""
"""
    yield "bandit", """\
[routes.b]
policy = "bandit"
arms = [{ model = "m" }, { model = "n" }]
bandit = { algorithm = "epsilon-greedy", epsilon = 0.2, rewards = "real", half_life = "1day", p99_max = "50ms", sticky = true }
"""
    yield "fallback", '[routes.f]\npolicy = "fallback"\narms = [{ model = "m" }, { model = "n" }]\n'
    yield "running", """\
[routes.c]
policy = "canary"
arms = [{ model = "m" }, { model = "n" }]
shadows = [{ model = "n" }]
canary = { mismatch_rate_max = 0.5, stage = "running", step = 2 }
"""
    yield "nonsense", "[routes.r]\narms = []\nweights = 1\n"


def limits_toml():
    yield "everything", """\
header = "X-Tenant"
tenants_max = 10
[default]
requests_per_second = 2.5
[tenants.anonymous]
requests_per_second = 100
burst = 20
concurrent_max = 8
[tenants.anonymous.models.m]
concurrent_max = 1
"""
    yield "nobody-told-apart", "tenants_max = 0\n[default]\nconcurrent_max = 1\n"
    yield "extremes", "[default]\nrequests_per_second = 1e-300\nburst = 4294967295\n[tenants.a]\nrequests_per_second = 1e300\n"
    yield "nonsense", "[default]\nburst = 0\n"


def npy(description, shape, content, fortran=False, version=1):
    header = f"{{'descr': '{description}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + content


def golden_files():
    as_json, as_npz, as_npy = range(3)

    def from_json(**members):
        return bytes([as_json]) + json.dumps(members).encode()

    def from_npz(compression, **arrays):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", compression) as archive:
            for name, array in arrays.items():
                # With a date of its own the file would differ from run to run.
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array, compression)
        return bytes([as_npz]) + memory.getvalue()

    yield "json-one", from_json(inputs={"x": [[1, 2.5], [-3, float("nan")]]}, outputs={"y": [1, 2]}, tolerance=1e-5)
    yield "json-several", from_json(
        cases=[{"name": "winter", "inputs": {"t": ["a", ""]}, "outputs": {"b": [[True], [False]]}, "tolerance": {"absolute": 0.0}}],
        tolerance={"relative": 1e-3},
    )
    one, two = npy("<f8", "()", floats([1], "d")), npy("<f4", "(2, 1)", floats([1, 2]))
    yield "npz-one", from_npz(zipfile.ZIP_STORED, **{"inputs/x": two, "outputs/y": one, "tolerance": one})
    yield "npz-several", from_npz(
        zipfile.ZIP_DEFLATED, **{"a/inputs/x": two, "a/outputs/y": one, "b/outputs/y": one, "tolerance/relative": one}
    )
    yield "npy-big-endian", bytes([as_npy]) + npy(">i4", "(2,)", struct.pack(">2i", 1, -1))
    yield "npy-columns-first", bytes([as_npy]) + npy("<u2", "(2, 3)", bytes(range(12)), fortran=True, version=2)
    yield "npy-texts", bytes([as_npy]) + npy("<U2", "(2,)", "ab".encode("utf-32-le") + "é".encode("utf-32-le") + bytes(4))
    yield "npy-bytes", bytes([as_npy]) + npy("|S3", "(1, 2)", b"ab\0\0\0\0", version=3)
    yield "npy-truth", bytes([as_npy]) + npy("|b1", "(3L,)", b"\0\1\2")
    yield "npy-none", bytes([as_npy]) + npy("<f2", "(0, 5)", b"", fortran=True)


def feedback():
    prediction_id = "0123456789abcdef" * 2

    def body(*items):
        return json.dumps({"feedback": [{"prediction_id": prediction_id, **item} for item in items]})

    yield "reward", body({"reward": 1})
    yield "truths", body({"truth": [1, "a", None]}, {"truth": {"class": "b"}}, {"truth": "text"})
    yield "both", body({"reward": 0.5, "truth": 1})
    yield "empty", "{}"

    def item(content):
        return block(2, block(1, prediction_id) + content)

    yield "message", block(1, "r") + item(varint(2 << 3 | 1) + floats([0.5], "d")) + item(block(3, "[1]"))


def plan_trace():
    yield "plain", "at_us,model,rows,deadline_us\n1500,a,2,20000\n200,a,1,\n"
    yield "other-columns", "rows, at_us,deadline_us,model,priority,note\r\n1,5,7,a,2,x\r\n1,6,7,b,1,y\r\n\r\n"
    yield "faults", "at_us,model,rows,deadline_us\n-1,a,1,\n"


TARGETS = [
    proto_infer, tensor_proto, tensor_examples, json_infer, json_features, torchserve_body, binary_infer, picture,
    generate_body, feedback, model_toml, triton_config, routes_toml, limits_toml, golden_files, plan_trace,
    handled_body, archive,
]

for make in TARGETS:
    directory = CORPUS / make.__name__
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("seed-*"):
        old.unlink()
    for name, seed in make():
        (directory / f"seed-{name}").write_bytes(seed.encode() if isinstance(seed, str) else seed)
