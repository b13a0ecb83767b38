"""Predictions through Triton's own Python client, over gRPC.

usage: python3 examples/python/with_tritonclient.py [HOST:PORT]          (the gRPC port, 127.0.0.1:8001 if not given)

needs: pip install 'tritonclient[grpc]'
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

ROWS = np.array(
    [[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87], [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]],
    dtype=np.float32,
)


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001")
    print("ready:", client.is_server_ready() and client.is_model_ready("diabetes"))

    metadata = client.get_model_metadata("diabetes")
    for tensor in metadata.inputs:
        print("takes", tensor.name, tensor.datatype, list(tensor.shape))

    # Arrays travel as they lie in memory. The deadline is the call's own: what cannot be in time is refused at once.
    rows = triton.InferInput("measurements", list(ROWS.shape), "FP32")
    rows.set_data_from_numpy(ROWS)
    answer = client.infer("diabetes", [rows], client_timeout=30.0)
    print("progression:", answer.as_numpy("progression").ravel().tolist())

    # Many at once: calls in flight are batched by the server, whoever sends them.
    answers = queue.Queue()
    for _ in range(8):
        client.async_infer("diabetes", [rows], callback=lambda result, error: answers.put(result or error))
    print("together:", [answers.get().as_numpy("progression").shape[0] for _ in range(8)])

    # Errors have a code and a text that says what was expected.
    try:
        client.infer("nothing", [rows])
    except InferenceServerException as error:
        print("refused:", error.status(), error.message())


if __name__ == "__main__":
    main()
