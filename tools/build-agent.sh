#!/usr/bin/env bash
# Build the in-sandbox agent: `tools/build-agent.sh amd64|arm64 OUTPUT`.
set -euo pipefail
cd "$(dirname "$0")/.."

architecture=$1
output=$PWD/$2
go=$PWD/.venv/bin/go

mkdir -p "$(dirname "$output")"
cd agent
CGO_ENABLED=0 GOOS=linux GOARCH=$architecture GOTOOLCHAIN=local GOFLAGS=-buildvcs=false \
    "$go" build -trimpath -ldflags "-s -w" -o "$output" .
echo "▸ built the agent for $architecture: $2"
