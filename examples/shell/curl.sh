#!/usr/bin/env bash
# Asks a running server with curl alone.
#
# usage: examples/shell/curl.sh [HOST:PORT]          (the HTTP port, 127.0.0.1:8000 if not given)
set -euo pipefail

server=http://${1:-127.0.0.1:8000}

# 200 when every model serves, 503 until then: what a load balancer or a container probe asks.
curl --silent --show-error --fail --output /dev/null "$server/v2/health/ready"
echo "ready"

# What the model takes and gives; -1 is any number of rows.
curl --silent --show-error --fail "$server/v2/models/diabetes"
echo

# Two rows at once, in the Open Inference Protocol. The answer has the outputs of both.
curl --silent --show-error --fail "$server/v2/models/diabetes/infer" --data '{
  "inputs": [{
    "name": "measurements", "datatype": "FP32", "shape": [2, 10],
    "data": [[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87],
             [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]]
  }]
}'
echo

# The same rows as clients of TensorFlow Serving and KServe V1 send them.
curl --silent --show-error --fail "$server/v1/models/diabetes:predict" --data '{
  "instances": [[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87],
                [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]]
}'
echo

# A deadline of 30 s: what cannot be in time is refused at once, with 503 or 504 and a reason.
curl --silent --show-error --fail "$server/predict/diabetes" --header "X-Request-Timeout: 30000" \
    --data '{"features": [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]}'
echo

# Errors have a status and a text that says what was expected. Without --fail curl prints it.
curl --silent --show-error --write-out ' (status %{http_code})\n' "$server/predict/nothing" \
    --data '{"features": [1]}'
