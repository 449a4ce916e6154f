"""How fast bytes move: files in and out, and a process's output, with the server's memory watched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.api import BLOCK, RawApi, files_path
from bench.report import Check, SuiteResult
from bench.rounds import Sampler, interleave
from bench.server import Server, started
from bench.settings import Settings

MIB = 1024 * 1024
TARGET_MIB_S = 300.0
FLAT_MIB = 32.0
"""Growth of the server while output streams that still counts as flat: buffers of a few streams, not the output."""


class Blocks:
    """A readable of `size` bytes that do not compress; costs the client nothing but a slice."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._block = os.urandom(BLOCK)

    def read(self, size: int = -1, /) -> bytes:
        taken = min(self._left, BLOCK if size < 0 else min(size, BLOCK))
        self._left -= taken
        return self._block[:taken]


@contextmanager
def echo_server() -> Iterator[RawApi]:
    """The plain uvicorn server in a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "bench.echo"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        api = RawApi(process.stdout.readline().decode().strip(), "none")
        yield api
        api.close()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


class Watch:
    """A process's resident memory, sampled by a thread every 20 ms."""

    def __init__(self, pid: int) -> None:
        self._path, self._stop = Path(f"/proc/{pid}/statm"), threading.Event()
        self._page_mib = os.sysconf("SC_PAGE_SIZE") / MIB
        self.samples = [self._now()]
        self._thread = threading.Thread(target=self._loop)

    def _now(self) -> float:
        return int(self._path.read_text().split()[1]) * self._page_mib

    def _loop(self) -> None:
        while not self._stop.wait(0.02):
            self.samples.append(self._now())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth_mib(self) -> float:
        return max(self.samples) - self.samples[0]


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("work", "How fast bytes move")
    with started() as server, server.api() as api, echo_server() as echo:
        created = api.create(disk_mib=4096, memory_mib=1024, timeout_s=None)
        await _files(settings, result, server, api, echo, created["id"])
        _output(settings, result, server, api, created["id"])
        api.destroy(created["id"])
    return result


async def _files(
    settings: Settings, result: SuiteResult, server: Server, api: RawApi, echo: RawApi, sandbox_id: str
) -> None:
    size = settings.count(256, 16) * MIB
    path = files_path(sandbox_id, "/home/user/big")
    host_file = settings.scratch / "host-file"

    def rate(move: Callable[[], object]) -> Sampler:
        async def sample() -> float:
            start = time.perf_counter()
            move()
            return size / MIB / (time.perf_counter() - start)

        return sample

    def host_write() -> None:
        source = Blocks(size)
        with host_file.open("wb", buffering=0) as file:
            while block := source.read():
                file.write(block)
            os.fsync(file.fileno())
        host_file.unlink()

    samplers = {
        "upload": rate(lambda: api.upload(path, Blocks(size), size)),
        "download": rate(lambda: _whole(api.download(path), size)),
        "echo up": rate(lambda: echo.upload("/bytes", Blocks(size), size)),
        "echo down": rate(lambda: _whole(echo.download(f"/bytes?size={size}"), size)),
        "host": rate(host_write),
    }
    api.upload(path, Blocks(size), size)
    with Watch(server.pid) as watch:
        rates = await interleave(samplers, settings.count(10, 2), budget_s=settings.seconds(180, 30))
    mib = size // MIB
    up = result.measure(f"upload of {mib} MiB", rates["upload"], "MiB/s", "HTTP; renamed when whole")
    down = result.measure(f"download of {mib} MiB", rates["download"], "MiB/s", "HTTP")
    echo_up = result.measure("the same bytes into a plain uvicorn server", rates["echo up"], "MiB/s", "kept nowhere")
    echo_down = result.measure("the same bytes out of a plain uvicorn server", rates["echo down"], "MiB/s")
    result.measure("a file on the host, written and fsynced", rates["host"], "MiB/s")
    result.compare("upload ÷ plain uvicorn", up, echo_up)
    result.compare("download ÷ plain uvicorn", down, echo_down)
    for name, ours, plain in (("upload", up, echo_up), ("download", down, echo_down)):
        if ours is not None and plain is not None:
            median, floor = ours.summary.median, min(TARGET_MIB_S, plain.summary.median / 2)
            limit = f"≥ {TARGET_MIB_S:g} MiB/s or half of plain uvicorn: {floor:.0f}"
            result.checks.append(Check(f"{name} of {mib} MiB", f"{median:.0f} MiB/s", limit, median >= floor))
    result.facts["server memory grew during the transfers by"] = f"{watch.growth_mib:.1f} MiB"


def _whole(got: int, expected: int) -> None:
    if got != expected:
        raise RuntimeError(f"a download was cut short: {got} of {expected} bytes")


def _output(settings: Settings, result: SuiteResult, server: Server, api: RawApi, sandbox_id: str) -> None:
    """A process that writes 100 MB, read as it comes and by a reader that stops for two seconds."""
    size = settings.count(100, 5) * 1_000_000
    body = {"command": ["head", "-c", str(size), "/dev/zero"]}
    path = f"/v1/sandboxes/{sandbox_id}/processes/stream"
    for name, pause_s in (("a steady reader", 0.0), ("a reader that stops for 2 s", 2.0)):
        rates, growths = list[float](), list[float]()
        for _ in range(settings.count(5, 1)):
            with Watch(server.pid) as watch:
                start = time.perf_counter()
                encoded = 0
                for number, line in enumerate(api.lines(path, body)):
                    encoded += len(line)
                    if number == 3:
                        time.sleep(pause_s)
                rates.append(size / MIB / (time.perf_counter() - start - pause_s))
            if encoded < size * 4 / 3:
                result.failures.append(f"output was lost: {encoded} bytes of NDJSON for {size} bytes of output")
            growths.append(watch.growth_mib)
        result.measure(f"{size // 1_000_000} MB of process output, {name}", rates, "MiB/s", "NDJSON, base64")
        grown = max(growths)
        result.checks.append(
            Check(
                f"server memory during output, {name}", f"+{grown:.1f} MiB", f"≤ +{FLAT_MIB:g} MiB", grown <= FLAT_MIB
            )
        )
