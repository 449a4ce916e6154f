#!/usr/bin/env bash
# Build the in-sandbox agent: `tools/build-agent.sh [amd64|arm64] [output]`. Default: for this machine, to build/agent.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-$(uname -m)}" in
    amd64 | x86_64) architecture=amd64 ;;
    arm64 | aarch64) architecture=arm64 ;;
    *) echo "build-agent: cannot build for $1: it is amd64 or arm64" >&2; exit 2 ;;
esac
output=$PWD/${2:-build/agent}
go=$PWD/.venv/bin/go

mkdir -p "$(dirname "$output")"
cd agent
CGO_ENABLED=0 GOOS=linux GOARCH=$architecture GOTOOLCHAIN=local GOFLAGS=-buildvcs=false \
    "$go" build -trimpath -ldflags "-s -w" -o "$output" .
echo "▸ built the agent for $architecture: ${output#"$OLDPWD"/}"
