"""A server for one call, when none is running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skerry.errors import Error, ServerUnreachable
from skerry.sdk._sync.server import Server

_STOP_S = 30


@contextmanager
def reachable_server() -> Iterator[dict[str, Any]]:
    """Arguments for `Sandbox.create`: of the server that runs, or of one that is started for as long as this lasts.

    Raises:
        ServerUnreachable: SKERRY_API_URL names a server that does not answer, or none can be started here.
    """
    if os.environ.get("SKERRY_API_URL"):
        Server().health()
        yield {}
        return
    if _answers():
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="skerry-") as directory, _started(Path(directory)) as ready:
        yield {"api_url": ready["api_url"], "api_key": ready["api_key"]}


def _answers() -> bool:
    try:
        Server().health()
    except Error:
        return False
    return True


@contextmanager
def _started(directory: Path) -> Iterator[dict[str, Any]]:
    print("no server is running: starting one for this call", file=sys.stderr)
    log = directory / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "skerry", "up", "--json", "--port", "0", "--data-dir", str(directory / "data")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            env={"SKERRY_POOL_MIN": "1", "SKERRY_SUBNET": "10.212.0.0/16", **os.environ},
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            said = log.read_text(errors="replace").strip().splitlines()
            raise ServerUnreachable(f"cannot start a server: {said[-1] if said else 'it said nothing'}")
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
