"""Tensors in shared memory, of the system and of GPUs, as Triton's own clients put them there and read them."""

import base64
import contextlib
import mmap
import os
import subprocess
import uuid

import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

import reference
import served
from clients import Client, request

FIXTURES = served.ROOT / "server" / "onnx" / "tests" / "fixtures"
FLAG = "--allow-system-shared-memory"
CODES = {
    "grpc": {400: "StatusCode.INVALID_ARGUMENT", 404: "StatusCode.NOT_FOUND", 501: "StatusCode.UNIMPLEMENTED"},
    "binary": {400: "400", 404: "404", 501: "501"},
}


@pytest.fixture(scope="module", params=["onnxruntime", "tract"])
def sharing(request):
    with served.serve(request.param, FLAG) as running:
        yield running


@pytest.fixture(params=["grpc", "binary"])
def protocol(request):
    return request.param


@pytest.fixture
def client(sharing, protocol):
    with Client(sharing, protocol) as client:
        # As Triton's examples begin.
        client.triton.unregister_system_shared_memory()
        client.triton.unregister_cuda_shared_memory()
        yield client
        client.triton.unregister_system_shared_memory()


@contextlib.contextmanager
def region(client: Client, byte_size: int):
    """A file of this client in memory, registered by its name: the name, and the handle."""
    name = f"gristmill-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region(name, name, byte_size, create_only=True)
    try:
        client.triton.register_system_shared_memory(name, f"/{name}", byte_size)
        yield name, handle
    finally:
        shm.destroy_shared_memory_region(handle)


def in_memory(client: Client, name: str, handle, value: np.ndarray, offset: int = 0):
    """An input that is `value`, which is written to the region."""
    tensor = client.types.InferInput("measurements", list(value.shape), "FP32")
    shm.set_shared_memory_region(handle, [value], offset)
    tensor.set_shared_memory(name, value.nbytes, offset)
    return tensor


def wanted_in_memory(client: Client, name: str, output: str, byte_size: int, offset: int = 0):
    output = client.types.InferRequestedOutput(output)
    output.set_shared_memory(name, byte_size, offset)
    return output


def refusal(client: Client, call, *arguments, **named) -> tuple[int, str]:
    """The status in HTTP's numbers, and the text."""
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **named)
    [status] = [number for number, code in CODES[client.protocol].items() if code == error.value.status()]
    return status, error.value.message()


def regions(client: Client) -> dict:
    status = client.triton.get_system_shared_memory_status()
    if client.protocol == "grpc":
        return {name: (region.key, region.offset, region.byte_size) for name, region in status.regions.items()}
    return {region["name"]: (region["key"], region["offset"], region["byte_size"]) for region in status}


def test_regions_are_registered_by_name(client):
    assert regions(client) == {}
    with region(client, 64) as (name, _):
        assert regions(client) == {name: (f"/{name}", 0, 64)}
        client.triton.register_system_shared_memory("part", name, 16, offset=32)
        assert regions(client) == {name: (f"/{name}", 0, 64), "part": (name, 32, 16)}
        with pytest.raises(InferenceServerException) as error:
            client.triton.register_system_shared_memory("part", name, 16)
        assert error.value.status() in ("StatusCode.ALREADY_EXISTS", "400")
        assert "registered already" in error.value.message()
        client.triton.unregister_system_shared_memory("part")
        client.triton.unregister_system_shared_memory("part")
        assert list(regions(client)) == [name]
        status, text = refusal(client, client.triton.get_system_shared_memory_status, "part")
        assert status == 404 and "'part'" in text
        status, text = refusal(client, client.triton.register_system_shared_memory, "long", name, 1 << 20)
        assert status == 400 and "do not fit" in text
    status, text = refusal(client, client.triton.register_system_shared_memory, "gone", name, 16)
    assert status == 400 and name in text
    client.triton.unregister_system_shared_memory()
    assert regions(client) == {}


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "/../etc/passwd", "..", ""])
def test_keys_stay_in_their_directory(client, key):
    status, text = refusal(client, client.triton.register_system_shared_memory, "out", key, 16)
    assert status == 400 and "/dev/shm" in text


