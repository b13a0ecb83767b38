"""Predictions over HTTP, with KServe's client.

usage: python3 examples/python/with_kserve.py [HOST:PORT]          (the HTTP port, 127.0.0.1:8000 if not given)

needs: pip install kserve
"""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

ROWS = [[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87], [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]]
SECONDS_MAX = 30
# The deadline, in milliseconds: what cannot be in time is refused.
HEADERS = {"X-Request-Timeout": str(SECONDS_MAX * 1000)}


async def main() -> None:
    server = "http://" + (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000")
    # The Open Inference Protocol, with binary tensors.
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=SECONDS_MAX)) as client:
        print("ready:", await client.is_server_ready(server), await client.is_model_ready(server, "diabetes"))
        measurements = InferInput("measurements", [len(ROWS), len(ROWS[0])], "FP32")
        measurements.set_data_from_numpy(np.array(ROWS, dtype=np.float32), binary_data=True)
        request = InferRequest("diabetes", [measurements])
        answer = await client.infer(server, request, model_name="diabetes", headers=dict(HEADERS))
        print("progression:", answer.outputs[0].as_numpy().ravel().tolist())

        # Errors have a status and a text that says what was expected.
        try:
            await client.infer(server, request, model_name="nothing", headers=dict(HEADERS))
        except httpx.HTTPStatusError as error:
            print("refused:", error)

    # The same rows by V1.
    async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=SECONDS_MAX)) as client:
        answer = await client.infer(server, {"instances": ROWS}, model_name="diabetes", headers=dict(HEADERS))
        print("predictions:", answer["predictions"])


if __name__ == "__main__":
    asyncio.run(main())
