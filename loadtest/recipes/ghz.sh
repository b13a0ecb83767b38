#!/usr/bin/env bash
# Loads a running server with ghz: no proto file, the server describes itself by reflection.
#
# usage: loadtest/recipes/ghz.sh [HOST:PORT] [ghz flags]   (the gRPC port, 127.0.0.1:8001 if not given)
#
#   loadtest/recipes/ghz.sh 127.0.0.1:8001                            64 in flight for 10 s
#   loadtest/recipes/ghz.sh 127.0.0.1:8001 --rps 2000 --duration 30s  at a fixed rate
#
# ghz is installed with Go's own client into .cache/bin the first time. It counts latency from the moment at
# which it really sends, so a stall shows up less here than with gristmill-loadtest.
set -euo pipefail

address=127.0.0.1:8001
if [[ $# -gt 0 && $1 != -* ]]; then
    address=$1
    shift
fi
recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ghz=$("$recipes/../../.ci/get-go-program" github.com/bojand/ghz/cmd/ghz@v0.121.0)

# Given flags take the place of these; ghz refuses a flag that comes twice.
given=" $* "
defaults=()
default() {
    [[ $given == *" $1"[\ =]* ]] || defaults+=("$@")
}
default --concurrency 64
default --connections 4
[[ $given == *" --total"[\ =]* || $given == *" -n "* ]] || default --duration 10s
default --duration-stop wait
exec "$ghz" --insecure --call inference.GRPCInferenceService/ModelInfer --data-file "$recipes/diabetes.json" \
    "${defaults[@]}" "$@" "$address"