def test_links_are_not_followed(client):
    name = f"gristmill-{uuid.uuid4().hex}"
    os.symlink("/etc/passwd", f"/dev/shm/{name}")
    try:
        status, text = refusal(client, client.triton.register_system_shared_memory, "out", name, 16)
        assert status == 400 and "not a link" in text
    finally:
        os.unlink(f"/dev/shm/{name}")


def test_inputs_and_outputs_in_memory(client):
    rows = reference.rows("diabetes", "2", 5, seed=61)["measurements"]
    wanted = client.infer("diabetes", {"measurements": rows}, "2").outputs["progression"]
    with region(client, rows.nbytes + 64) as (name, handle):
        inputs = [in_memory(client, name, handle, rows, offset=16)]
        answer = client.triton.infer("diabetes", inputs, "2")
        np.testing.assert_array_equal(answer.as_numpy("progression"), wanted, strict=True)
        with region(client, 128) as (other, its_handle):
            outputs = [wanted_in_memory(client, other, "progression", 64, offset=64)]
            answer = client.triton.infer("diabetes", inputs, "2", outputs)
            written = shm.get_contents_as_numpy(its_handle, np.float32, wanted.shape, 64)
            np.testing.assert_array_equal(written, wanted, strict=True)
            assert_is_not_sent(client, answer.get_output("progression"))
            del written


def assert_is_not_sent(client: Client, output) -> None:
    """It has no parameters either: Triton's client in C++ fails on those that are not of binary data."""
    if client.protocol == "grpc":
        assert {field.name for field, _ in output.ListFields()} == {"name", "datatype", "shape"}
    else:
        assert output.keys() == {"name", "datatype", "shape"}


def test_some_tensors_in_memory_and_some_in_the_message(client):
    rows = reference.rows("breast_cancer", "1", 3, seed=62)
    wanted = client.infer("breast_cancer", rows).outputs
    names = list(rows)
    with region(client, 4096) as (name, handle):
        inputs = []
        for index, (column, value) in enumerate(rows.items()):
            tensor = client.types.InferInput(column, list(value.shape), "FP32")
            if index % 2:
                shm.set_shared_memory_region(handle, [value], 16 * index)
                tensor.set_shared_memory(name, value.nbytes, 16 * index)
            else:
                tensor.set_data_from_numpy(value)
            inputs.append(tensor)
        assert len(names) > 2
        # Labels are texts: each has its length in front.
        outputs = [
            client.requested_output("output_probability"),
            wanted_in_memory(client, name, "output_label", 1024, offset=2048),
        ]
        answer = client.triton.infer("breast_cancer", inputs, "1", outputs)
        np.testing.assert_array_equal(answer.as_numpy("output_probability"), wanted["output_probability"], strict=True)
        labels = shm.get_contents_as_numpy(handle, np.object_, [3], 2048)
        assert labels.tolist() == wanted["output_label"].tolist()


def test_texts_in_memory(protocol, tmp_path):
    (tmp_path / "texts" / "1").mkdir(parents=True)
    (tmp_path / "texts" / "1" / "model.onnx").write_bytes((FIXTURES / "string_pair.onnx").read_bytes())
    with served.serve("onnxruntime", FLAG, repository=tmp_path) as server, Client(server, protocol) as client:
        texts = np.array([["grüße".encode(), b""]], dtype=np.object_)
        contents = serialize_byte_tensor(texts)
        byte_size = len(contents.item())
        with region(client, 256) as (name, handle):
            shm.set_shared_memory_region(handle, [contents])
            tensor = client.types.InferInput("text", [1, 2], "BYTES")
            tensor.set_shared_memory(name, byte_size)
            output = wanted_in_memory(client, name, "same", 64, offset=128)
            client.triton.infer("texts", [tensor], outputs=[output])
            assert shm.get_contents_as_numpy(handle, np.object_, [1, 2], 128).tolist() == texts.tolist()
            # One byte less than it needs.
            output = wanted_in_memory(client, name, "same", byte_size - 1, offset=128)
            status, text = refusal(client, client.triton.infer, "texts", [tensor], outputs=[output])
            assert status == 400
            assert all(word in text for word in ("'same'", f"{byte_size} bytes", f"has {byte_size - 1}")), text
            tensor.set_shared_memory(name, byte_size - 1)
            status, text = refusal(client, client.triton.infer, "texts", [tensor])
            assert status == 400 and "'text'" in text
        client.triton.unregister_system_shared_memory()


