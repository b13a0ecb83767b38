"""What KServe's own client must get, by V1, by the Open Inference Protocol with JSON and with binary tensors, and over
gRPC. `test_kserve.py` runs these in a process of their own."""

import asyncio
import os
import types

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

import reference

SECONDS_MAX = 60
NAMES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}


@pytest.fixture(scope="session")
def server():
    return types.SimpleNamespace(http=os.environ["SERVER_HTTP"], grpc=os.environ["SERVER_GRPC"])


def url(server) -> str:
    return f"http://{server.http}"


def question(model: str, tensors: reference.Tensors, binary: bool) -> InferRequest:
    inputs = []
    for name, value in tensors.items():
        tensor = InferInput(name, list(value.shape), NAMES[str(value.dtype)])
        tensor.set_data_from_numpy(value, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model, inputs)


def ask(server, kind: str, model: str, tensors: reference.Tensors):
    """The answer over that protocol."""

    async def over_grpc():
        async with InferenceGRPCClient(server.grpc, timeout=SECONDS_MAX, retries=0) as client:
            return await client.infer(question(model, tensors, True))

    async def over_http():
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=SECONDS_MAX)) as client:
            return await client.infer(url(server), question(model, tensors, kind == "binary"), model_name=model)

    return asyncio.run(over_grpc() if kind == "grpc" else over_http())


@pytest.mark.parametrize("kind", ["json", "binary", "grpc"])
@pytest.mark.parametrize("model", ["breast_cancer", "diabetes", "digits"])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_tensors(server, kind, model, rows):
    version = max(version for name, version in reference.MODELS if name == model)
    tensors = reference.rows(model, version, rows, seed=81)
    answer = ask(server, kind, model, tensors)
    assert answer.model_name == model
    # Over HTTP this client passes the version over.
    assert answer.model_version == (version if kind == "grpc" else None)
    wanted = reference.expected(model, version, tensors)
    assert {output.name for output in answer.outputs} == set(wanted)
    for output in answer.outputs:
        expected = wanted[output.name]
        if expected.dtype == np.object_:
            texts = [text.decode() if isinstance(text, bytes) else text for text in output.as_numpy().ravel()]
            assert texts == [text.decode() if isinstance(text, bytes) else text for text in expected.ravel()]
        else:
            np.testing.assert_allclose(output.as_numpy(), expected, rtol=1e-5, atol=1e-6)


def test_rows_by_v1(server):
    async def call():
        async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=SECONDS_MAX)) as client:
            assert await client.is_server_live(url(server)) is True
            assert await client.is_model_ready(url(server), "diabetes") is True
            rows = reference.rows("diabetes", "2", 3, seed=82)["measurements"]
            answer = await client.infer(url(server), {"instances": rows.tolist()}, model_name="diabetes")
            wanted = reference.expected("diabetes", "2", {"measurements": rows})["progression"]
            np.testing.assert_allclose(answer["predictions"], wanted, rtol=1e-5)
            with pytest.raises(httpx.HTTPStatusError) as error:
                await client.explain(url(server), "diabetes", {"instances": rows.tolist()})
            assert error.value.response.status_code == 501 and "explain" in str(error.value)
            with pytest.raises(httpx.HTTPStatusError) as error:
                await client.infer(url(server), {"instances": [[1, 2]]}, model_name="diabetes")
            assert error.value.response.status_code == 400 and "takes 10 features per row" in str(error.value)

    asyncio.run(call())


def test_health(server):
    async def call():
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=SECONDS_MAX)) as client:
            assert await client.is_server_live(url(server)) is True
            assert await client.is_server_ready(url(server)) is True
            assert await client.is_model_ready(url(server), "digits") is True
            assert await client.is_model_ready(url(server), "nothing") is False
        async with InferenceGRPCClient(server.grpc, timeout=SECONDS_MAX, retries=0) as client:
            assert await client.is_server_live() is True
            assert await client.is_server_ready() is True
            assert await client.is_model_ready("digits") is True

    asyncio.run(call())


def test_errors(server):
    rows = {"measurements": np.zeros((1, 9), dtype=np.float32)}
    for kind in ("json", "binary"):
        with pytest.raises(httpx.HTTPStatusError) as error:
            ask(server, kind, "diabetes", rows)
        assert error.value.response.status_code == 400 and "'measurements'" in str(error.value)
        with pytest.raises(httpx.HTTPStatusError) as error:
            ask(server, kind, "nothing", rows)
        assert error.value.response.status_code == 404 and "model 'nothing'" in str(error.value)
    for model, code in [("diabetes", grpc.StatusCode.INVALID_ARGUMENT), ("nothing", grpc.StatusCode.NOT_FOUND)]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            ask(server, "grpc", model, rows)
        assert refused.value.code() == code
