"""A Skerry server of the benchmark's own, started as a person would start it, and looked at from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import anyio

from bench import procs
from bench.api import RawApi

QUIET_CORES = 0.2
"""A machine that does less than this is at rest: a claimed sandbox that idles takes a few hundredths."""
START_TIMEOUT_S = 120.0
"""For the ready line; then the server is killed."""
SUBNET = os.environ.get("SKERRY_SUBNET", "10.219.0.0/16")
"""Apart from the default, so that a server in use on this machine is not disturbed."""
PROGRAM = ("-m", "skerry")


def pool_of(size: int) -> dict[str, str]:
    """The settings of a server that keeps exactly `size` sandboxes ready."""
    return {"SKERRY_POOL_MIN": str(size), "SKERRY_POOL_MAX": str(size)}


class Access(TypedDict):
    """What the SDK needs to know to reach a server."""

    api_url: str
    api_key: str


class ServerFailed(Exception):
    """The server did not start, or died."""


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], ready: Mapping[str, Any], log: Path) -> None:
        self.process, self.log, self.ready = process, log, ready
        self.api_url: str = ready["api_url"]
        self.api_key: str = ready["api_key"]
        self.pid: int = ready["pid"]

    @property
    def sdk_options(self) -> Access:
        return {"api_url": self.api_url, "api_key": self.api_key}

    @contextmanager
    def api(self) -> Iterator[RawApi]:
        """A connection with as little client as there can be."""
        api = RawApi(self.api_url, self.api_key)
        try:
            yield api
        finally:
            api.close()

    def memory(self) -> procs.Memory:
        """Of the server process alone."""
        return procs.memory([self.pid])

    async def settle(self, idle: int | None = None, timeout_s: float = 60.0) -> bool:
        """Wait until the pool holds `idle` sandboxes (None: what it likes to hold) and the server does nothing.

        Returns whether that came within `timeout_s`: a benchmark goes on without, and says what was not from the pool.
        """
        deadline = time.monotonic() + timeout_s
        with self.api() as api:
            while time.monotonic() < deadline:
                ready = None if idle is None else pool_idle(api.text("/metrics"))
                full = idle is None or ready is None or ready >= idle
                if full and await self._busy_share() < QUIET_CORES:
                    return True
        return False

    async def _busy_share(self, during_s: float = 0.15) -> float:
        """Cores used on this machine meanwhile, except by this process."""
        before, own, start = _busy_s(), time.process_time(), time.perf_counter()
        await anyio.sleep(during_s)
        return (_busy_s() - before - (time.process_time() - own)) / (time.perf_counter() - start)


def _busy_s() -> float:
    times = procs.machine_cpu_s()
    return sum(times.values()) - times["idle"] - times["iowait"] - times["steal"]


def pool_idle(metrics: str) -> int | None:
    """How many sandboxes are ready to be claimed, summed over templates, by the server's metrics; None: not there."""
    found = re.findall(r"^skerry_pool_idle(?:\{[^}]*\})? ([0-9.e+]+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in found)) if found else None


@contextmanager
def started(
    settings: Mapping[str, str] | None = None, data: Path | None = None, program: Sequence[str] = PROGRAM
) -> Iterator[Server]:
    """`skerry up`, ended by SIGTERM.

    Args:
        data: its data directory, which stays; None: one of its own, removed at the end.
        program: what Python runs as `skerry`.

    Raises:
        ServerFailed: no ready line; the message holds the end of the log.
    """
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as directory:
        log = Path(directory) / "server.log"
        data = data or Path(directory) / "data"
        command = [sys.executable, *program, "up", "--json", "--port", "0", "--data-dir", str(data)]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, "SKERRY_SUBNET": os.environ.get("SKERRY_SUBNET", SUBNET), **(settings or {})},
            )  # fmt: skip
        try:
            yield Server(process, _ready_line(process, log), log)
        finally:
            _stop(process)


def _ready_line(process: subprocess.Popen[bytes], log: Path) -> Mapping[str, Any]:
    assert process.stdout is not None
    too_late = threading.Timer(START_TIMEOUT_S, process.kill)
    too_late.start()
    line = process.stdout.readline()
    too_late.cancel()
    if not line:
        raise ServerFailed(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")
    ready: Mapping[str, Any] = json.loads(line)
    return ready


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    if process.stdout is not None:
        process.stdout.close()
