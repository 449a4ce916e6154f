#!/usr/bin/env bash
# Third-party clients that the tests run unmodified, each generation in an environment of its own below build/clients.
set -euo pipefail
cd "$(dirname "$0")/.."

python_client() {
    local name=$1 directory=build/clients/$1
    shift
    local wanted="$* $(.venv/bin/python -c 'import sys; print(sys.version_info[:2], sys.base_prefix)')"
    if [ "$(cat "$directory/.installed" 2>/dev/null)" = "$wanted" ]; then return; fi
    printf '\033[1m▸\033[0m installing the client %s\n' "$name"
    .venv/bin/python -m venv --clear "$directory"
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --retries 5 \
        "$@" pytest pytest-asyncio pytest-timeout
    printf '%s\n' "$wanted" >"$directory/.installed"
}

# The oldest pair that is supported, and the newest: a code interpreter works with the SDK of its own time only.
python_client e2b-2.45 e2b==2.45.1 e2b-code-interpreter==2.9.1
python_client e2b-2.63 e2b==2.63.0 e2b-code-interpreter==2.11.5
