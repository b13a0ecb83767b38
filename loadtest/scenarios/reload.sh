#!/usr/bin/env bash
# A server whose model is replaced 200 times while it serves: the `server` command of reload.toml.
#
#     reload.sh READY_FILE [GRISTMILL]
#
# Serves a repository of its own on free ports. Once it is ready, new versions appear one after the other: most by
# one rename, every tenth by a slow copy, every tenth corrupt; labels move and versions are rolled back in between.
# Ends with the server on SIGTERM, and says how many changes there were.
set -euo pipefail

ready_file=$1
gristmill=${2:-target/release/gristmill}
models=models/diabetes
changes=200

work=$(mktemp -d)
repository=$work/models
mkdir -p "$repository/diabetes/1"
cp "$models/1/model.onnx" "$repository/diabetes/1/"
# Replaced versions go at once: each retirement is part of the exercise.
printf 'versions = { latest = 2 }\nkeep_previous = "0s"\nwatch = "off"\n' > "$repository/diabetes/model.toml"

"$gristmill" serve --repository "$repository" --http 127.0.0.1:0 --grpc 127.0.0.1:0 --metrics 127.0.0.1:0 \
    --lame-duck 0s --settle-time 50ms --log warn --ready-file "$work/ready.json" &
server=$!
finish() {
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
    rm -rf "$work"
    echo "reload.sh: $done_changes of $changes changes: $loaded loaded, $corrupt corrupt, $labels labels moved," \
        "$rolled_back rolled back" >&2
}
done_changes=0 loaded=0 corrupt=0 labels=0 rolled_back=0
trap 'finish; exit 0' TERM INT

while [ ! -e "$work/ready.json" ]; do
    kill -0 "$server"
    sleep 0.02
done
grpc=$(sed 's/.*"grpc":"\([^"]*\)".*/\1/' "$work/ready.json")
mv "$work/ready.json" "$ready_file"

models_command() {
    "$gristmill" models "$@" --server "$grpc"
}

# Waits until requests without a version get this one.
until_served() {
    until models_command show diabetes --json | grep -q "\"default_version\":$1,"; do sleep 0.02; done
}

version=1
while [ "$done_changes" -lt "$changes" ]; do
    version=$((version + 1))
    source=$models/$((version % 2 + 1))/model.onnx
    target=$repository/diabetes/$version
    case $((done_changes % 10)) in
        3)
            mkdir "$work/next"
            head -c 1000 "$source" > "$work/next/model.onnx"
            mv "$work/next" "$target"
            corrupt=$((corrupt + 1))
            sleep 0.2
            rm -r "$target"
            ;;
        5)
            models_command label diabetes stable "$((version - 1))" > /dev/null
            models_command label diabetes stable 0 > /dev/null
            version=$((version - 1))
            labels=$((labels + 1))
            ;;
        7)
            # Only where a version is there to go back to.
            if models_command rollback diabetes --reason "reload.sh" > /dev/null 2>&1; then
                rolled_back=$((rolled_back + 1))
                models_command load diabetes > /dev/null
            fi
            version=$((version - 1))
            ;;
        9)
            mkdir "$target"
            size=$(stat -c %s "$source")
            for part in 1 2 3 4; do
                head -c "$((size * part / 4))" "$source" > "$target/model.onnx"
                sleep 0.03
            done
            until_served "$version"
            loaded=$((loaded + 1))
            ;;
        *)
            mkdir "$work/next"
            cp "$source" "$work/next/model.onnx"
            mv "$work/next" "$target"
            until_served "$version"
            loaded=$((loaded + 1))
            ;;
    esac
    rm -rf "$repository/diabetes/$((version - 3))"
    done_changes=$((done_changes + 1))
done
echo "reload.sh: all $changes changes are made; serving on" >&2
wait "$server"
