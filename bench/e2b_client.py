"""E2B's own client, unmodified, and the native SDK on the same server, doing the same in turns.

Both are blocking clients in processes of their own and take their times themselves. Calls after the start go to one
sandbox that both use. At the end both do it once more with a server that answers at once: what they cost themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import child
from bench.clients.child import Child
from bench.report import Check, SuiteResult
from bench.rounds import Sampler, interleave
from bench.server import Server, pool_of, started
from bench.settings import Settings
from bench.stub import KEY, SIZE
from bench.work import FLAT_MIB, MIB, Watch

PYTHON = child.ROOT / "build" / "clients" / "e2b-2.45" / "bin" / "python"
TEMPLATE = "code-interpreter-v1"
POOL = 2
SETTLE_S = 3.0
LIMIT = 1.5
"""E2B's client may take that many times what the native SDK takes."""
FILE = "/home/user/payload"


class NoClient(Exception):
    """E2B's client is not installed."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Both, on one server."""

    e2b: Child
    native: Child

    def samplers(self, action: str, **arguments: Any) -> dict[str, Sampler]:
        """One sample of each."""

        def sampler(client: Child) -> Sampler:
            async def sample() -> float:
                return float(client.call(action, **arguments))

            return sample

        return {"e2b": sampler(self.e2b), "native": sampler(self.native)}

    def share_a_sandbox(self) -> None:
        self.native.call("use", sandbox=self.e2b.call("open"))


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that both can do. Notes: how each client does it."""

    action: str
    name: str
    e2b: str = ""
    native: str = ""
    limit: float | None = LIMIT


START = Case("start", "create → first `run_code('1+1')` result")
CALLS = (
    Case("run_code", "`run_code('1+1')`", limit=None),
    Case("command", "`true` by a login shell", "`commands.run`", "`exec`"),
)
WRITES = (
    Case("write", "{} MiB written", "bytes, as a form", "bytes"),
    Case("write_stream", "{} MiB written from an open file"),
)
READS = (Case("read", "{} MiB read"), Case("read_stream", "{} MiB read as a stream"))
OUTPUT = Case("output", "{} MB of a command's output", "Connect", "NDJSON", limit=None)


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("e2b", "E2B's client beside the native SDK")
    if not PYTHON.exists():
        raise NoClient("cannot measure E2B's client: it is not installed; run `make clients`")
    payload = settings.scratch / "payload"
    with (
        started({**pool_of(POOL), "SKERRY_POOL_TEMPLATE": TEMPLATE}) as server,
        _clients(server.api_url, server.api_key) as clients,
    ):
        await _starts(settings, result, server, clients)
        clients.share_a_sandbox()
        await _calls(settings, result, clients)
        await _files(settings, result, clients, payload)
        await _output(settings, result, server, clients)
        clients.e2b.call("close")
    await _alone(settings, result, payload)
    payload.unlink()
    return result


@contextmanager
def _clients(url: str, key: str) -> Iterator[Clients]:
    where = {
        "SKERRY_API_URL": url, "SKERRY_API_KEY": key, "E2B_API_URL": url, "E2B_SANDBOX_URL": url, "E2B_API_KEY": key,
    }  # fmt: skip
    with (
        child.started([PYTHON, "-m", "bench.clients.as_e2b"], where) as e2b,
        child.started([sys.executable, "-m", "bench.clients.as_native"], where) as native,
    ):
        yield Clients(e2b, native)


def _compare(result: SuiteResult, case: Case, times: Mapping[str, list[float]], size: int = 0) -> None:
    name = case.name.format(size)
    e2b = result.measure(f"{name}, E2B's client", times["e2b"], note=case.e2b)
    native = result.measure(f"{name}, native SDK", times["native"], note=case.native)
    result.compare(f"{name}: E2B's client ÷ native SDK", e2b, native, case.limit)


async def _starts(settings: Settings, result: SuiteResult, server: Server, clients: Clients) -> None:
    async def settle() -> None:
        await server.settle(POOL, SETTLE_S)

    await server.settle(POOL, 120.0)  # the first server of a machine also makes the template's warm image
    times = await interleave(
        clients.samplers(START.action), settings.count(40, 3), warm_up=2, before_each=settle,
        budget_s=settings.seconds(180, 60),
    )  # fmt: skip
    _compare(result, START, times)


async def _calls(settings: Settings, result: SuiteResult, clients: Clients) -> None:
    for case in CALLS:
        times = await interleave(
            clients.samplers(case.action), settings.count(100, 5), warm_up=3, budget_s=settings.seconds(60, 15)
        )
        _compare(result, case, times)


async def _files(settings: Settings, result: SuiteResult, clients: Clients, payload: Path) -> None:
    size = settings.count(64, 4)
    payload.write_bytes(os.urandom(size * MIB))
    for case in (*WRITES, *READS):
        more: dict[str, Any] = {"source": str(payload)} if case in WRITES else {"size": size * MIB}
        times = await interleave(
            clients.samplers(case.action, path=FILE, **more), settings.count(15, 2), budget_s=settings.seconds(40, 15)
        )
        _compare(result, case, times, size)


async def _output(settings: Settings, result: SuiteResult, server: Server, clients: Clients) -> None:
    size = settings.count(100, 5)
    growths: dict[str, list[float]] = {"e2b": [], "native": []}

    def watched(name: str, sample: Sampler) -> Sampler:
        async def watch() -> float | list[float] | None:
            with Watch(server.pid) as memory:
                taken = await sample()
            growths[name].append(memory.growth_mib)
            return taken

        return watch

    plain = clients.samplers(OUTPUT.action, size=size * 1_000_000)
    samplers = {name: watched(name, sample) for name, sample in plain.items()}
    times = await interleave(samplers, settings.count(5, 1), budget_s=settings.seconds(120, 60))
    _compare(result, OUTPUT, times, size)
    for name, client in (("e2b", "E2B's client"), ("native", "the native SDK")):
        grown = max(growths[name])
        check = Check(
            f"server memory during output to {client}", f"+{grown:.1f} MiB", f"≤ +{FLAT_MIB:g} MiB", grown <= FLAT_MIB
        )
        result.checks.append(check)


# --- by themselves ------------------------------------------------------------------------------------------------


@contextmanager
def _stub() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "bench.stub"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


async def _alone(settings: Settings, result: SuiteResult, payload: Path) -> None:
    """The clients' own part of what was measured before; of files, in the size that the stub has."""
    payload.write_bytes(os.urandom(SIZE))
    with _stub() as url, _clients(url, KEY) as clients:
        clients.share_a_sandbox()
        for case in (START, *CALLS, *WRITES, *READS):
            more: dict[str, Any] = {}
            if case in WRITES:
                more = {"path": FILE, "source": str(payload)}
            elif case in READS:
                more = {"path": FILE, "size": SIZE}
            rounds = settings.count(15, 2) if more else settings.count(100, 3)
            times = await interleave(clients.samplers(case.action, **more), rounds, warm_up=3, budget_s=30)
            name = case.name.format(SIZE // MIB)
            for key, client in (("e2b", "E2B's client"), ("native", "native SDK")):
                result.measure(f"{name}, {client} by itself", times[key], note="a server that answers at once")
