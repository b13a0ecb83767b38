"""Predictions over HTTP, with requests and nothing else.

usage: python3 examples/python/with_requests.py [HOST:PORT]          (the HTTP port, 127.0.0.1:8000 if not given)

needs: pip install requests
"""

import sys

import requests

ROWS = [[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87], [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]]
SECONDS_MAX = 30


def main() -> None:
    server = "http://" + (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000")
    # A session keeps its connection open between calls.
    with requests.Session() as session:
        print("ready:", session.get(f"{server}/v2/health/ready", timeout=SECONDS_MAX).status_code == 200)
        for tensor in session.get(f"{server}/v2/models/diabetes", timeout=SECONDS_MAX).json()["inputs"]:
            print("takes", tensor["name"], tensor["datatype"], tensor["shape"])

        # The Open Inference Protocol. The header is the deadline, in milliseconds: what cannot be in time is refused.
        measurements = {"name": "measurements", "datatype": "FP32", "shape": [len(ROWS), len(ROWS[0])], "data": ROWS}
        answer = post(session, f"{server}/v2/models/diabetes/infer", {"inputs": [measurements]})
        [progression] = answer["outputs"]
        print("progression:", progression["data"])

        # The same rows as clients of TensorFlow Serving and KServe V1 send them.
        print("predictions:", post(session, f"{server}/v1/models/diabetes:predict", {"instances": ROWS})["predictions"])

        # Errors have a status and a text that says what was expected.
        reply = session.post(f"{server}/v2/models/nothing/infer", json={"inputs": []}, timeout=SECONDS_MAX)
        print("refused:", reply.status_code, reply.json()["error"])


def post(session: requests.Session, url: str, body: dict) -> dict:
    reply = session.post(url, json=body, headers={"X-Request-Timeout": str(SECONDS_MAX * 1000)}, timeout=SECONDS_MAX)
    if not reply.ok:
        # 429 and 503 mean that it may go well later; Retry-After says when.
        raise RuntimeError(f"{reply.status_code}, retry after {reply.headers.get('Retry-After')} s: {reply.text}")
    return reply.json()


if __name__ == "__main__":
    main()
