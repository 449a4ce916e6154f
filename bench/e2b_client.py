"""E2B's own client, unmodified, and the native SDK on the same server, doing the same in turns.

Both are blocking clients in processes of their own and take their times themselves. Calls after the start go to one
sandbox that both use.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from bench.clients import child
from bench.clients.child import Child
from bench.report import Check, SuiteResult
from bench.rounds import Sampler, interleave
from bench.server import Server, pool_of, started
from bench.settings import Settings
from bench.work import FLAT_MIB, MIB, Watch

PYTHON = child.ROOT / "build" / "clients" / "e2b-2.45" / "bin" / "python"
AS_E2B, AS_NATIVE = ("-m", "bench.clients.as_e2b"), ("-m", "bench.clients.as_native")
TEMPLATE = "code-interpreter-v1"
POOL = 2
SETTLE_S = 5.0
LIMIT = 1.5
"""E2B's client may take that many times what the native SDK takes."""


class NoClient(Exception):
    """E2B's client is not installed."""


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("e2b", "E2B's client beside the native SDK")
    if not PYTHON.exists():
        raise NoClient("cannot measure E2B's client: it is not installed; run `make clients`")
    with started({**pool_of(POOL), "SKERRY_POOL_TEMPLATE": TEMPLATE}) as server:
        where = {
            "SKERRY_API_URL": server.api_url, "SKERRY_API_KEY": server.api_key, "E2B_API_URL": server.api_url,
            "E2B_SANDBOX_URL": server.api_url, "E2B_API_KEY": server.api_key,
        }  # fmt: skip
        with (
            child.started([sys.executable, *AS_NATIVE], where) as native,
            child.started([PYTHON, *AS_E2B], where) as e2b,
        ):
            await _starts(settings, result, server, e2b, native)
            native.call("use", sandbox=e2b.call("open"))
            await _calls(settings, result, e2b, native)
            await _files(settings, result, e2b, native)
            await _output(settings, result, server, e2b, native)
            e2b.call("close")
    return result


def _samplers(e2b: Child, native: Child, action: str, **arguments: Any) -> dict[str, Sampler]:
    """One sample by each client."""

    def sampler(client: Child) -> Sampler:
        async def sample() -> float:
            return float(client.call(action, **arguments))

        return sample

    return {"e2b": sampler(e2b), "native": sampler(native)}


def _compare(
    result: SuiteResult, name: str, times: dict[str, list[float]], notes: tuple[str, str], limit: float | None = LIMIT
) -> None:
    e2b = result.measure(f"{name}, E2B's client", times["e2b"], note=notes[0])
    native = result.measure(f"{name}, native SDK", times["native"], note=notes[1])
    result.compare(f"{name}: E2B's client ÷ native SDK", e2b, native, limit)


async def _starts(settings: Settings, result: SuiteResult, server: Server, e2b: Child, native: Child) -> None:
    async def settle() -> None:
        await server.settle(POOL, SETTLE_S)

    await server.settle(POOL, 120.0)  # the first one also makes the template's warm image
    times = await interleave(
        _samplers(e2b, native, "start"), settings.count(40, 3), warm_up=2, before_each=settle,
        budget_s=settings.seconds(240, 60),
    )  # fmt: skip
    _compare(result, "create → first `run_code('1+1')` result", times, ("", ""))


async def _calls(settings: Settings, result: SuiteResult, e2b: Child, native: Child) -> None:
    names = {"run_code": "`run_code('1+1')`", "command": "`true` by a login shell"}
    notes = {"run_code": ("", ""), "command": ("`commands.run`", "`exec`")}
    limits = {"run_code": None, "command": LIMIT}
    for action, name in names.items():
        times = await interleave(
            _samplers(e2b, native, action), settings.count(100, 5), warm_up=3, budget_s=settings.seconds(60, 15)
        )
        _compare(result, name, times, notes[action], limits[action])


async def _files(settings: Settings, result: SuiteResult, e2b: Child, native: Child) -> None:
    size = settings.count(64, 4) * MIB
    source = settings.scratch / "payload"
    source.write_bytes(os.urandom(size))
    path = "/home/user/payload"
    calls: dict[str, tuple[str, tuple[str, str], dict[str, Any]]] = {
        "write": ("written", ("bytes; sent as a form", "bytes"), {"source": str(source)}),
        "write_stream": ("written from an open file", ("", ""), {"source": str(source)}),
        "read": ("read", ("bytes", "bytes"), {"size": size}),
        "read_stream": ("read as a stream", ("", ""), {"size": size}),
    }
    for action, (name, notes, arguments) in calls.items():
        times = await interleave(
            _samplers(e2b, native, action, path=path, **arguments), settings.count(15, 2),
            budget_s=settings.seconds(60, 15),
        )  # fmt: skip
        _compare(result, f"{size // MIB} MiB {name}", times, notes)


async def _output(settings: Settings, result: SuiteResult, server: Server, e2b: Child, native: Child) -> None:
    size = settings.count(100, 5) * 1_000_000
    growths: dict[str, list[float]] = {"e2b": [], "native": []}

    def watched(name: str, sample: Sampler) -> Sampler:
        async def watch() -> float | list[float] | None:
            with Watch(server.pid) as watched:
                taken = await sample()
            growths[name].append(watched.growth_mib)
            return taken

        return watch

    samplers = {name: watched(name, sample) for name, sample in _samplers(e2b, native, "output", size=size).items()}
    times = await interleave(samplers, settings.count(5, 1), budget_s=settings.seconds(240, 60))
    _compare(result, f"{size // 1_000_000} MB of a command's output", times, ("Connect", "NDJSON"), None)
    for name, client in (("e2b", "E2B's client"), ("native", "the native SDK")):
        grown = max(growths[name])
        result.checks.append(
            Check(f"server memory during output to {client}", f"+{grown:.1f} MiB", f"≤ +{FLAT_MIB:g} MiB",
                  grown <= FLAT_MIB)
        )  # fmt: skip