def test_parts_that_are_not_there_are_named(client):
    rows = reference.rows("diabetes", "2", 1, seed=63)["measurements"]
    with region(client, 64) as (name, handle):
        inputs = [in_memory(client, name, handle, rows)]
        for change, words in [
            (("nothing", 40), ["'nothing'", "register"]),
            ((name, 40, 32), ["40 bytes", "offset 32", "64"]),
            ((name, 36), ["36 bytes"]),
        ]:
            inputs[0].set_shared_memory(*change)
            status, text = refusal(client, client.triton.infer, "diabetes", inputs)
            assert status == 400 and "'measurements'" in text
            assert all(word in text for word in words), text


def test_a_truncated_file_harms_nobody(sharing, client):
    rows = reference.rows("diabetes", "2", 5, seed=64)["measurements"]
    wanted = client.infer("diabetes", {"measurements": rows}, "2").outputs["progression"]
    name = f"gristmill-{uuid.uuid4().hex}"
    path = f"/dev/shm/{name}"
    with open(path, "wb") as file:
        file.write(rows.tobytes())
    try:
        client.triton.register_system_shared_memory(name, name, rows.nbytes)
        tensor = client.types.InferInput("measurements", list(rows.shape), "FP32")
        tensor.set_shared_memory(name, rows.nbytes)
        answer = client.triton.infer("diabetes", [tensor], "2")
        np.testing.assert_array_equal(answer.as_numpy("progression"), wanted, strict=True)
        os.truncate(path, 7)
        status, text = refusal(client, client.triton.infer, "diabetes", [tensor], "2")
        assert status == 400 and "truncated" in text and "has 7 bytes" in text
        inputs = [client.input("measurements", rows)]
        output = wanted_in_memory(client, name, "progression", rows.nbytes)
        status, text = refusal(client, client.triton.infer, "diabetes", inputs, "2", [output])
        assert status == 400 and "truncated" in text
        assert os.path.getsize(path) == 7
    finally:
        os.unlink(path)
    assert request(sharing.http, "GET", "/v2/health/ready").status == 200


def test_memory_of_gpus_is_off_by_default(client):
    triton = client.triton
    assert devices(client) == {}
    code, text = refusal(client, triton.register_cuda_shared_memory, "r", device_handle("r"), 0, 16)
    assert code == 501 and "--allow-cuda-shared-memory" in text
    assert refusal(client, triton.get_cuda_shared_memory_status, "r")[0] == 404
    triton.unregister_cuda_shared_memory("r")


def device_handle(name: str) -> bytes:
    """What `get_raw_handle` gives: in base64, the handle of an allocation, which is a file of that name here."""
    return base64.b64encode(name.encode().ljust(64, b"\0"))


def devices(client: Client) -> dict:
    status = client.triton.get_cuda_shared_memory_status()
    if client.protocol == "grpc":
        return {name: (region.device_id, region.byte_size) for name, region in status.regions.items()}
    return {region["name"]: (region["device_id"], region["byte_size"]) for region in status}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The directory of a library that stands in for NVIDIA's driver; `../fixtures/cuda/driver.c` says how."""
    directory = tmp_path_factory.mktemp("driver")
    source = served.ROOT / "server" / "app" / "tests" / "fixtures" / "cuda" / "driver.c"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(directory / "libcuda.so.1"), str(source)], check=True)
    return directory


@pytest.fixture(scope="module")
def with_gpu(driver):
    with served.serve("tract", "--allow-cuda-shared-memory", FLAG, LD_LIBRARY_PATH=str(driver)) as running:
        yield running


@pytest.fixture
def allocation():
    """An allocation of 256 bytes on the GPU that stands in: its name, and the bytes."""
    name = f"gristmill-{uuid.uuid4().hex}"
    with open(f"/dev/shm/{name}", "w+b") as file:
        file.truncate(256)
        with mmap.mmap(file.fileno(), 256) as memory:
            yield name, memory
    os.unlink(f"/dev/shm/{name}")


