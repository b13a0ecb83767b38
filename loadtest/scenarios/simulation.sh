#!/usr/bin/env bash
# Whether `gristmill plan` says what a server does: records two loads against a real server, below its capacity and
# beyond it, plays what was recorded, and compares the goodputs.
#
#     simulation.sh [GRISTMILL [GRISTMILL_LOADTEST]]
#
# The model takes about a millisecond a row. It has one worker, so that sockets and the generator have a core of their
# own on a machine with two. Run times are those that the server knew before each load. Exits with 2 if a goodput
# differs by more than a tenth. SECONDS_EACH=20 says how long each load is, SERVER what serves instead of GRISTMILL.
set -euo pipefail

gristmill=${1:-target/release/gristmill}
loadtest=${2:-target/release/gristmill-loadtest}
seconds=${SECONDS_EACH:-20}
slo_ms=50
model=benches/fixtures/convolutions.onnx

work=$(mktemp -d)
mkdir -p "$work/models/convolutions/1"
cp "$model" "$work/models/convolutions/1/model.onnx"
printf 'instances = 1\nthreads = 1\n' > "$work/models/convolutions/model.toml"

# shellcheck disable=SC2086 # may be a program and its arguments
${SERVER:-$gristmill} serve --repository "$work/models" --http 127.0.0.1:0 --grpc 127.0.0.1:0 --metrics 127.0.0.1:0 \
    --lame-duck 0s --log warn --ready-file "$work/ready.json" > "$work/log" 2>&1 &
server=$!
finish() {
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
    rm -rf "$work"
}
trap finish EXIT
while [ ! -e "$work/ready.json" ]; do
    kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
    sleep 0.02
done
address() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" "$work/ready.json"; }
latency_model=http://$(address http)/v2/models/convolutions/latency-model

# A value of a JSON file, by a Python expression of the document.
value() { python3 -s -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }
load() { "$loadtest" run --grpc "$(address grpc)" --model convolutions --warmup 0s --quiet "$@"; }

# Fills the cost model, and says what the server can do at all.
load --concurrency 32 --duration "$((seconds / 4 + 1))s" --output "$work/full.json" > /dev/null
capacity=$(value "$work/full.json" 'd["phases"][0]["total"]["ok_per_s"]')
printf 'capacity %.0f/s, SLO %s ms\n\n%-10s%12s%16s%17s%10s\n' \
    "$capacity" "$slo_ms" load offered/s 'in time/s, real' 'in time/s, sim.' ratio

missed=0
for share in 0.7 1.5; do
    rate=$(python3 -s -c "print(round($share * $capacity))")
    curl -sf "$latency_model" > "$work/latency_model.json"
    load --rate "$rate" --arrivals poisson --seed 1 --timeout "${slo_ms}ms" --slo-ms "$slo_ms" \
        --duration "${seconds}s" --trace "$work/trace.csv" --output "$work/load.json" > /dev/null
    "$gristmill" plan --trace "$work/trace.csv" --latency-model "$work/latency_model.json" --slo "${slo_ms}ms" \
        --cores 1 --json > "$work/plan.json" || true # 1 where a core is not enough, which is meant here
    real=$(value "$work/load.json" 'd["phases"][0]["total"]["good_per_s"]')
    simulated=$(value "$work/plan.json" 'next(t["goodput_per_s"] for t in d["trials"] if t["cores"] == 1)')
    verdict=$(python3 -s -c "r = $simulated / max($real, 1e-9); print(f'{r:.3f}', 'met' if abs(r - 1) <= 0.1 else 'MISSED')")
    printf '%-10s%12.0f%16.1f%17.1f%10s %s\n' "$share" "$rate" "$real" "$simulated" ${verdict}
    case $verdict in *MISSED) missed=2 ;; esac
done
exit "$missed"
