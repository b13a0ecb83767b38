#!/usr/bin/env bash
# Asks a running server with grpcurl: no proto file, the server describes itself by reflection.
#
# usage: examples/shell/grpcurl.sh [HOST:PORT]          (the gRPC port, 127.0.0.1:8001 if not given)
#
# GRPCURL names the program if it is not called grpcurl. To have it:
# go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
set -euo pipefail

server=${1:-127.0.0.1:8001}
grpcurl=${GRPCURL:-grpcurl}

# The services that there are.
"$grpcurl" -plaintext "$server" list

# SERVING when every model serves: the standard health protocol, which Kubernetes asks too.
"$grpcurl" -plaintext -d '{"service": ""}' "$server" grpc.health.v1.Health/Check

# What the model takes and gives.
"$grpcurl" -plaintext -d '{"name": "diabetes"}' "$server" inference.GRPCInferenceService/ModelMetadata

# Two rows at once. -max-time is the call's deadline, in seconds: what cannot be in time is refused at once.
"$grpcurl" -plaintext -max-time 30 -d '{
  "model_name": "diabetes",
  "inputs": [{
    "name": "measurements", "datatype": "FP32", "shape": [2, 10],
    "contents": {"fp32_contents": [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87,
                                   48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69]}
  }]
}' "$server" inference.GRPCInferenceService/ModelInfer

# Errors have a code and a text that says what was expected.
"$grpcurl" -plaintext -d '{"name": "nothing"}' "$server" inference.GRPCInferenceService/ModelReady 2>&1 || true
"$grpcurl" -plaintext -d '{"name": "nothing"}' "$server" inference.GRPCInferenceService/ModelMetadata 2>&1 || true
