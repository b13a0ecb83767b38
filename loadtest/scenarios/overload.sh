#!/usr/bin/env bash
# A server on one core, with one model under two names: the `server` command of overload.toml.
#
#     overload.sh READY_FILE [CORE [GRISTMILL]]
#
# `in_time` promises answers within 100 ms. `eager` is served as most servers do: first come, first served, with no
# promise and no bound worth the name. Only one of them is asked at a time.
set -euo pipefail

ready_file=$1
core=${2:-0}
gristmill=${3:-target/release/gristmill}

# Made again by each run. The server takes this process's place, so that what it uses is the server's.
models=target/scenarios/overload
rm -rf "$models"
for model in in_time eager; do
    mkdir -p "$models/$model/1"
    cp benches/fixtures/convolutions.onnx "$models/$model/1/model.onnx"
done
echo 'slo = "100ms"' > "$models/in_time/model.toml"
echo 'queue = { order = "arrival", rows_max = 1000000, bytes_max = 100000000000 }' > "$models/eager/model.toml"

exec taskset --cpu-list "$core" "$gristmill" serve --repository "$models" --http 127.0.0.1:0 --grpc 127.0.0.1:0 \
    --metrics 127.0.0.1:0 --lame-duck 0s --drain-timeout 1s --log warn --ready-file "$ready_file"