def test_tensors_in_memory_of_a_gpu(with_gpu, protocol, allocation):
    name, memory = allocation
    rows = reference.rows("diabetes", "2", 3, seed=65)["measurements"]
    with Client(with_gpu, protocol) as client:
        triton = client.triton
        assert {"system_shared_memory", "cuda_shared_memory"} <= extensions(client)
        triton.unregister_cuda_shared_memory()
        assert devices(client) == {}
        wanted = client.infer("diabetes", {"measurements": rows}, "2").outputs["progression"]
        triton.register_cuda_shared_memory("r", device_handle(name), 0, 200)
        assert devices(client) == {"r": (0, 200)} and regions(client) == {}
        memory[16 : 16 + rows.nbytes] = rows.tobytes()
        tensor = client.types.InferInput("measurements", list(rows.shape), "FP32")
        tensor.set_shared_memory("r", rows.nbytes, 16)
        output = wanted_in_memory(client, "r", "progression", 24, offset=160)
        answer = triton.infer("diabetes", [tensor], "2", [output])
        written = np.frombuffer(memory[160 : 160 + wanted.nbytes], dtype=np.float32).reshape(wanted.shape)
        np.testing.assert_array_equal(written, wanted, strict=True)
        assert_is_not_sent(client, answer.get_output("progression"))

        tensor.set_shared_memory("r", rows.nbytes, 96)
        status, text = refusal(client, triton.infer, "diabetes", [tensor], "2")
        assert status == 400 and "200" in text
        # The two kinds of memory share their names, and each order is about its own.
        with pytest.raises(InferenceServerException) as error:
            triton.register_system_shared_memory("r", name, 16)
        assert "registered already" in error.value.message()
        triton.unregister_system_shared_memory("r")
        assert devices(client) == {"r": (0, 200)}
        triton.unregister_cuda_shared_memory("r")
        assert devices(client) == {}


def test_allocations_that_are_not_there(with_gpu, protocol, allocation):
    name, _ = allocation
    with Client(with_gpu, protocol) as client:
        for handle, device, byte_size, words in [
            (device_handle(name), 0, 257, ["257 bytes", "has 256"]),
            (device_handle(name), 0, 0, ["byte_size is 0"]),
            (device_handle(name), 1, 16, ["GPU 1", "invalid device ordinal"]),
            (device_handle(name), -1, 16, ["device_id is -1"]),
            (device_handle("nothing"), 0, 16, ["invalid resource handle", "CUDA error 400"]),
            (base64.b64encode(b"short"), 0, 16, ["5 bytes", "64"]),
        ]:
            status, text = refusal(client, client.triton.register_cuda_shared_memory, "r", handle, device, byte_size)
            assert status == 400 and all(word in text for word in ["'r'", *words]), text
        assert devices(client) == {}


def test_a_server_without_a_driver_says_so(tmp_path):
    command = [served.binary(), "serve", "--repository", str(served.REPOSITORY), "--allow-cuda-shared-memory"]
    command += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--backend", "tract"]
    (tmp_path / "libcuda.so.1").write_text("no library")
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=served.ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "--allow-cuda-shared-memory: cannot open libcuda.so.1" in done.stderr + done.stdout


def test_the_extension_is_listed_where_it_is_on(server, client):
    assert "system_shared_memory" in extensions(client)
    with Client(server, client.protocol) as without:
        assert "system_shared_memory" not in extensions(without)
    assert "cuda_shared_memory" not in extensions(client)


def extensions(client: Client) -> set[str]:
    metadata = client.triton.get_server_metadata()
    return set(metadata.extensions if client.protocol == "grpc" else metadata["extensions"])


def test_off_by_default(server, protocol):
    with Client(server, protocol) as client:
        triton = client.triton
        for call, arguments in [
            (triton.get_system_shared_memory_status, ()),
            (triton.register_system_shared_memory, ("r", "r", 16)),
            (triton.unregister_system_shared_memory, ()),
        ]:
            status, text = refusal(client, call, *arguments)
            assert status == 501 and FLAG in text
        tensor = client.types.InferInput("measurements", [1, 10], "FP32")
        tensor.set_shared_memory("r", 40)
        status, text = refusal(client, triton.infer, "diabetes", [tensor])
        assert status == 400 and FLAG in text
