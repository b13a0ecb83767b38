#!/usr/bin/env bash
# Asks a running server by hand with grpcurl: no proto file, the server describes itself by reflection.
#
# usage: loadtest/recipes/grpcurl.sh [HOST:PORT]          (the gRPC port, 127.0.0.1:8001 if not given)
#
# grpcurl is installed with Go's own client into .cache/bin the first time.
set -euo pipefail

address=${1:-127.0.0.1:8001}
recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
grpcurl=$("$recipes/../../.ci/get-go-program" github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4)

ask() {
    echo "== $*"
    "$grpcurl" -plaintext "$@"
}

ask "$address" list
ask "$address" inference.GRPCInferenceService/ServerMetadata
ask -d '{"service": ""}' "$address" grpc.health.v1.Health/Check
ask -d '{"name": "diabetes"}' "$address" inference.GRPCInferenceService/ModelMetadata
ask -d "$(cat "$recipes/diabetes.json")" "$address" inference.GRPCInferenceService/ModelInfer
