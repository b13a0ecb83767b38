#!/usr/bin/env bash
# Loads a running server with Triton's perf_analyzer, which also reads the server's own statistics.
#
# usage: loadtest/recipes/perf_analyzer.sh grpc|http [HOST:PORT] [perf_analyzer flags]
#
#   loadtest/recipes/perf_analyzer.sh grpc 127.0.0.1:8001
#   loadtest/recipes/perf_analyzer.sh http 127.0.0.1:8000 -m diabetes -b 8 --concurrency-range 4:16:4
#
# The binary is inside PyPI's tritonclient wheel (PyPI's perf-analyzer is an empty stub). It is fetched through pip into
# .cache/perf_analyzer the first time, with the two libraries that it needs and most machines lack: CUDA's runtime
# from PyPI, and libb64 from Debian's or Ubuntu's package, taken apart rather than installed. Linux on x86-64 only.
set -euo pipefail

protocol=${1:-}
case $protocol in
    grpc) address=127.0.0.1:8001 ;;
    http) address=127.0.0.1:8000 ;;
    *) sed -n 's/^# \{0,1\}//; 2,7p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
shift
if [[ $# -gt 0 && $1 != -* ]]; then
    address=$1
    shift
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$root/.cache/perf_analyzer
analyzer=$cache/perf_analyzer-2.51.0

fail() {
    echo "perf_analyzer: $1" >&2
    exit 1
}

wheel() { # requirement, hash
    echo "$1 --hash=sha256:$2" >"$scratch/requirement.txt"
    python3 -m pip --quiet download --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --require-hashes \
        --requirement "$scratch/requirement.txt" --dest "$scratch" || fail "pip could not fetch $1"
}

if [[ ! -x $analyzer ]]; then
    [[ $(uname -sm) == "Linux x86_64" ]] || fail "the binary is for Linux on x86-64, this is $(uname -sm)"
    mkdir -p "$cache/lib"
    scratch=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    wheel tritonclient==2.51.0 c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52
    wheel nvidia-cuda-runtime-cu12==12.9.79 25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
    python3 - "$scratch" "$cache/lib" <<'EOF'
import pathlib, sys, zipfile

scratch, libraries = map(pathlib.Path, sys.argv[1:])
wanted = {"perf_analyzer": scratch, "libcudart.so.12": libraries}
for wheel in scratch.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            directory = wanted.get(pathlib.PurePosixPath(name).name)
            if directory is not None:
                (directory / pathlib.PurePosixPath(name).name).write_bytes(archive.read(name))
EOF
    if ! ldconfig -p | grep -q 'libb64\.so\.0d'; then
        # Lists of packages of its own: a system's may be old, or missing as in most containers.
        mkdir -p "$scratch/lists/partial"
        lists=(-o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
        (cd "$scratch" && apt-get "${lists[@]}" update && apt-get "${lists[@]}" download libb64-0d &&
            dpkg-deb -x libb64-0d_*.deb libb64) >"$scratch/log" 2>&1 ||
            fail "libb64.so.0d is missing: apt-get install libb64-0d, or your system's package of libb64"
        cp "$scratch"/libb64/usr/lib/*/libb64.so.0d "$cache/lib/"
    fi
    chmod +x "$scratch/perf_analyzer"
    missing=$(LD_LIBRARY_PATH=$cache/lib ldd "$scratch/perf_analyzer" | sed -n 's/^\s*\(.*\) => not found/\1/p' | paste -sd ' ')
    [[ -z $missing ]] || fail "libraries are missing: $missing"
    mv "$scratch/perf_analyzer" "$analyzer"
    rm -rf "$scratch"
    trap - EXIT
fi

# Given flags take the place of these. perf_analyzer reports only what it finds stable: 10 % is its own default, which a
# shared machine seldom meets.
given=" $* "
defaults=()
default() {
    [[ $given == *" $1"[\ =]* ]] || defaults+=("$@")
}
default -m digits
[[ $given == *" --request-rate-range"[\ =]* ]] || default --concurrency-range 1:8
default --measurement-interval 2000
default --stability-percentage 30
LD_LIBRARY_PATH=$cache/lib exec "$analyzer" -i "$protocol" -u "$address" "${defaults[@]}" "$@"
