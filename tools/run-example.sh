#!/usr/bin/env bash
# Start a server with a data directory of its own, run examples/hello.py against it, and stop it again.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

scratch=$(mktemp -d /var/tmp/skerry-run.XXXXXX)
server=
stop() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        as_root kill "$server" 2>/dev/null || true
        wait 2>/dev/null || true
    fi
    [ "$status" = 0 ] || { echo "--- the server's log:" >&2; tail -40 "$scratch/log" >&2; }
    as_root rm -rf "$scratch"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

: >"$scratch/ready"
# A session of its own: Ctrl-C reaches this script only, which then stops the server once, in its own way.
as_root env SKERRY_SUBNET="${SKERRY_SUBNET:-10.213.0.0/16}" setsid .venv/bin/skerry up --json --port 0 --data-dir "$scratch/data" >"$scratch/ready" 2>"$scratch/log" </dev/null &
starter=$!
until grep -q '"api_url"' "$scratch/ready"; do
    kill -0 "$starter" 2>/dev/null || { echo "the server did not start" >&2; exit 1; }
    sleep 0.05
done

field() { .venv/bin/python -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$scratch/ready" "$1"; }
server=$(field pid)
SKERRY_API_URL=$(field api_url) SKERRY_API_KEY=$(field api_key) .venv/bin/python examples/hello.py
